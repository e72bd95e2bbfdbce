"""The command line's parser: the table of commands, each with the options that its module adds."""

import argparse
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, Protocol, cast

from bertkd_ray.cli.arguments import EXIT_CODES
from bertkd_ray.cli.commands import COMMANDS
from bertkd_ray.cli.versions import ShowVersions
from bertkd_ray.core.paths import expand_home
from bertkd_ray.core.redaction import redacted

_EPILOG = f"""\
Finished work is never done twice: a command makes what its stage is made from, skips what is finished and goes on with
what was cut off. Results go to stdout, progress to stderr.
{EXIT_CODES}

  bertkd run configs/demo.yaml
  bertkd run configs/multi30k.yaml kd.temperature=2 student.steps=5000
  bertkd validate configs/multi30k.yaml
"""


class CommandModule(Protocol):
    """A module of a command; importing it imports nothing heavy."""

    EPILOG: str
    """The end of its help."""

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Adds what the command takes."""
        ...

    def call(self, options: argparse.Namespace) -> int | None:
        """Does the work; returns the exit code, None for 0."""
        ...


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, as everything else here does."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"bertkd: error: {redacted(message)}; see {self.prog} --help\n")


def make_parser() -> argparse.ArgumentParser:
    """The commands and their options, with their help."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog="bertkd",
        description="Distil a pretrained BERT into a small, fast translation model, distributed with Ray.",
        epilog=_EPILOG,
        formatter_class=formatter,
    )
    parser.add_argument("--version", action=ShowVersions, help="the versions of bertkd and of what it stands on")
    # Of a command that takes none, argparse may leave words unread all the same.
    parser.set_defaults(overrides=[])
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        module = cast(CommandModule, import_module(f"bertkd_ray.cli.{command.module}"))
        subparser = subparsers.add_parser(
            name, help=command.help, description=command.help, epilog=module.EPILOG, formatter_class=formatter
        )
        module.add_options(subparser)
        subparser.set_defaults(call=module.call)
    return parser


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The parsed command line. argparse leaves overrides that follow an option unread: `CONFIG --json key=value`."""
    parser = make_parser()
    options, unread = parser.parse_known_args(arguments)
    unknown = [argument for argument in unread if argument.startswith("-")]
    if unknown:
        parser.error(f"unknown option {unknown[0]}")
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
