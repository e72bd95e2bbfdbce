"""A plan as text for the terminal."""

from collections.abc import Mapping

from bertkd_ray.core.console import human_count, human_seconds
from bertkd_ray.core.text_tables import NO_VALUE, TableRow, text_table
from bertkd_ray.plan.costs import PipelinePlan, StagePlan

_HEADINGS = ["stage", "steps", "epochs", "tokens", "padding", "PFLOP", "device hours", "GB"]


def plan_text(plan: PipelinePlan) -> str:
    """The corpus, the devices, a table of the stages with their sum, and what was assumed."""
    corpus, device = plan.corpus, plan.device
    head = [f"corpus       {corpus.basis}"]
    for name, split in corpus.splits.items():
        mean = f"{split.src.mean():.1f} and {split.tgt.mean():.1f}"
        head.append(f"{name:<11}  {split.pairs:,} pairs of {mean} tokens")
    head.append(f"vocabulary   {corpus.vocabulary:,} tokens")
    head.append(f"devices      {plan.devices} × {device.name}")
    head.append(f"products     {_by_stage(device.flops, 1e-12, '.3g')} TFLOP/s, {device.rate_source}")
    head.append(f"utilisation  {_by_stage(device.utilisation, 1, '.0%')}: {device.utilisation_source}")
    table = text_table([_HEADINGS, *map(_row, plan.stages), _row(plan.total, absent="")])
    devices = "1 device" if plan.devices == 1 else f"{plan.devices} devices"
    wall = f"{human_seconds(plan.wall_seconds)} on {devices}, after {_figure(plan.prepare_core_hours)} core hours"
    end = [f"In all {wall} of prepare, without Ray's start.", *_checkpoints(plan)]
    end += [f"Assumed: {each}." for each in plan.assumptions]
    return "\n".join([*head, "", *(line.rstrip() for line in table), "", *end])


def _checkpoints(plan: PipelinePlan) -> list[str]:
    """A line of how many checkpoints the trainings write, and what they cost, where they write any."""
    trained = [(stage.name, of) for stage in plan.stages if (of := stage.checkpoints) and of.number]
    if not trained:
        return []
    each = ", ".join(f"{name} {of.number:,} of {_figure(of.bytes / 1e9)} GB" for name, of in trained)
    waited = human_seconds(sum(of.waited for _, of in trained))
    return [f"Checkpoints: {each}; the devices wait {waited} for them, which is counted (estimated)."]


def _by_stage(figures: Mapping[str, float], factor: float, form: str) -> str:
    """One figure where all stages have the same, else one a stage."""
    texts = {stage: format(factor * value, form) for stage, value in figures.items()}
    distinct = set(texts.values())
    return distinct.pop() if len(distinct) == 1 else ", ".join(f"{stage} {text}" for stage, text in texts.items())


def _row(stage: StagePlan, absent: str = NO_VALUE) -> TableRow:
    return [
        stage.name,
        absent if stage.steps is None else f"{stage.steps:,}",
        absent if stage.epochs is None else f"{stage.epochs:.3g}",
        human_count(stage.tokens),
        absent if stage.padding is None else f"{stage.padding:.1%}",
        _figure(stage.flops / 1e15),
        _figure(stage.device_hours),
        _figure(stage.bytes / 1e9),
    ]


def _figure(value: float) -> str:
    """Three digits, thousands apart, from a thousandth."""
    if value == 0:
        return NO_VALUE
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.001 else "<0.001"
