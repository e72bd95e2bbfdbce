"""The scores of a study as tables: every arm over its seeds and teachers, and every student by itself."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any, Self

from bertkd_ray.core.console import human_count
from bertkd_ray.core.text_tables import (
    NO_VALUE,
    TableRow,
    format_number,
    format_p,
    join_blocks,
    markdown_table,
    text_table,
)
from bertkd_ray.report.results import TEACHER
from bertkd_ray.report.tables import ArmResult, csv_text, delta_label, seconds_table, signature_lines


@dataclass(frozen=True)
class MeanAndDeviation:
    """A figure over seeds."""

    mean: float
    sd: float | None
    """Sample standard deviation (of n - 1); None for one seed."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Mean and deviation of one value or more."""
        return cls(fmean(values), stdev(values) if len(values) > 1 else None)

    def text(self, form: str = ".2f") -> str:
        """`35.17 ± 0.21`, or the mean alone."""
        spread = "" if self.sd is None or math.isnan(self.sd) else f" ± {self.sd:.2f}"
        return format_number(self.mean, form) + spread


@dataclass(frozen=True)
class TeacherFigures:
    """The teacher and soft labels behind a student: shares from 0 to 1, entropies in nats."""

    softlabels: str
    """URI of the artifact."""
    steps: int
    """Updates of its finetuning."""
    accuracy: float
    """Share of masked tokens of the valid set that it puts first."""
    gold_first: float
    """Positions of the training text whose reference token is the first of the k."""
    gold_in_topk: float
    """Positions whose reference token is one of the k."""
    entropy_t1: float
    """Entropy of the k entries renormalised at temperature 1."""
    entropy_t10: float
    """Entropy of the k entries renormalised at temperature 10."""
    name: str = ""
    """Of one of several teachers."""


@dataclass(frozen=True)
class SeedResult:
    """A student of an arm, under a seed and, where the study varies it, a seed of its teacher."""

    seed: int
    scores: ArmResult
    """`delta` and `p_value` are against the control of the same seed."""
    student: str
    """URI of the student artifact."""
    translation: str
    """URI of the translation artifact."""
    run_id: str
    """Id of the MLflow run; empty where nothing is tracked."""
    teacher: TeacherFigures | None = None
    """None for a student without a teacher."""
    teacher_seed: int | None = None
    """None in a study without `teacher_seeds`, and for a student without a teacher."""
    teacher_scores: tuple[ArmResult, ...] = ()
    """Scores of the own translations of those of its teachers that translate."""
    other_teachers: tuple[TeacherFigures, ...] = ()
    """Those that it learned from beside `teacher`."""

    def as_json(self) -> dict[str, Any]:
        """The student's entry in `--json`."""
        tree = asdict(self)
        if not self.other_teachers:
            del tree["other_teachers"]
        if self.teacher and not self.teacher.name:
            del tree["teacher"]["name"]
        scores = {name: value for name, value in tree.pop("scores").items() if name != "arm"}
        return {"seed": self.seed, **scores, **tree}


@dataclass(frozen=True)
class StudyArm:
    """The scores of an arm over its students. BLEU and chrF run from 0 to 100."""

    arm: str
    seeds: list[SeedResult]
    """Its students: seed by seed, and under each seed teacher by teacher."""
    p_value: float | None = None
    """Two-tailed, of the mean delta over the students, see `evaluation.significance`; None for the control."""
    interval: tuple[float, float] | None = None
    """The central 95% of the resampled deltas; None for the control."""

    @property
    def student_seeds(self) -> list[int]:
        """Every seed of its students."""
        return list(dict.fromkeys(result.seed for result in self.seeds))

    @property
    def teachers(self) -> int:
        """Teachers that the students of each seed learned from, each from one; 0 for an arm without."""
        first = self.seeds[0]
        has_teacher = first.teacher is not None or first.teacher_seed is not None
        return len(self.seeds) // len(self.student_seeds) if has_teacher else 0

    @property
    def teacher_bleu(self) -> float | None:
        """Test BLEU of the own translations of those of its teachers that translate, the mean; None without any."""
        bleu = [scores.test_bleu for result in self.seeds for scores in result.teacher_scores]
        return fmean(bleu) if bleu else None

    @property
    def parameters(self) -> int:
        """Parameters of the student."""
        return self.seeds[0].scores.parameters

    @property
    def delta(self) -> MeanAndDeviation | None:
        """Test BLEU minus that of the control of the same seed; None for the control."""
        deltas = [result.scores.delta for result in self.seeds if result.scores.delta is not None]
        return MeanAndDeviation.of(deltas) if deltas else None

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by stage, mean over the students."""
        stages = self.seeds[0].scores.seconds
        return {stage: fmean(result.scores.seconds[stage] for result in self.seeds) for stage in stages}

    def spread(self, name: str) -> MeanAndDeviation:
        """Mean and deviation of `valid_bleu`, `test_bleu`, `chrf` or another score of `ArmResult`."""
        return MeanAndDeviation.of([getattr(result.scores, name) for result in self.seeds])

    def as_json(self) -> dict[str, Any]:
        """The arm's entry in `--json`."""
        delta = self.delta
        return {
            "arm": self.arm,
            "parameters": self.parameters,
            "teachers": self.teachers,
            **{name: asdict(self.spread(name)) for name in _SCORES},
            "delta": asdict(delta) if delta else None,
            "p_value": self.p_value,
            "interval": self.interval,
            "seconds": self.seconds,
            "seeds": [result.as_json() for result in self.seeds],
        }


_SHOWN = ("valid BLEU", "test BLEU", "chrF")
_SCORES = ("valid_bleu", "test_bleu", "legacy_bleu", "chrf", "valid_perplexity", "valid_accuracy", "length_ratio")


def study_text(arms: Sequence[StudyArm], run_id: str, signatures: Mapping[str, str]) -> str:
    """The table for the terminal: arms, seconds a stage, the seeds, the metrics' signatures."""
    return join_blocks([*map(text_table, _tables(arms)), _notes(arms, run_id), signature_lines(signatures, "{}  {}")])


def study_markdown(
    arms: Sequence[StudyArm],
    run_id: str,
    signatures: Mapping[str, str],
    buckets: Sequence[list[TableRow]] = (),
) -> str:
    """The tables of `study_text` as GitHub-flavoured Markdown, and below them every student with the id of its run.

    buckets: further tables, before the students, see `report.buckets`.
    """
    scores, *others = map(markdown_table, [*_tables(arms), *buckets, _students(arms)])
    return join_blocks([scores, _notes(arms, run_id), *others, signature_lines(signatures, "- {}: `{}`")], "\n")


def study_csv(arms: Sequence[StudyArm]) -> str:
    """One line an arm: mean and standard deviation of every score in full precision, nothing where there is none."""
    scores = [f"{name}_{part}" for name in (*_SCORES, "delta") for part in ("mean", "sd")]
    header = ["arm", "seeds", "teachers", "parameters", *scores, "p_value", "delta_low", "delta_high", "seconds"]
    rows: list[list[Any]] = []
    for arm in arms:
        spreads = [*(arm.spread(name) for name in _SCORES), arm.delta]
        figures = [figure for spread in spreads for figure in ((spread.mean, spread.sd) if spread else (None, None))]
        low, high = arm.interval or (None, None)
        total = sum(arm.seconds.values())
        counts = [len(arm.student_seeds), arm.teachers, arm.parameters]
        rows.append([arm.arm, *counts, *figures, arm.p_value, low, high, total])
    return csv_text(header, rows)


def students_csv(arms: Sequence[StudyArm]) -> str:
    """One line a student, with its artifacts and the id of its run."""
    scores = ["parameters", *_SCORES, "delta", "p_value"]
    header = ["arm", "seed", "teacher_seed", *scores, "student", "translation", "run_id"]
    figures = [{"arm": arm.arm, **result.as_json()} for arm in arms for result in arm.seeds]
    return csv_text(header, [[of[name] for name in header] for of in figures])


def _have_several_teachers(arms: Sequence[StudyArm]) -> bool:
    return any(arm.teachers > 1 for arm in arms)


def _tables(arms: Sequence[StudyArm]) -> list[list[list[str]]]:
    teachers = [_teachers(arms), _translating_teachers(arms)]
    return [_scores(arms), _more_scores(arms), *teachers, seconds_table({arm.arm: arm.seconds for arm in arms})]


def _scores(arms: Sequence[StudyArm]) -> list[list[str]]:
    label = delta_label({arm.arm: arm.delta for arm in arms})
    of_teachers = _have_several_teachers(arms)
    rows = [["arm", *(["seeds × teachers"] if of_teachers else []), "params", *_SHOWN, label, "p"]]
    for arm in arms:
        counts = [f"{len(arm.student_seeds)} × {arm.teachers or NO_VALUE}"] if of_teachers else []
        scores = [arm.spread(name).text() for name in ("valid_bleu", "test_bleu", "chrf")]
        delta = arm.delta.text("+z.2f") if arm.delta else NO_VALUE
        rows.append([arm.arm, *counts, human_count(arm.parameters), *scores, delta, format_p(arm.p_value)])
    return rows


def _more_scores(arms: Sequence[StudyArm]) -> list[list[str]]:
    """How well the references are predicted, and how long the translations are: what explains a score."""
    rows = [["arm", "valid perplexity", "valid accuracy", "length ratio", "legacy BLEU"]]
    for arm in arms:
        accuracy = format_number(100 * arm.spread("valid_accuracy").mean, ".1f")
        length = format_number(arm.spread("length_ratio").mean, ".3f")
        perplexity, legacy = arm.spread("valid_perplexity").text(), arm.spread("legacy_bleu").text()
        rows.append([arm.arm, perplexity, f"{accuracy}%", length, legacy])
    return rows


def _teachers(arms: Sequence[StudyArm]) -> list[list[str]]:
    """One line a set of soft labels; nothing for a study without any."""
    of_arms: dict[tuple[TeacherFigures, int | None], list[str]] = {}
    for arm in arms:
        for result in arm.seeds:
            if result.teacher is not None and result.seed == arm.seeds[0].seed:
                for teacher in (result.teacher, *result.other_teachers):
                    of_arms.setdefault((teacher, result.teacher_seed), []).append(arm.arm)
    if not of_arms:
        return []
    seeded = any(seed is not None for _, seed in of_arms)
    seed_label = ["seed"] if seeded else []
    rows = [["teacher of", *seed_label, "steps", "accuracy", "gold first", "gold in k", "entropy T=1", "T=10"]]
    for (teacher, seed), names in of_arms.items():
        shares = [f"{100 * share:.1f}%" for share in (teacher.accuracy, teacher.gold_first, teacher.gold_in_topk)]
        entropies = [f"{value:.2f}" for value in (teacher.entropy_t1, teacher.entropy_t10)]
        label = f"{', '.join(names)}{f' ({teacher.name})' if teacher.name else ''}"
        rows.append([label, *([str(seed)] if seeded else []), f"{teacher.steps:,}", *shares, *entropies])
    return rows


def _translating_teachers(arms: Sequence[StudyArm]) -> list[list[str]]:
    """One line a teacher that translates; nothing where there is none."""
    of_arms: dict[tuple[str, ...], list[str]] = {}
    for arm in arms:
        for result in arm.seeds:
            name = arm.arm if result.teacher_seed is None else f"{arm.arm} ({result.teacher_seed})"
            for of in result.teacher_scores if result.seed == arm.seeds[0].seed else ():
                scores = [format_number(score, ".2f") for score in (of.valid_bleu, of.test_bleu, of.chrf)]
                speed = format_number(of.sentences_per_second, ",.1f")
                of_arms.setdefault((of.arm, human_count(of.parameters), *scores, speed), []).append(name)
    rows = [["BERT teacher of", "params", *_SHOWN, "sent./s"]]
    for (row, *figures), names in of_arms.items():
        name = row.removeprefix(TEACHER).strip()
        rows.append([f"{', '.join(names)}{f' ({name})' if name else ''}", *figures])
    return rows if of_arms else []


def _students(arms: Sequence[StudyArm]) -> list[list[str]]:
    label = delta_label({arm.arm: arm.delta for arm in arms})
    seeded = any(result.teacher_seed is not None for arm in arms for result in arm.seeds)
    rows = [["arm", "seed", *(["teacher"] if seeded else []), *_SHOWN, label, "p", "MLflow run"]]
    for arm in arms:
        for result in arm.seeds:
            of = result.scores
            scores = [format_number(score, ".2f") for score in (of.valid_bleu, of.test_bleu, of.chrf)]
            delta, p = format_number(of.delta, "+z.2f"), format_p(of.p_value)
            seeds = [str(result.seed), *([format_number(result.teacher_seed, "d")] if seeded else [])]
            rows.append([arm.arm, *seeds, *scores, delta, p, result.run_id or NO_VALUE])
    return rows


def _notes(arms: Sequence[StudyArm], run_id: str) -> list[str]:
    seeds = ", ".join(map(str, arms[0].student_seeds))
    of_teachers = [str(seed) for arm in arms for result in arm.seeds if (seed := result.teacher_seed) is not None]
    if _have_several_teachers(arms):
        drawn = "sentences, seeds and teachers" if len(arms[0].student_seeds) > 1 else "sentences and teachers"
        of = f"students of seeds {seeds} with teachers of seeds {', '.join(dict.fromkeys(of_teachers))}"
        note = f"Mean ± standard deviation over {of}; p: two-tailed bootstrap over {drawn}."
    elif len(arms[0].student_seeds) == 1:
        note = f"Seed {seeds} alone: p, two-tailed, is of these students on other test sentences, not of other seeds."
    else:
        note = f"Mean ± standard deviation over seeds {seeds}; p: two-tailed bootstrap over sentences and seeds."
        if any(arm.teachers for arm in arms):
            note += " One teacher an arm: other teachers may differ."
    return [note, *([f"MLflow run of the study: {run_id}"] if run_id else [])]
