"""`bertkd completion SHELL`: the script that makes a shell complete commands, options, their choices and file names."""

from argparse import Action, ArgumentParser, Namespace, _SubParsersAction
from collections.abc import Iterator

SHELLS = ("bash", "zsh", "tcsh")
HELP = "a script that makes your shell complete commands, options and files"
EPILOG = """\
For this session of bash: eval "$(bertkd completion bash)"
Once, for good:

  bash   bertkd completion bash > ~/.bertkd.bash; echo source ~/.bertkd.bash >> ~/.bashrc
  zsh    bertkd completion zsh > DIR/_bertkd      # DIR: one of $fpath
  tcsh   bertkd completion tcsh > ~/.bertkd.tcsh; echo source ~/.bertkd.tcsh >> ~/.tcshrc
"""
_FILES = {"CONFIG.yaml", "STUDY.yaml", "MODEL", "CORPUS", "RUN", "FILE"}
"""What stands for a file in the usage of a command, as DIR does for a directory."""


def add_options(parser: ArgumentParser) -> None:
    """The shell."""
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help="%(choices)s")


def call(options: Namespace) -> None:
    """Prints the script."""
    from bertkd_ray.cli.parser import make_parser

    print(completion_script(make_parser(), options.shell))


def completion_script(parser: ArgumentParser, shell: str) -> str:
    """The script of one of `SHELLS` for a command line. Not completed: names of arms, keys of the configuration."""
    import shtab

    for action in _actions(parser):
        if action.metavar in {"DIR", *_FILES}:
            # shtab's own place for it
            action.complete = shtab.FILE if action.metavar in _FILES else shtab.DIRECTORY  # type: ignore[attr-defined]
    return str(shtab.complete(parser, shell))


def _actions(parser: ArgumentParser) -> Iterator[Action]:
    """Arguments and options of a parser and of its commands."""
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
        else:
            yield action
