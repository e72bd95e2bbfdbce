"""The tables of a page: rows of text and numbers, without a word of HTML."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.config import Config
from bertkd_ray.config.corpus import SPLITS
from bertkd_ray.core.console import human_bytes, human_count, human_seconds
from bertkd_ray.core.stages import BY_ARTIFACT, DISTILL, FINETUNE
from bertkd_ray.core.text_tables import format_number, format_p
from bertkd_ray.corpus.cleaning import REASONS
from bertkd_ray.report.lineage import Node
from bertkd_ray.report.results import Results
from bertkd_ray.report.tables import ArmResult
from bertkd_ray.training.curves import VALID_ACCURACY, CurveRow

CHANCE = 0.05
"""From this p-value on a difference is called one that may be chance."""
_COUNTED_APART = {"pairs", "read", "src_tokens", "tgt_tokens", "src_unknown", "tgt_unknown", *REASONS}


@dataclass(frozen=True)
class Tile:
    """A headline number, at the top of the page."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell of a table."""

    text: str
    is_best: bool = False


@dataclass(frozen=True)
class FigureRow:
    """A figure of every arm, or of every split."""

    label: str
    note: str
    cells: list[Cell]


@dataclass(frozen=True)
class Bar:
    """A value beside others of its kind."""

    label: str
    value: str
    share: float
    """How much of the whole length is filled, 0 to 1."""
    note: str = ""


def artifact_title(name: str, artifact: Artifact) -> str:
    """The title of an artifact: `Student, control`."""
    _, _, arm = name.partition("/")
    title = BY_ARTIFACT[artifact.stage].title
    return f"{title}, {arm}" if arm else title


# --- scores -----------------------------------------------------------------------------------------------------------


def best_arm(results: Results) -> ArmResult | None:
    """The arm of the highest test BLEU among those that are compared with the control; without any, of all."""
    compared = [arm for arm in results.arms if arm.delta is not None] or results.arms
    return max(compared, key=lambda arm: arm.test_bleu, default=None)


def verdict(results: Results) -> str:
    """The outcome in one sentence; empty where no arm is finished."""
    best = best_arm(results)
    if best is None:
        return ""
    score = f"The student “{best.arm}” scores {best.test_bleu:.2f} BLEU on the test set"
    if best.delta is None or results.control is None:
        return f"{score}."
    than = f"{abs(best.delta):.2f} {'more' if best.delta >= 0 else 'less'} than “{results.control}”"
    if best.p_value is None or math.isnan(best.p_value) or best.p_value >= CHANCE:
        return f"{score}, {than}: a difference that may be chance ({_p(best.p_value)})."
    return f"{score}, {than}, which was trained without the teacher ({_p(best.p_value)})."


def _p(p_value: float | None) -> str:
    """`p < 0.001`, `p = 0.042`."""
    text = format_p(p_value)
    return f"p < {text[1:]}" if text.startswith("<") else f"p = {text}"


def tiles(results: Results) -> Iterator[Tile]:
    """The headline numbers, as far as there are any."""
    best = best_arm(results)
    if best is not None:
        control = next((arm for arm in results.arms if arm.arm == results.control and arm is not best), None)
        beside = f"{control.arm}: {control.test_bleu:.2f}" if control else ""
        yield Tile(f"Test BLEU, {best.arm}", f"{best.test_bleu:.2f}", beside)
        if best.delta is not None:
            samples = results.config.translate.bootstrap_samples
            note = f"{_p(best.p_value)}, {samples:,} bootstrap samples"
            yield Tile(f"Against {results.control}", f"{best.delta:+.2f}", note)
    teacher = results.stages.get(FINETUNE.name)
    if best is not None:
        size = f"teacher: {human_count(teacher.metrics['parameters'])}" if teacher else ""
        yield Tile("Parameters of the student", human_count(best.parameters), size)
    elif teacher is not None:
        accuracy = f"{100 * teacher.metrics[VALID_ACCURACY]:.1f}%"
        yield Tile("Masked accuracy of the teacher", accuracy, "validation set")
    seconds = sum(artifact.seconds for artifact in results.stages.values())
    count = len(results.stages)
    yield Tile("Time for all stages", human_seconds(seconds), f"{count} artifact{'s' if count > 1 else ''}")


def score_rows(results: Results) -> list[FigureRow]:
    """The figures of every arm, best ones marked where more is better and there is more than one arm."""
    arms = results.arms
    students = [results.stages[DISTILL.result(arm.arm)].metrics for arm in arms]
    beam = results.config.translate.beam
    labels = [_soft_labels(results.arm_configs[arm.arm]) for arm in arms]

    def row(
        label: str, note: str, values: Sequence[float | None], form: str, best: Callable[..., Any] | None
    ) -> FigureRow:
        known = [value for value in values if value is not None and not math.isnan(value)]
        top = best(known) if best and len(set(known)) > 1 else None
        return FigureRow(
            label, note, [Cell(format_number(value, form), top is not None and value == top) for value in values]
        )

    compared = [
        row("Difference", f"test BLEU against {results.control}", [arm.delta for arm in arms], "+.2f", None),
        FigureRow("p", "of the difference, two-tailed paired bootstrap", [Cell(format_p(arm.p_value)) for arm in arms]),
    ]
    return [
        FigureRow("Soft labels", "weight α, temperature T, k logits", [Cell(label) for label in labels]),
        row("Test BLEU", f"beam {beam}", [arm.test_bleu for arm in arms], ".2f", max),
        *(compared if len(arms) > 1 and results.control else []),
        row("Test chrF", f"beam {beam}", [arm.chrf for arm in arms], ".2f", max),
        row("Test BLEU, legacy", "tokenised, lower case", [arm.legacy_bleu for arm in arms], ".2f", max),
        row("Length ratio", "output over reference", [arm.length_ratio for arm in arms], ".3f", None),
        row("Valid BLEU", "greedy", [arm.valid_bleu for arm in arms], ".2f", max),
        row("Valid accuracy", "target tokens, %", [100 * metrics[VALID_ACCURACY] for metrics in students], ".1f", max),
        row("Valid perplexity", "of the references", [arm.valid_perplexity for arm in arms], ".2f", min),
        FigureRow("Parameters", "of the student", [Cell(human_count(arm.parameters)) for arm in arms]),
    ]


def _soft_labels(config: Config) -> str:
    return f"α {config.kd.alpha:g}, T {config.kd.temperature:g}, k {config.kd.topk}" if config.kd.alpha else "none"


def signature_rows(results: Results) -> list[tuple[str, str]]:
    """Metric and signature."""
    titles = {"bleu_signature": "BLEU", "chrf_signature": "chrF", "bootstrap": "p"}
    return [(titles.get(name, name), signature) for name, signature in results.signatures.items()]


# --- training, soft labels --------------------------------------------------------------------------------------------


def validation_rows(
    histories: Mapping[str, Sequence[CurveRow]], columns: Mapping[str, tuple[str, float]]
) -> list[tuple[int, list[str]]]:
    """Step and values, history by history, at every step at which one of them was validated.

    columns: key of the history to format and factor.
    """
    by_step: dict[int, dict[str, Mapping[str, float]]] = {}
    for name, history in histories.items():
        for row in history:
            if any(key in row.metrics for key in columns):
                by_step.setdefault(row.step, {})[name] = row.metrics
    return [
        (step, [_scaled(metrics.get(name, {}).get(key), *columns[key]) for name in histories for key in columns])
        for step, metrics in sorted(by_step.items())
    ]


def _scaled(value: float | None, form: str, factor: float) -> str:
    return format_number(None if value is None else factor * value, form)


def fidelity_bars(labels: Artifact) -> list[Bar]:
    """What the soft labels keep of the teacher, and how flat they are."""
    k, metrics = labels.info["k"], labels.metrics
    flattest = math.log(k)
    shares = {
        "topk_mass": (f"Probability in the top {k}", f"of the teacher, carried by the {k} logits that are stored"),
        "gold_in_topk": (f"Reference among the top {k}", "share of target positions"),
        "gold_first": ("Reference first", "share of target positions"),
    }
    entropies = {"entropy_t1": "Entropy at temperature 1", "entropy_t10": "Entropy at temperature 10"}
    bars = [
        Bar(label, f"{100 * metrics[f'fidelity/{name}']:.1f}%", metrics[f"fidelity/{name}"], note)
        for name, (label, note) in shares.items()
    ]
    for name, label in entropies.items():
        value = metrics[f"fidelity/{name}"]
        share = value / flattest if flattest else 0.0
        bars.append(Bar(label, f"{value:.2f} nats", share, f"of at most {flattest:.2f}, all {k} alike"))
    return bars


# --- corpus -----------------------------------------------------------------------------------------------------------


def corpus_rows(corpus: Artifact) -> list[FigureRow]:
    """Counts by split; reasons that no pair was dropped for are left out."""
    counts: dict[str, dict[str, int]] = corpus.info["splits"]
    languages = [corpus.info.get(f"{side}_lang", "") for side in ("src", "tgt")]

    def row(label: str, note: str, values: Sequence[int | None]) -> FigureRow:
        return FigureRow(label, note, [Cell(format_number(value, ",")) for value in values])

    def named(name: str) -> list[int | None]:
        return [counts[split].get(name) for split in SPLITS]

    dropped = [sum(counts[split].get(reason, 0) for reason in REASONS) for split in SPLITS]
    reasons = [reason for reason in REASONS if any(counts[split].get(reason) for split in SPLITS)]
    others = sorted({name for split in SPLITS for name, count in counts[split].items() if count} - _COUNTED_APART)
    return [
        row("Pairs read", "", named("read")),
        row("Pairs dropped", "", dropped),
        *(row(_words(reason), "dropped", named(reason)) for reason in reasons),
        row("Pairs kept", "", named("pairs")),
        *(row(_words(name), "", named(name)) for name in others),
        row("Source tokens", languages[0], named("src_tokens")),
        row("Target tokens", languages[1], named("tgt_tokens")),
        row("Unknown source tokens", "", named("src_unknown")),
        row("Unknown target tokens", "", named("tgt_unknown")),
    ]


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


def dead_letter_rows(results: Results) -> list[tuple[str, int]]:
    """Artifact, and how many pairs could not be computed for it, where there are any."""
    counted = [
        (artifact_title(name, made), int(made.metrics.get("rejects", 0))) for name, made in results.stages.items()
    ]
    return [(name, count) for name, count in counted if count]


# --- time, artifacts, versions ----------------------------------------------------------------------------------------


def time_bars(nodes: Sequence[Node]) -> list[Bar]:
    """The seconds of every artifact, the longest of them the whole bar; in the order in which they were finished."""
    ordered = sorted(nodes, key=lambda node: node.artifact.created)
    total, longest = sum(node.seconds for node in nodes), max(node.seconds for node in nodes)
    return [
        Bar(
            artifact_title(node.name, node.artifact),
            human_seconds(node.seconds),
            node.seconds / longest if longest else 0.0,
            f"{100 * node.seconds / total:.0f}%" if total else "",
        )
        for node in ordered
    ]


def total_bytes(nodes: Sequence[Node]) -> str:
    """The size of all artifacts together, `1.50 GiB`."""
    return human_bytes(sum(node.bytes for node in nodes))


def versions(stages: Mapping[str, Artifact]) -> list[tuple[str, str]]:
    """Library and version; where artifacts were made with several, each with what it made."""
    by_library: dict[str, dict[str, list[str]]] = {}
    for name, artifact in stages.items():
        for library, version in sorted(artifact.libraries.items()):
            by_library.setdefault(library, {}).setdefault(version, []).append(artifact_title(name, artifact))
    rows = []
    for library, by_version in by_library.items():
        if len(by_version) == 1:
            rows.append((library, next(iter(by_version))))
        else:
            rows.append((library, "; ".join(f"{version} ({', '.join(made)})" for version, made in by_version.items())))
    return rows
