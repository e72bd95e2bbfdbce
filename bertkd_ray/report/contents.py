"""The tables of a page: rows of text and numbers, without a word of HTML."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.config.corpus import SPLITS
from bertkd_ray.config.sections import KdConfig
from bertkd_ray.core.console import human_count, human_seconds
from bertkd_ray.core.stages import BY_ARTIFACT, FINETUNE
from bertkd_ray.core.text_tables import format_number, format_p
from bertkd_ray.corpus.cleaning import REASONS
from bertkd_ray.corpus.tokenizer import TYPES_BY_COUNT
from bertkd_ray.report.results import Results
from bertkd_ray.report.tables import ArmResult
from bertkd_ray.training.curves import VALID_ACCURACY, CurveRow

CHANCE = 0.05
"""From this p-value on a difference is called one that may be chance."""
_COUNTED_APART = {"pairs", "read", "dropped", "src_tokens", "tgt_tokens", "src_unknown", "tgt_unknown", *REASONS}


class Figure(NamedTuple):
    """A value with its label: a headline number, or a bar beside others of its kind."""

    label: str
    value: str
    note: str = ""
    share: float = 0.0
    """How much of a bar's whole length is filled, 0 to 1."""


class FigureRow(NamedTuple):
    """A figure of every arm, or of every split."""

    label: str
    note: str
    cells: list[str]
    best: Sequence[int] = ()
    """Places of the best cells."""


def artifact_title(name: str, artifact: Artifact) -> str:
    """The title of an artifact: `Student, control`, or `Teacher, NAME` of several."""
    _, _, owner = name.partition("/")
    title = BY_ARTIFACT[artifact.stage].title
    return f"{title}, {owner}" if owner else title


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


def tiles(results: Results) -> Iterator[Figure]:
    """The headline numbers, as far as there are any."""
    best = best_arm(results)
    if best is not None:
        control = next((arm for arm in results.arms if arm.arm == results.control and arm is not best), None)
        beside = f"{control.arm}: {control.test_bleu:.2f}" if control else ""
        yield Figure(f"Test BLEU, {best.arm}", f"{best.test_bleu:.2f}", beside)
        if best.delta is not None:
            samples = results.config.translate.bootstrap_samples
            note = f"{_p(best.p_value)}, {samples:,} bootstrap samples"
            yield Figure(f"Against {results.control}", f"{best.delta:+z.2f}", note)
    finished = {name: results.stages.get(FINETUNE.named(name)) for name in results.teachers}
    teachers = {name: of for name, of in finished.items() if of is not None}
    if best is not None:
        sizes = dict.fromkeys(human_count(teacher.metrics["parameters"]) for teacher in teachers.values())
        note = f"{'teachers' if len(teachers) > 1 else 'teacher'}: {', '.join(sizes)}" if sizes else ""
        yield Figure("Parameters of the student", human_count(best.parameters), note)
    else:
        for name, teacher in teachers.items():
            accuracy = f"{100 * teacher.metrics[VALID_ACCURACY]:.1f}%"
            yield Figure(f"Masked accuracy of the teacher{name and ' '}{name}", accuracy, "validation set")
    seconds = sum(artifact.seconds for artifact in results.stages.values())
    count = len(results.stages)
    yield Figure("Time for all stages", human_seconds(seconds), f"{count} artifact{'s' if count > 1 else ''}")


_TARGETS = {"none": "references", "instead": "teacher's translations", "beside": "both"}


def score_rows(results: Results) -> list[FigureRow]:
    """The figures of every arm, best ones marked where more is better and there is more than one arm.

    The last cell of every row is that of a teacher that translates, where there is one; it competes with no arm.
    """
    rows, students = results.rows, len(results.arms)
    beam = results.config.translate.beam
    kds = [results.arm_configs[arm.arm].kd for arm in results.arms]
    teacher = ["–"] * len(results.teacher_rows)
    targets = FigureRow("Targets", "of training", [*(_TARGETS[kd.sequence] for kd in kds), *teacher])
    several = [FigureRow("Teachers", "weights of their probabilities", [*map(_teachers, kds), *teacher])]

    def row(
        label: str, note: str, values: Sequence[float | None], form: str, best: Callable[..., Any] | None
    ) -> FigureRow:
        known = [value for value in values[:students] if value is not None and not math.isnan(value)]
        top = best(known) if best and len(set(known)) > 1 else None
        top_cells = [index for index, value in enumerate(values[:students]) if top is not None and value == top]
        return FigureRow(label, note, [format_number(value, form) for value in values], top_cells)

    compared = [
        row("Difference", f"test BLEU against {results.control}", [each.delta for each in rows], "+z.2f", None),
        FigureRow("p", "of the difference, two-tailed paired bootstrap", [format_p(each.p_value) for each in rows]),
    ]
    of_student = "of the student" if len(rows) == students else ""
    speed = [each.sentences_per_second for each in rows]
    accuracy = [100 * each.valid_accuracy if each.valid_accuracy is not None else None for each in rows]
    return [
        *([targets] if any(kd.sequence != "none" for kd in kds) else []),
        *(several if results.config.teachers else []),
        FigureRow("Soft labels", "weight α, temperature T, k logits", [*map(_soft_labels, kds), *teacher]),
        row("Test BLEU", f"beam {beam}", [each.test_bleu for each in rows], ".2f", max),
        *(compared if students > 1 and results.control else []),
        row("Test chrF", f"beam {beam}", [each.chrf for each in rows], ".2f", max),
        row("Test BLEU, legacy", "tokenised, lower case", [each.legacy_bleu for each in rows], ".2f", max),
        row("Length ratio", "output over reference", [each.length_ratio for each in rows], ".3f", None),
        row("Valid BLEU", "greedy", [each.valid_bleu for each in rows], ".2f", max),
        row("Valid accuracy", "target tokens, %", accuracy, ".1f", max),
        row("Valid perplexity", "of the references", [each.valid_perplexity for each in rows], ".2f", min),
        *([row("Speed", "test sentences a second, an actor", speed, ",.1f", None)] if any(speed) else []),
        FigureRow("Parameters", of_student, [human_count(each.parameters) for each in rows]),
    ]


def _teachers(kd: KdConfig) -> str:
    weights = sorted((kd.teachers or {}).items(), key=lambda item: -item[1])
    if len(weights) == 1:
        return weights[0][0]
    return ", ".join(f"{name} {weight:.3g}" for name, weight in weights) or "none"


def _soft_labels(kd: KdConfig) -> str:
    if not kd.has_soft_labels:
        return "none"
    alpha = " to ".join(f"{value:g}" for value in (kd.alpha if isinstance(kd.alpha, list) else [kd.alpha]))
    return f"α {alpha}, T {kd.temperature:g}, k {kd.topk}"


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
    rows, forms = [], [*columns.values()] * len(histories)
    for step, of_step in sorted(by_step.items()):
        values = [of_step.get(name, {}).get(key, math.nan) for name in histories for key in columns]
        cells = [format_number(factor * value, form) for value, (form, factor) in zip(values, forms, strict=True)]
        rows.append((step, cells))
    return rows


def fidelity_bars(labels: Artifact) -> list[Figure]:
    """What the soft labels keep of the teacher, and how flat they are."""
    k, bars = labels.info["k"], []
    flattest = math.log(k)
    for name, label, note in (
        ("topk_mass", f"Probability in the top {k}", f"of the teacher, carried by the {k} logits that are stored"),
        ("gold_in_topk", f"Reference among the top {k}", "share of target positions"),
        ("gold_first", "Reference first", "share of target positions"),
    ):
        share = labels.metrics[f"fidelity/{name}"]
        bars.append(Figure(label, f"{100 * share:.1f}%", note, share))
    for temperature in (1, 10):
        entropy = labels.metrics[f"fidelity/entropy_t{temperature}"]
        note, share = f"of at most {flattest:.2f}, all {k} alike", entropy / flattest if flattest else 0.0
        bars.append(Figure(f"Entropy at temperature {temperature}", f"{entropy:.2f} nats", note, share))
    return bars


def corpus_rows(corpus: Artifact) -> list[FigureRow]:
    """Counts by split; reasons that no pair was dropped for are left out."""
    counts: dict[str, dict[str, int]] = corpus.info["splits"]
    counts = {split: {**of, "dropped": sum(of.get(reason, 0) for reason in REASONS)} for split, of in counts.items()}
    reasons = [reason for reason in REASONS if any(counts[split].get(reason) for split in SPLITS)]
    others = sorted({name for split in SPLITS for name, count in counts[split].items() if count} - _COUNTED_APART)

    def row(label: str, note: str, name: str) -> FigureRow:
        cells = [format_number(counts[split].get(name), ",") for split in SPLITS]
        return FigureRow(label.replace("_", " ").capitalize(), note, cells)

    return [
        row("Pairs read", "", "read"),
        row("Pairs dropped", "", "dropped"),
        *(row(reason, "dropped", reason) for reason in reasons),
        row("Pairs kept", "", "pairs"),
        *(row(name, "", name) for name in others),
        row("Source tokens", corpus.info.get("src_lang", ""), "src_tokens"),
        row("Target tokens", corpus.info.get("tgt_lang", ""), "tgt_tokens"),
        row("Unknown source tokens", "", "src_unknown"),
        row("Unknown target tokens", "", "tgt_unknown"),
    ]


def types_rows(corpus: Artifact) -> list[FigureRow]:
    """Types of the vocabulary by range of occurrences (`TYPES_BY_COUNT`), before it was trimmed too.

    None of a corpus of an earlier version, whose manifest does not say.
    """
    trees = {"Types": corpus.info, "Before trimming": corpus.info.get("untrimmed", {})}
    return [
        FigureRow(
            label,
            f"vocabulary of {tree['vocabulary']:,} tokens",
            [f"{tree['types'][name]:,}" for name in TYPES_BY_COUNT],
        )
        for label, tree in trees.items()
        if "types" in tree
    ]


class LineageNode(NamedTuple):
    """An artifact in the tree."""

    name: str
    """Stage, or stage/arm."""
    artifact: Artifact
    depth: int
    """Level in the tree; 0 for the corpus."""
    sources: dict[str, str]
    """Stage of each artifact that it was made from, and the input's fingerprint."""
    texts: dict[str, str]
    """Content hashes of the other inputs (text, a BERT) by name."""

    @property
    def bytes(self) -> int:
        """Bytes of all files of the artifact."""
        return sum(entry.bytes for entry in self.artifact.files)


def lineage(stages: Mapping[str, Artifact]) -> list[LineageNode]:
    """The artifacts of a pipeline, by stage or stage/arm, as a tree from the top downwards.

    An artifact hangs below that of its inputs which was itself made last, counted in steps from the text; its other
    inputs are only named. An artifact without inputs among these (its maker's are not given) stands at the top.
    """
    by_digest = {artifact.fingerprint: name for name, artifact in stages.items()}
    # Sorted: a manifest that was read back has them in another order than one that was just made.
    inputs = {name: sorted(artifact.inputs.items()) for name, artifact in stages.items()}
    sources = {
        name: {by_digest[digest]: digest for _, digest in inputs[name] if digest in by_digest} for name in stages
    }

    def depth(name: str) -> int:
        return 1 + max(map(depth, sources[name]), default=-1)

    def below(parent: str | None) -> Iterator[LineageNode]:
        # The order of the mapping within a parent: arms stay in theirs.
        for name, artifact in stages.items():
            if max(sources[name], key=depth, default=None) == parent:
                texts = {source: digest for source, digest in inputs[name] if digest not in by_digest}
                yield LineageNode(name, artifact, depth(name), sources[name], texts)
                yield from below(name)

    return list(below(None))


def time_bars(stages: Mapping[str, Artifact]) -> list[Figure]:
    """The seconds of every artifact, the longest of them the whole bar; in the order in which they were finished."""
    total = sum(made.seconds for made in stages.values())
    longest = max(made.seconds for made in stages.values())
    bars = []
    for name, made in sorted(stages.items(), key=lambda item: item[1].created):
        note, share = (f"{100 * made.seconds / total:.0f}%", made.seconds / longest) if total else ("", 0.0)
        bars.append(Figure(artifact_title(name, made), human_seconds(made.seconds), note, share))
    return bars


def versions(stages: Mapping[str, Artifact]) -> list[tuple[str, str]]:
    """Library and version; where artifacts were made with several, each with what it made."""
    by_library: dict[str, dict[str, list[str]]] = {}
    for name, artifact in stages.items():
        for library, version in sorted(artifact.libraries.items()):
            by_library.setdefault(library, {}).setdefault(version, []).append(artifact_title(name, artifact))
    rows = []
    for library, by_version in by_library.items():
        named = [f"{version} ({', '.join(made)})" for version, made in by_version.items()]
        rows.append((library, "; ".join(named if len(named) > 1 else by_version)))
    return rows
