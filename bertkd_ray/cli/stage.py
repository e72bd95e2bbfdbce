"""The command of a stage that takes a configuration alone: makes it, and before it those that it is made from."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from bertkd_ray.cli.arguments import EXIT_CODES, add_config, configuration, print_result
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.stages import STAGES, Stage

if TYPE_CHECKING:
    from bertkd_ray.config import Config

EPILOG = EXIT_CODES


def add_options(parser: ArgumentParser) -> None:
    """The configuration and, where the command's stage is made for every arm or teacher, which of them."""
    add_config(parser)
    stage = STAGES[parser.prog.split()[-1]]
    if stage.per_arm:
        parser.add_argument("--arm", metavar="NAME", help="only this arm (default: every arm of the configuration)")
    if stage.per_teacher:
        help = "only this one of several teachers (default: every teacher that an arm learns from)"
        parser.add_argument("--teacher", metavar="NAME", help=help)


def call(options: Namespace) -> None:
    """Makes the stage that the command is named for, and prints a line for every artifact."""
    from bertkd_ray.pipeline.pipeline import Pipeline

    config, stage = configuration(options), STAGES[options.command]
    owners = [""]
    if stage.per_arm:
        owners = list(config.arms) if options.arm is None else [options.arm]
        if not set(owners) <= set(config.arms):
            raise UserError(f"--arm {options.arm}: the configuration has the arms {', '.join(config.arms)}")
    elif stage.per_teacher:
        owners = _teachers(config, stage, options.teacher)
    with Pipeline(config) as pipeline:
        for owner in owners:
            pipeline.make(options.command, owner)
    stages = pipeline.outcome.stages.items()
    lines = [f"{name:<20} {result.status:<8} {result.artifact.display_uri}" for name, result in stages]
    print_result(options, pipeline.outcome.as_json(), "\n".join(lines))


def _teachers(config: Config, stage: Stage, chosen: str | None) -> list[str]:
    """The teachers that a stage is made of: the chosen one, those that arms need it of, or all where none does."""
    from bertkd_ray.config.results import results_of

    if chosen is None:
        return [teacher for of, teacher in results_of(config).values() if of is stage] or list(config.teacher_configs())
    if chosen not in (config.teachers or {}):
        named = f"the teachers {', '.join(config.teachers)}" if config.teachers else "one teacher, without a name"
        raise UserError(f"--teacher {chosen}: the configuration has {named}")
    return [chosen]
