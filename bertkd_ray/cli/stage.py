"""The command of a stage that takes a configuration alone: makes it, and before it those that it is made from."""

from argparse import ArgumentParser, Namespace

from bertkd_ray.cli.arguments import EXIT_CODES, add_config, configuration, print_result
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.stages import STAGES

EPILOG = EXIT_CODES


def add_options(parser: ArgumentParser) -> None:
    """The configuration and, where the command's stage is made for every arm, which of its arms."""
    add_config(parser)
    if STAGES[parser.prog.split()[-1]].per_arm:
        parser.add_argument("--arm", metavar="NAME", help="only this arm (default: every arm of the configuration)")


def call(options: Namespace) -> None:
    """Makes the stage that the command is named for, and prints a line for every artifact."""
    from bertkd_ray.pipeline.pipeline import Pipeline

    config, arms = configuration(options), [""]
    if STAGES[options.command].per_arm:
        arms = list(config.arms) if options.arm is None else [options.arm]
        if not set(arms) <= set(config.arms):
            raise UserError(f"--arm {options.arm}: the configuration has the arms {', '.join(config.arms)}")
    with Pipeline(config) as pipeline:
        for arm in arms:
            pipeline.make(options.command, arm)
    stages = pipeline.outcome.stages.items()
    lines = [f"{name:<20} {result.status:<8} {result.artifact.display_uri}" for name, result in stages]
    print_result(options, pipeline.outcome.as_json(), "\n".join(lines))
