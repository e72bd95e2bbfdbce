"""The command line's parser: the table of commands, each with the options that its module adds."""

import argparse
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from bertkd_ray import __version__
from bertkd_ray.cli.arguments import EXIT_CODES
from bertkd_ray.core.libraries import library_versions
from bertkd_ray.core.paths import expand_home
from bertkd_ray.core.redaction import redacted
from bertkd_ray.core.stages import STAGES, TRANSLATE

_OF_STAGES = {**dict.fromkeys(STAGES, "stage"), TRANSLATE.name: "translate"}
_OTHERS = ("export", "inspect", "submit", "compare", "report", "validate", "plan", "completion")
COMMANDS = {"init": "init", "run": "run", "study": "study", **_OF_STAGES, **{name: name for name in _OTHERS}}
"""By the name on the command line, in the order of the help: the module, which imports nothing heavy. It has `HELP`
(a stage's is its summary), `EPILOG`, `add_options` and `call`, which returns the exit code, None for 0."""
_STACK = ("ray", "torch", "transformers", "tokenizers", "pyarrow", "mlflow", "sacrebleu", "ctranslate2")
"""Distributions whose versions belong into a report of a defect; the last one is optional."""

_EPILOG = f"""\
Finished work is never done twice: a command makes what its stage is made from, skips what is finished and goes on with
what was cut off. Results go to stdout, progress to stderr.
{EXIT_CODES}

  bertkd run configs/demo.yaml
  bertkd run configs/multi30k.yaml kd.temperature=2 student.steps=5000
  bertkd validate configs/multi30k.yaml
"""


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, as everything else here does."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"bertkd: error: {redacted(message)}; see {self.prog} --help\n")


class _ShowVersions(argparse.Action):
    """Prints the versions of this package and of what it stands on, as installed, without importing any of it."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        versions = {"bertkd": __version__, **library_versions(_STACK)}
        width = max(map(len, versions))
        print("\n".join(f"{name:<{width}}  {version}" for name, version in versions.items()))
        parser.exit()


def make_parser() -> argparse.ArgumentParser:
    """The commands and their options, with their help."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog="bertkd",
        description="Distil a pretrained BERT into a small, fast translation model, distributed with Ray.",
        epilog=_EPILOG,
        formatter_class=formatter,
    )
    parser.add_argument("--version", action=_ShowVersions, nargs=0, help="versions of bertkd and of what it stands on")
    # Of a command that takes none, argparse may leave words unread all the same.
    parser.set_defaults(overrides=[])
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module_name in COMMANDS.items():
        module = import_module(f"bertkd_ray.cli.{module_name}")
        help = f"stage {list(STAGES).index(name)}: {STAGES[name].summary}" if name in STAGES else module.HELP
        texts = {"help": help, "description": help, "epilog": module.EPILOG}
        command = subparsers.add_parser(name, **texts, formatter_class=formatter)
        module.add_options(command)
        command.set_defaults(call=module.call, error=command.error)
    return parser


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The parsed command line. argparse leaves overrides that follow an option unread: `CONFIG --json key=value`."""
    parser = make_parser()
    options, unread = parser.parse_known_args(arguments)
    unknown = [argument for argument in unread if argument.startswith("-")]
    if unknown:
        options.error(f"unknown option {unknown[0]}")
    options.overrides = [*options.overrides, *unread]
    for name, value in vars(options).items():
        setattr(options, name, _home_expanded(value))
    return options


def _home_expanded(value: Any) -> Any:
    """The value of an option, `~` in its paths expanded: shells leave it in `--output=~/page.html`."""
    if isinstance(value, list):
        return [_home_expanded(item) for item in value]
    if isinstance(value, str | Path):
        return type(value)(expand_home(str(value)))
    return value
