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
from bertkd_ray.report.frame import BEST, BLUE, FAINT, GRID, INK, VERMILION, Drawing, Panel, Style, draw_panels, styles
from bertkd_ray.report.tables import ArmResult
from bertkd_ray.training.curves import (
    TRAIN_LOSS,
    TRAIN_NLL,
    VALID_ACCURACY,
    VALID_BLEU,
    VALID_LOSS,
    VALID_NLL,
    CurveRow,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

History = Sequence[CurveRow]
TEACHER = FINETUNE.name
"""Whose history is the teacher's in `draw_all`."""

# A curve with fewer points is drawn as it is.
_SMOOTH_FROM = 30
# Beyond it (a diverged model) perplexities are no longer worth an axis.
_LARGEST_NLL = 50


def draw_all(
    histories: Mapping[str, History], fidelity: Mapping[str, float], results: Sequence[ArmResult], directory: Path
) -> list[Path]:
    """Every figure of a pipeline for which there are numbers, into `directory`; the files written.

    histories: by arm, and the teacher's under "finetune" where there is one; fidelity: see `draw_fidelity`, may be
    empty; results: the arms' scores, may be empty.
    """
    arms = {name: history for name, history in histories.items() if name != TEACHER}
    drawings = []
    if TEACHER in histories:
        drawings.append(draw_panels(finetuning_panels(histories[TEACHER]), directory / "finetuning"))
    if fidelity:
        drawings.append(draw_fidelity(fidelity, directory / "soft-labels"))
    if arms:
        drawings.append(draw_panels(translation_loss_panels(arms), directory / "translation-losses"))
        drawings.append(draw_panels(translation_quality_panels(arms), directory / "translation-quality"))
    if results:
        drawings.append(draw_scores({result.arm: result.test_bleu for result in results}, directory / "scores"))
    return [path for drawing in drawings for path in drawing]


def finetuning_panels(history: History) -> list[Panel]:
    """Training and validation loss, and masked accuracy, over the steps of the teacher's finetuning.

    The best checkpoint, by validation loss, is ringed.
    """
    training, validation = Style(BLUE, "-", ""), Style(VERMILION, "--", "o")
    best = _best_step(history, VALID_LOSS, lowest=True)

    def loss(axes: Axes) -> None:
        _draw_training(axes, history, TRAIN_LOSS, training, "training")
        _draw_validation(axes, history, VALID_LOSS, validation, "validation", best)
        _finish(axes, "nats per masked token")
        _limit_to_trend(axes, [history], TRAIN_LOSS)

    def accuracy(axes: Axes) -> None:
        _draw_validation(axes, history, VALID_ACCURACY, validation, "validation", best, scale=100)
        _finish(axes, "masked tokens predicted, %")

    histories = {"validation": history}
    return [
        Panel("C-MLM loss", loss, _summary(histories, VALID_LOSS, "nats per masked token")),
        Panel("Masked accuracy", accuracy, _summary(histories, VALID_ACCURACY, "% of masked tokens", scale=100)),
    ]


def translation_loss_panels(arms: Mapping[str, History]) -> list[Panel]:
    """Negative log-likelihood on training batches and on the validation set, of every arm over the student's steps.

    The likelihood of the reference is the part of the loss that all arms share, so the curves compare whatever their
    `kd.alpha`. The validation curve carries its perplexity on the right. The best checkpoint of an arm, by greedy BLEU
    (by likelihood where there is none), is ringed.
    """
    unit = "nats per target token"

    def training(axes: Axes) -> None:
        for (name, history), style in zip(arms.items(), styles(len(arms)), strict=True):
            _draw_training(axes, history, TRAIN_NLL, style, name)
        _finish(axes, unit)
        _limit_to_trend(axes, list(arms.values()), TRAIN_NLL)

    def validation(axes: Axes) -> None:
        for (name, history), style in zip(arms.items(), styles(len(arms)), strict=True):
            _draw_validation(axes, history, VALID_NLL, style, name, _best_translation_step(history))
        _finish(axes, unit)
        _add_perplexity_axis(axes)

    return [
        Panel("Translation loss, training", training, _summary(arms, TRAIN_NLL, unit)),
        Panel("Translation loss, validation", validation, _summary(arms, VALID_NLL, unit)),
    ]


def translation_quality_panels(arms: Mapping[str, History]) -> list[Panel]:
    """Token accuracy and greedy BLEU on the validation set, of every arm over the student's steps; best ringed."""

    def curves(key: str, label: str, scale: float) -> Callable[[Axes], None]:
        def draw(axes: Axes) -> None:
            for (name, history), style in zip(arms.items(), styles(len(arms)), strict=True):
                _draw_validation(axes, history, key, style, name, _best_translation_step(history), scale=scale)
            _finish(axes, label)

        return draw

    accuracy = _summary(arms, VALID_ACCURACY, "% of target tokens", scale=100)
    return [
        Panel("Token accuracy", curves(VALID_ACCURACY, "target tokens predicted, %", 100.0), accuracy),
        Panel("Greedy BLEU", curves(VALID_BLEU, "BLEU, validation set", 1.0), _summary(arms, VALID_BLEU, "BLEU")),
    ]


def draw_seeds(arms: Mapping[str, Sequence[History]], stem: Path) -> Drawing:
    """Greedy BLEU on the validation set of every arm over the student's steps: the mean over its seeds, and a band of
    one standard deviation to either side where several seeds were validated at the same step.

    arms: the histories of each arm, one a seed.
    """

    def bleu(axes: Axes) -> None:
        for (name, histories), style in zip(arms.items(), styles(len(arms)), strict=True):
            steps, means, deviations = _over_seeds(histories, VALID_BLEU)
            mean = [CurveRow(int(step), 0.0, {VALID_BLEU: value}) for step, value in zip(steps, means, strict=True)]
            _draw_validation(axes, mean, VALID_BLEU, style, name, None)
            axes.fill_between(
                steps, means - deviations, means + deviations, color=style.color, alpha=0.15, linewidth=0, zorder=1
            )
        _finish(axes, "BLEU, validation set")

    several = max((len(histories) for histories in arms.values()), default=0) > 1
    title = "Greedy BLEU, mean ± standard deviation over seeds" if several else "Greedy BLEU"
    return draw_panels([Panel(title, bleu)], stem, (7.4, 4.4))


def draw_fidelity(fidelity: Mapping[str, float], stem: Path) -> Drawing:
    """The teacher's probability that the soft labels keep, and their entropy, as bars.

    fidelity: means over target positions, each 0 … 1: "topk_mass" (the teacher's probability on its k logits),
    "gold_in_topk", "gold_first" (share of positions whose reference token is among the k, is the first); and in nats:
    "entropy_t1", "entropy_t10" (of the k, renormalised at temperatures 1 and 10). Absent or not finite: left out.
    """
    shares = {"topk_mass": "probability in the top k", "gold_in_topk": "reference in the top k"}
    shares["gold_first"] = "reference first"
    entropies = {"entropy_t1": "temperature 1", "entropy_t10": "temperature 10"}

    def kept(axes: Axes) -> None:
        bars = {label: 100 * fidelity[key] for key, label in shares.items() if _is_known(fidelity, key)}
        _draw_bars(axes, bars, ".1f")
        axes.set(xlim=(0, 112), xticks=range(0, 101, 20), xlabel="%, mean over target positions")

    def flatness(axes: Axes) -> None:
        bars = {label: fidelity[key] for key, label in entropies.items() if _is_known(fidelity, key)}
        _draw_bars(axes, bars, ".2f")
        axes.set_xlabel("entropy, nats")

    panels = [
        Panel("Soft labels: what they keep", kept, has_curves=False),
        Panel("Soft labels: how flat they are", flatness, has_curves=False),
    ]
    return draw_panels(panels, stem, (5.2, 2.4))


def draw_scores(scores: Mapping[str, float], stem: Path, *, label: str = "BLEU, test set") -> Drawing:
    """The final score of every arm as bars from zero, in the arms' own colours."""

    def bars(axes: Axes) -> None:
        _draw_bars(axes, scores, ".1f", [style.color for style in styles(len(scores))])
        axes.set_xlabel(label)

    return draw_panels([Panel("", bars, has_curves=False)], stem, (6.6, 1.3 + 0.42 * len(scores)))


# --- curves -----------------------------------------------------------------------------------------------------------


def _series(history: History, key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and finite values of one key, float64[n] each, by rising step."""
    points = [(row.step, row.metrics[key]) for row in history if _is_known(row.metrics, key)]
    array = np.asarray(sorted(points), dtype=np.float64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def _over_seeds(
    histories: Sequence[History], key: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Steps at which any seed has a value, and mean and sample standard deviation (0 of one value), float64[n] each."""
    by_step: dict[float, list[float]] = {}
    for history in histories:
        for step, value in zip(*_series(history, key), strict=True):
            by_step.setdefault(float(step), []).append(float(value))
    steps = sorted(by_step)
    means = [np.mean(by_step[step]) for step in steps]
    deviations = [np.std(by_step[step], ddof=1) if len(by_step[step]) > 1 else 0.0 for step in steps]
    return np.asarray(steps), np.asarray(means, dtype=np.float64), np.asarray(deviations, dtype=np.float64)


def _summary(histories: Mapping[str, History], key: str, unit: str, *, scale: float = 1.0) -> str:
    """Where every curve of a panel starts and where it ends, in words."""
    summaries = []
    for name, history in histories.items():
        steps, values = _series(history, key)
        if len(steps):
            first, last = (f"{values[place] * scale:.4g} {unit} at step {steps[place]:,.0f}" for place in (0, -1))
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


def _is_known(values: Mapping[str, float], key: str) -> bool:
    return key in values and math.isfinite(values[key])


def _best_step(history: History, key: str, *, lowest: bool) -> float | None:
    steps, values = _series(history, key)
    if not len(steps):
        return None
    return float(steps[np.argmin(values) if lowest else np.argmax(values)])


def _best_translation_step(history: History) -> float | None:
    best = _best_step(history, VALID_BLEU, lowest=False)
    return _best_step(history, VALID_NLL, lowest=True) if best is None else best


def _draw_training(axes: Axes, history: History, key: str, style: Style, label: str) -> None:
    steps, values = _series(history, key)
    if not len(steps):
        return
    smooth = _smooth(values)
    if smooth is not values:
        axes.plot(steps, values, color=style.color, linewidth=0.7, alpha=0.25, zorder=1)
    marker = "o" if len(steps) == 1 else ""
    axes.plot(steps, smooth, color=style.color, linestyle=style.line, marker=marker, linewidth=1.7, label=label)


def _draw_validation(
    axes: Axes, history: History, key: str, style: Style, label: str, best: float | None, *, scale: float = 1.0
) -> None:
    steps, values = _series(history, key)
    if not len(steps):
        return
    axes.plot(
        steps,
        values * scale,
        color=style.color,
        linestyle=style.line,
        marker=style.marker,
        # Many evaluations would turn markers into a band.
        markevery=max(len(steps) // 12, 1),
        markersize=4.5,
        linewidth=1.7,
        label=label,
    )
    at_best = np.flatnonzero(steps == best)
    if len(at_best):
        axes.plot(
            steps[at_best],
            values[at_best] * scale,
            linestyle="",
            marker="o",
            markersize=11,
            markerfacecolor="none",
            markeredgecolor=INK,
            markeredgewidth=1.3,
            zorder=4,
            label=BEST,
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


def _add_perplexity_axis(axes: Axes) -> None:
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


# --- axes -------------------------------------------------------------------------------------------------------------


def _finish(axes: Axes, label: str) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_xlabel("optimizer step")
    axes.set_ylabel(label)
    axes.grid(color=GRID, linewidth=0.8)
    if not axes.get_lines():
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center", color=FAINT)
        axes.set(xticks=[], yticks=[])
        return
    last_step = max(float(np.max(line.get_xdata())) for line in axes.get_lines())
    in_thousands = last_step >= 10_000
    round_steps = [1, 2, 2.5, 5, 10]
    axes.set_xlim(0, 1.03 * max(last_step, 1))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=round_steps))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda step, _: f"{step / 1000:g}k" if in_thousands and step else f"{step:g}")
    )
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=round_steps))


def _draw_bars(axes: Axes, values: Mapping[str, float], form: str, colors: Sequence[str] = ()) -> None:
    bars = axes.barh(list(values), list(values.values()), color=list(colors) or BLUE, height=0.62)
    axes.bar_label(bars, [format(value, form) for value in values.values()], padding=4)
    axes.set_xlim(0, 1.15 * max([*values.values(), 1e-9]))
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
