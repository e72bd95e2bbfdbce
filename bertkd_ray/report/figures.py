"""Figures of a pipeline: finetuning curves, translation curves of every arm, soft label fidelity and final scores.

A history is a list of `training.curves.CurveRow`; a row may lack any of the metrics that a figure draws. Values that
are not finite are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bertkd_ray.core.stages import FINETUNE
from bertkd_ray.report.frame import BEST, COLORS, Drawing, Panel, Style, draw_panels, label_axes, styles
from bertkd_ray.report.tables import ArmResult
from bertkd_ray.training import curves
from bertkd_ray.training.curves import CurveRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

History = Sequence[CurveRow]
TEACHER = FINETUNE.name
"""Key of the teacher's history in `draw_all`."""

# A curve with fewer points is drawn as it is.
_SMOOTH_FROM = 30
# Beyond it (a diverged model) perplexities are no longer worth an axis.
_LARGEST_NLL = 50


def draw_all(
    histories: Mapping[str, History],
    fidelity: Mapping[str, Mapping[str, float]],
    results: Sequence[ArmResult],
    directory: Path,
) -> None:
    """Every figure of a pipeline for which there are numbers, into `directory`.

    histories: by arm, and the teacher's under "finetune" where there is one, those of several under "finetune/NAME";
    fidelity: by teacher, the only one without a name, see `draw_fidelity`, may be empty; results: the arms' scores, may
    be empty.
    """
    teachers, arms = split_histories(histories)
    for name, history in teachers.items():
        draw_panels(finetuning_panels(history), directory / f"finetuning{name and '-'}{name}")
    for name, of_teacher in fidelity.items():
        if of_teacher:
            draw_fidelity(of_teacher, directory / f"soft-labels{name and '-'}{name}")
    if arms:
        draw_panels(translation_loss_panels(arms), directory / "translation-losses")
        draw_panels(translation_quality_panels(arms), directory / "translation-quality")
    if results:
        draw_scores({result.arm: result.test_bleu for result in results}, directory / "scores")


def split_histories(histories: Mapping[str, History]) -> tuple[dict[str, History], dict[str, History]]:
    """The histories of teachers by name, empty for the only one, and those of arms."""
    teachers: dict[str, History] = {}
    arms: dict[str, History] = {}
    for key, history in histories.items():
        stage, _, name = key.partition("/")
        if stage == TEACHER:
            teachers[name] = history
        else:
            arms[key] = history
    return teachers, arms


def finetuning_panels(history: History) -> list[Panel]:
    """Training and validation loss, and masked accuracy, over the steps of the teacher's finetuning.

    The best checkpoint, by validation loss, is ringed.
    """
    training, validation = Style(COLORS["series-1"], "-", ""), Style(COLORS["series-2"], "--", "o")
    histories, unit = {"validation": history}, "nats per masked token"

    def loss(axes: Axes) -> None:
        _draw_training(axes, history, curves.TRAIN_LOSS, training, "training")
        _draw_validation(axes, history, curves.VALID_LOSS, validation, "validation", _best_step(history))
        _finish(axes, unit)
        _limit_to_trend(axes, [history], curves.TRAIN_LOSS)

    labels = "masked tokens predicted, %", "% of masked tokens"
    return [
        Panel("C-MLM loss", loss, _summary(histories, curves.VALID_LOSS, unit)),
        _validation_panel("Masked accuracy", histories, curves.VALID_ACCURACY, *labels, scale=100, series=[validation]),
    ]


def translation_loss_panels(arms: Mapping[str, History]) -> list[Panel]:
    """Negative log-likelihood on training batches and on the validation set, of every arm over the student's steps.

    The likelihood of the reference is the part of the loss that all arms share, so the curves compare whatever their
    `kd.alpha`. The validation curve carries its perplexity on the right. The best checkpoint of an arm, by greedy BLEU
    (by likelihood where there is none), is ringed. A third panel has the divergence of the distilled arms from their
    teacher, where there is any.
    """
    unit = "nats per target token"

    def training(axes: Axes) -> None:
        for (name, history), style in zip(arms.items(), styles(len(arms)), strict=True):
            _draw_training(axes, history, curves.TRAIN_NLL, style, name)
        _finish(axes, unit)
        _limit_to_trend(axes, list(arms.values()), curves.TRAIN_NLL)

    divergence = _validation_panel("KL(teacher ‖ student), validation", arms, curves.VALID_KL, unit, unit)
    return [
        Panel("Translation loss, training", training, _summary(arms, curves.TRAIN_NLL, unit)),
        _validation_panel("Translation loss, validation", arms, curves.VALID_NLL, unit, unit, finish=_add_perplexity),
        *([divergence] if any(len(_series(history, curves.VALID_KL)[0]) for history in arms.values()) else []),
    ]


def translation_quality_panels(arms: Mapping[str, History]) -> list[Panel]:
    """Token accuracy and greedy BLEU on the validation set, of every arm over the student's steps; best ringed."""
    accuracy = "target tokens predicted, %", "% of target tokens"
    return [
        _validation_panel("Token accuracy", arms, curves.VALID_ACCURACY, *accuracy, scale=100),
        _validation_panel("Greedy BLEU", arms, curves.VALID_BLEU, "BLEU, validation set", "BLEU"),
    ]


def draw_seeds(arms: Mapping[str, Sequence[History]], stem: Path, *, over: str = "seeds") -> Drawing:
    """Greedy BLEU on the validation set of every arm over the student's steps: the mean over its students, and a band
    of one standard deviation to either side where several of them were validated at the same step.

    arms: the histories of each arm, one a student. over: what the students of an arm differ in.
    """

    def bleu(axes: Axes) -> None:
        for (name, histories), style in zip(arms.items(), styles(len(arms)), strict=True):
            steps, means, deviations = _over_seeds(histories, curves.VALID_BLEU)
            points = zip(steps, means, strict=True)
            mean = [CurveRow(int(step), 0.0, {curves.VALID_BLEU: value}) for step, value in points]
            _draw_validation(axes, mean, curves.VALID_BLEU, style, name, None)
            band = means - deviations, means + deviations
            axes.fill_between(steps, *band, color=style.color, alpha=0.15, lw=0, zorder=1)
        _finish(axes, "BLEU, validation set")

    several = max((len(histories) for histories in arms.values()), default=0) > 1
    title = f"Greedy BLEU, mean ± standard deviation over {over}" if several else "Greedy BLEU"
    return draw_panels([Panel(title, bleu)], stem, (7.4, 4.4))


def draw_fidelity(fidelity: Mapping[str, float], stem: Path) -> Drawing:
    """The teacher's probability that the soft labels keep, and their entropy, as bars.

    fidelity: means over target positions, each 0 … 1: "topk_mass" (the teacher's probability on its k logits),
    "gold_in_topk", "gold_first" (share of positions whose reference token is among the k, is the first); and in nats:
    "entropy_t1", "entropy_t10" (of the k, renormalised at temperatures 1 and 10). Absent or not finite: left out.
    """
    known = {key: value for key, value in fidelity.items() if math.isfinite(value)}
    shares = {
        "topk_mass": "probability in the top k",
        "gold_in_topk": "reference in the top k",
        "gold_first": "reference first",
    }
    entropies = {"entropy_t1": "temperature 1", "entropy_t10": "temperature 10"}

    def kept(axes: Axes) -> None:
        _draw_bars(axes, {label: 100 * known[key] for key, label in shares.items() if key in known}, ".1f")
        axes.set(xlim=(0, 112), xticks=range(0, 101, 20), xlabel="%, mean over target positions")

    def flatness(axes: Axes) -> None:
        _draw_bars(axes, {label: known[key] for key, label in entropies.items() if key in known}, ".2f")
        axes.set_xlabel("entropy, nats")

    panels = [
        Panel("Soft labels: what they keep", kept, has_curves=False),
        Panel("Soft labels: how flat they are", flatness, has_curves=False),
    ]
    return draw_panels(panels, stem, (5.2, 2.4))


def draw_scores(scores: Mapping[str, float], stem: Path) -> Drawing:
    """The final score of every arm as bars from zero, in the arms' own colours."""

    def bars(axes: Axes) -> None:
        _draw_bars(axes, scores, ".1f", [style.color for style in styles(len(scores))])
        axes.set_xlabel("BLEU, test set")

    return draw_panels([Panel("", bars, has_curves=False)], stem, (6.6, 1.3 + 0.42 * len(scores)))


def _series(history: History, key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and finite values of one key, float64[n] each, by rising step."""
    points = [(row.step, value) for row in history if math.isfinite(value := row.metrics.get(key, math.nan))]
    array = np.asarray(sorted(points), dtype=np.float64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def _over_seeds(histories: Sequence[History], key: str) -> NDArray[np.float64]:
    """Steps at which any seed has a value, and mean and sample standard deviation (0 of one value): float64[3, n]."""
    by_step: dict[float, list[float]] = {}
    for history in histories:
        for step, value in zip(*_series(history, key), strict=True):
            by_step.setdefault(step, []).append(value)
    rows = [(step, np.mean(of), np.std(of, ddof=1) if len(of) > 1 else 0.0) for step, of in sorted(by_step.items())]
    return np.asarray(rows, np.float64).reshape(-1, 3).T


def _summary(histories: Mapping[str, History], key: str, unit: str, *, scale: float = 1.0) -> str:
    """Where every curve of a panel starts and where it ends, in words."""
    summaries = []
    for name, history in histories.items():
        steps, values = _series(history, key)
        if len(steps):
            first, last = (f"{values[index] * scale:.4g} {unit} at step {steps[index]:,.0f}" for index in (0, -1))
            summaries.append(f"{name}: {last}" if len(steps) == 1 else f"{name}: from {first} to {last}")
    return "; ".join(summaries) or "not measured"


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A centred running mean over 1/20 of the points.

    At the start, where the loss falls steeply, the window shrinks on both sides; at the end only its right side does.
    """
    if len(values) < _SMOOTH_FROM:
        return values
    index = np.arange(len(values))
    half = np.minimum(index, max(len(values) // 40, 1))
    first, last = index - half, np.minimum(index + half, len(values) - 1)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    smooth: NDArray[np.float64] = (sums[last + 1] - sums[first]) / (last + 1 - first)
    return smooth


def _best_step(history: History) -> float | None:
    """The step of the best checkpoint, by greedy BLEU; where there is none by likelihood, of a teacher by loss."""
    for key, best in ((curves.VALID_BLEU, np.argmax), (curves.VALID_NLL, np.argmin), (curves.VALID_LOSS, np.argmin)):
        steps, values = _series(history, key)
        if len(steps):
            return float(steps[best(values)])
    return None


def _validation_panel(
    title: str,
    histories: Mapping[str, History],
    key: str,
    label: str,
    unit: str,
    *,
    scale: float = 1.0,
    series: Sequence[Style] = (),
    finish: Callable[[Axes], None] = lambda axes: None,
) -> Panel:
    """A metric of the validation set, a curve a history, with the best checkpoints ringed."""

    def draw(axes: Axes) -> None:
        for (name, history), style in zip(histories.items(), series or styles(len(histories)), strict=True):
            _draw_validation(axes, history, key, style, name, _best_step(history), scale=scale)
        _finish(axes, label)
        finish(axes)

    return Panel(title, draw, _summary(histories, key, unit, scale=scale))


def _draw_training(axes: Axes, history: History, key: str, style: Style, label: str) -> None:
    steps, values = _series(history, key)
    if not len(steps):
        return
    smooth = _smooth(values)
    if smooth is not values:
        axes.plot(steps, values, color=style.color, lw=0.7, alpha=0.25, zorder=1)
    marker = "o" if len(steps) == 1 else ""
    axes.plot(steps, smooth, color=style.color, ls=style.line, marker=marker, lw=1.7, label=label)


def _draw_validation(
    axes: Axes, history: History, key: str, style: Style, label: str, best: float | None, *, scale: float = 1.0
) -> None:
    steps, values = _series(history, key)
    if not len(steps):
        return
    color, line, marker = style
    # Many evaluations would turn markers into a band.
    every = max(len(steps) // 12, 1)
    axes.plot(steps, scale * values, color=color, ls=line, marker=marker, markevery=every, ms=4.5, lw=1.7, label=label)
    ring = steps == best
    if ring.any():
        axes.plot(
            steps[ring], scale * values[ring], "o", ms=11, mfc="none", mec=COLORS["ink"], mew=1.3, zorder=4, label=BEST
        )


def _limit_to_trend(axes: Axes, histories: Sequence[History], key: str) -> None:
    """Keep single outliers of the raw training loss from pressing the curves flat."""
    lines = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
    drawn = np.concatenate([np.asarray(line.get_ydata(), dtype=np.float64) for line in lines]) if lines else np.zeros(0)
    raw = [_series(history, key)[1] for history in histories]
    usual = [np.percentile(values, [1, 99]) for values in raw if len(values)]
    spread = np.concatenate([drawn, *usual])
    if len(spread) and spread.max() > spread.min():
        margin = 0.04 * (spread.max() - spread.min())
        axes.set_ylim(spread.min() - margin, spread.max() + margin)


def _add_perplexity(axes: Axes) -> None:
    """Perplexities on the right, at round values within the range of the losses on the left, while they have a name."""
    low, high = axes.get_ylim()
    if not axes.get_lines() or high > _LARGEST_NLL:
        return
    decades = range(math.floor(low / math.log(10)), math.ceil(high / math.log(10)) + 1)
    for digits in ([1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 7], np.arange(1, 10, 0.5), np.arange(1, 10, 0.1)):
        marks = [digit * 10.0**decade for decade in decades for digit in digits]
        ticks = [mark for mark in marks if low <= math.log(mark) <= high]
        if len(ticks) >= 4:
            break
    right = axes.twinx()
    right.set_ylim(low, high)
    right.set_yticks([math.log(tick) for tick in ticks], [f"{tick:.3g}" for tick in ticks])
    right.set_ylabel("perplexity")
    right.spines["right"].set_visible(True)
    right.grid(visible=False)


def _finish(axes: Axes, label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    label_axes(axes, "optimizer step", label)
    if not axes.get_lines():
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center", color=COLORS["faint"])
        axes.set(xticks=[], yticks=[])
        return
    last_step = max(float(np.max(line.get_xdata())) for line in axes.get_lines())
    in_thousands = last_step >= 10_000
    axes.set_xlim(0, 1.03 * max(last_step, 1))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(lambda step, _: f"{step / 1000:g}k" if in_thousands and step else f"{step:g}")


def _draw_bars(axes: Axes, values: Mapping[str, float], form: str, colors: Sequence[str] = ()) -> None:
    bars = axes.barh(list(values), list(values.values()), color=list(colors) or COLORS["series-1"], height=0.62)
    axes.bar_label(bars, [format(value, form) for value in values.values()], padding=4)
    axes.set_xlim(0, 1.15 * max([*values.values(), 1e-9]))
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
