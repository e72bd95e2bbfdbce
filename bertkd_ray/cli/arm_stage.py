"""`bertkd distill`: a stage that is made for every arm of a configuration, or for one."""

from argparse import ArgumentParser, Namespace

from bertkd_ray.cli.arguments import EXIT_CODES, add_config, configuration
from bertkd_ray.cli.stage import make
from bertkd_ray.core.errors import UserError

EPILOG = EXIT_CODES


def add_options(parser: ArgumentParser) -> None:
    """The configuration, and which of its arms."""
    add_config(parser)
    parser.add_argument("--arm", metavar="NAME", help="only this arm (default: every arm of the configuration)")


def call(options: Namespace) -> int:
    """Makes the stage that the command is named for."""
    config = configuration(options)
    if options.arm is not None and options.arm not in config.arms:
        raise UserError(f"--arm {options.arm}: the configuration has the arms {', '.join(config.arms)}")
    return make(config, options, [options.arm] if options.arm else list(config.arms))
