"""What is unreasonable about a plan, each in one line."""

from bertkd_ray.core.console import human_seconds
from bertkd_ray.core.stages import FINETUNE
from bertkd_ray.plan.costs import PipelinePlan

LONG_SECONDS, MANY_EPOCHS = 24 * 3600, 200
"""Above which a plan is warned of: of the whole pipeline on its devices, and of one training."""


def time_warnings(plan: PipelinePlan) -> list[str]:
    """A line where the pipeline takes more than a day on its devices, else none."""
    if plan.wall_seconds <= LONG_SECONDS:
        return []
    sections = dict.fromkeys(_section(stage.name) for stage in plan.stages if stage.epochs is not None)
    steps = ", ".join(f"{section}.steps" for section in sections)
    longest = max(plan.stages, key=lambda stage: stage.device_hours)
    of = longest.name if longest.steps is None else f"{longest.name} with its {longest.steps:,} steps"
    return [
        f"this takes {human_seconds(plan.wall_seconds)} on {plan.devices} × {plan.device.name}, "
        f"{longest.device_hours / plan.total.device_hours:.0%} of it {of}; "
        f"fewer steps ({steps}), smaller models or more devices take less"
    ]


def epoch_warnings(plan: PipelinePlan) -> list[str]:
    """A line for trainings that see their text more than `MANY_EPOCHS` times, equal ones together."""
    stages: dict[tuple[str, int | None, float], list[str]] = {}
    for stage in plan.stages:
        if stage.epochs is not None and stage.epochs > MANY_EPOCHS:
            stages.setdefault((_section(stage.name), stage.steps, stage.epochs), []).append(stage.name)
    return [
        f"{', '.join(names)}: {steps:,} steps see the training text {epochs:,.0f} times; "
        f"lower {model}.steps, unless {model}.patience ends it when it no longer helps"
        for (model, steps, epochs), names in stages.items()
    ]


def _section(training: str) -> str:
    """The section of the configuration that a training's settings are in."""
    kind, _, owner = training.partition("/")
    if kind != FINETUNE.name:
        return "student"
    return f"teachers.{owner}" if owner else "teacher"
