"""A plan as text for the terminal."""

from __future__ import annotations

from bertkd_ray.core.console import human_count, human_seconds
from bertkd_ray.plan.costs import Plan, StagePlan
from bertkd_ray.report.tables import NOTHING, Row, aligned

_HEADINGS = ["stage", "steps", "epochs", "tokens", "padding", "PFLOP", "device hours", "GB"]


def plan_text(plan: Plan) -> str:
    """What the corpus is taken for, a table of the stages with their sum, and what was assumed."""
    corpus = plan.corpus
    splits = ", ".join(
        f"{name} {split.pairs:,} pairs of {split.src.mean():.1f} and {split.tgt.mean():.1f} tokens"
        for name, split in corpus.splits.items()
    )
    head = [f"corpus      {corpus.basis}", f"splits      {splits}", f"vocabulary  {corpus.vocabulary:,} tokens"]
    head.append(f"device      {plan.devices} × {plan.device.name}: {plan.device.source}")
    table = [_HEADINGS, *(_row(stage) for stage in plan.stages), _sum(plan)]
    lines = [line.rstrip() for line in aligned(table)]
    wall = (
        f"{human_seconds(plan.wall_seconds)} on {plan.devices} device(s), and {plan.prepare_core_hours:.3g} core hours"
    )
    return "\n".join([*head, "", *lines, "", f"In all {wall} of prepare.", *(f"- {one}" for one in plan.assumptions)])


def _row(stage: StagePlan) -> Row:
    return [
        stage.name,
        NOTHING if stage.steps is None else f"{stage.steps:,}",
        NOTHING if stage.epochs is None else f"{stage.epochs:.3g}",
        human_count(stage.tokens),
        NOTHING if stage.padding is None else f"{stage.padding:.1%}",
        _figure(stage.flops / 1e15),
        _figure(stage.device_hours),
        _figure(stage.bytes / 1e9),
    ]


def _sum(plan: Plan) -> Row:
    total = plan.total
    return [
        "all",
        "",
        "",
        human_count(total.tokens),
        "",
        *map(_figure, (total.flops / 1e15, total.device_hours, total.bytes / 1e9)),
    ]


def _figure(value: float) -> str:
    """Three digits, thousands apart."""
    if value == 0:
        return NOTHING
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
