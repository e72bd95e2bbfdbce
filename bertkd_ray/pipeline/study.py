"""Runs a study: every arm under every seed, one after the other, then the comparison of all.

Each is a pipeline of its own on the store, the Ray session and the tracker of the study, so what one has made the
next finds. A study that was cut off goes on with the same command. `pipeline.scheduler` makes students at the
same time.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bertkd_ray.artifacts.artifact import Artifact, fingerprint
from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.config.results import results_of
from bertkd_ray.config.study import Study, Trial
from bertkd_ray.core.console import human_seconds, log
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.stages import DISTILL, EVALUATE, EXTRACT, FINETUNE, PREPARE, STAGES, TRANSLATE
from bertkd_ray.pipeline.pipeline import Pipeline, RunIdentity, StageResult, StageStatus
from bertkd_ray.pipeline.session import Session
from bertkd_ray.report import study as study_report
from bertkd_ray.report.arm_runs import record_student
from bertkd_ray.report.buckets import BucketTables, bucket_json, bucket_panels, bucket_table, bucket_tables
from bertkd_ray.report.results import Results, counted
from bertkd_ray.report.writing import record_report
from bertkd_ray.tracking.interface import Run, Tracker, closing_run, failures_logged
from bertkd_ray.training.curves import VALID_ACCURACY, CurveRow

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BuildRecord = dict[str, tuple[StageStatus, float]]
"""What was made: by directory, whether it was begun anew or gone on with, and the seconds it took."""


@dataclass
class StudyOutcome:
    """All stages of all arms and seeds, the comparison, and where it is written."""

    arms: list[study_report.StudyArm] = field(default_factory=list)
    stages: dict[str, StageResult] = field(default_factory=dict)
    signatures: dict[str, str] = field(default_factory=dict)
    buckets: BucketTables = field(default_factory=dict)
    """BLEU of the arms against the control by source length and by frequency of the reference's tokens."""
    run_id: str = ""
    report: str = ""
    """Directory or URI of the tables and the figure."""
    files: list[str] = field(default_factory=list)
    """Names of the files in that directory."""
    how_to_open: str | None = None

    def text(self) -> str:
        """What the terminal shows: the tables, where they are, and how to open the runs."""
        lines = [study_report.study_text(self.arms, self.run_id, self.signatures), ""]
        lines.append(f"Report: {self.report} ({', '.join(self.files)})")
        return "\n".join([*lines, *([f"Runs:   {self.how_to_open}"] if self.how_to_open else [])])

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {
            "stages": {name: result.as_json() for name, result in self.stages.items()},
            "scores": [arm.as_json() for arm in self.arms],
            "signatures": self.signatures,
            "bleu_by": bucket_json(self.buckets),
            "run_id": self.run_id,
            "report": self.report,
            "files": self.files,
        }


@dataclass(frozen=True)
class _Student:
    """What one arm came to under one seed."""

    trial: Trial
    result: study_report.SeedResult
    history: list[CurveRow]
    translation: Artifact
    corpus: Artifact


class StudyRunner(ExitStack):
    """One study; a context manager, which ends its session and its run."""

    def __init__(self, study: Study, record: BuildRecord | None = None) -> None:
        """Opens storage; raises UserError when it cannot be used. record: what was made for this study a moment ago."""
        super().__init__()
        self.study = study
        self._record = record or {}
        self.outcome = StudyOutcome()
        self.session = self.enter_context(Session(study.config))
        self.session.store.require_writable()

    @cached_property
    def parent_run(self) -> Run:
        """The study's run; a run per arm and seed hangs below it."""
        return self.enter_context(closing_run(study_run(self.study, self.session.tracker, self.session.store.uri)))

    def run(self) -> StudyOutcome:
        """All arms under all seeds, the comparison, the tables and the figure."""
        self.outcome.how_to_open = self.session.tracker.how_to_open  # opened first, as in Pipeline.run
        self.outcome.run_id = self.parent_run.run_id
        students = [self._train(position, trial) for position, trial in enumerate(self.study.trials, start=1)]
        self._compare(students)
        self._report(students)
        return self.outcome

    def _train(self, position: int, trial: Trial) -> _Student:
        """The student of one arm under one seed, translated and scored."""
        started = time.perf_counter()
        log(f"{position} of {len(self.study.trials)}: {trial.title}", stage="study")
        with trial_pipeline(trial, self.parent_run.run_id, self.session) as pipeline:
            translation = pipeline.make(TRANSLATE.name, trial.arm)
            student = pipeline.make(DISTILL.name, trial.arm)
            for stage, teacher in results_of(trial.config).values():
                if stage is EVALUATE:
                    (pipeline.find if self.study.is_finished else pipeline.make)(stage.name, teacher)
            results = pipeline.results
            (scores,) = results.arms
            history, corpus = results.histories[trial.arm], results.stages[PREPARE.name]
            with failures_logged():  # in its run, whoever made it when
                record_student(pipeline.parent_run, scores, student, translation, history)
            run_id = pipeline.parent_run.run_id
        stages, uris = pipeline.outcome.stages, (student.display_uri, translation.display_uri)
        log(
            f"{trial.title}: valid BLEU {scores.valid_bleu:.2f}, test BLEU {scores.test_bleu:.2f} "
            f"after {human_seconds(time.perf_counter() - started)}",
            stage="study",
        )
        self._keep_stages(trial, stages)
        teachers = list(_teachers(results))
        result = study_report.SeedResult(
            trial.seed,
            scores,
            *uris,
            run_id,
            next(iter(teachers), None),
            trial.teacher_seed,
            tuple(results.teacher_rows),
            tuple(teachers[1:]),
        )
        return _Student(trial, result, history, translation, corpus)

    def _keep_stages(self, trial: Trial, stages: Mapping[str, StageResult]) -> None:
        """Stages of one student by `stage/` and its trial's key; shared ones once, with the first arm (and teacher's
        seed) where several differ."""
        kept = self.outcome.stages
        for name, of_trial in stages.items():
            status, seconds = self._record.get(of_trial.artifact.directory, (of_trial.status, of_trial.seconds))
            result = replace(of_trial, status=status, seconds=seconds)
            if STAGES[name.partition("/")[0]].per_arm:
                kept[f"{name.partition('/')[0]}/{trial.key}"] = result
            elif all(other.artifact.directory != result.artifact.directory for other in kept.values()):
                kept[f"{name}/{trial.shared_key}" if name in kept else name] = result

    def _compare(self, students: Sequence[_Student]) -> None:
        """Every arm with the control, student by student and over seeds and teachers."""
        from bertkd_ray.evaluation.significance import bootstrap_signature, compare, resample_counts
        from bertkd_ray.translation.translate import read_translations, signatures_of

        of_students = {student.trial.title: student.translation for student in students}
        self.outcome.signatures = signatures_of(of_students, "bertkd study")
        samples = self.study.config.translate.bootstrap_samples
        references: list[str] = []
        counts: dict[str, list[NDArray[np.int64]]] = {}
        for student in students:
            table = read_translations(student.translation)
            expected = table["reference"].to_pylist()
            references = references or expected
            if expected != references:
                raise UserError(
                    f"arms.{student.trial.arm}: its test references are not those of arms.{students[0].trial.arm}, so "
                    "that scores do not compare; no arm may change the test set"
                )
            counts.setdefault(student.trial.arm, []).append(counted(student.translation, table))
            if student.trial.arm == self.study.control:
                corpus, translations = student.corpus, table
        self.outcome.buckets = bucket_tables(corpus, translations, counts, self.study.control, samples=samples)
        resamples = {arm: [resample_counts(of, samples=samples) for of in counts[arm]] for arm in counts}
        control = resamples[self.study.control]
        for arm, systems in resamples.items():
            results = [student.result for student in students if student.trial.arm == arm]
            if arm == self.study.control:
                self.outcome.arms.append(study_report.StudyArm(arm, results))
                continue
            teachers = len(systems) // len(control)
            over_all = compare(control, systems, teachers)
            alone = [compare([control[index // teachers]], [after]) for index, after in enumerate(systems)]
            compared = [
                replace(result, scores=replace(result.scores, delta=of_one.delta, p_value=of_one.p_value))
                for result, of_one in zip(results, alone, strict=True)
            ]
            self.outcome.arms.append(study_report.StudyArm(arm, compared, over_all.p_value, over_all.interval))
        over_teachers = any(len(systems) > len(control) for systems in resamples.values())
        signature = bootstrap_signature(samples, over_seeds=True, over_teachers=over_teachers)
        self.outcome.signatures["bootstrap"] = signature

    def _report(self, students: Sequence[_Student]) -> None:
        """Tables and figure, into the storage directory and to the study's run."""
        from bertkd_ray.report.figures import draw_seeds
        from bertkd_ray.report.frame import draw_panels

        outcome, store, name = self.outcome, self.session.store, self.study.settings.name
        inputs = {student.trial.key: student.translation.fingerprint for student in students}
        evaluations = {key: of for key, of in outcome.stages.items() if key.partition("/")[0] == EVALUATE.name}
        inputs.update({key: of.artifact.fingerprint for key, of in evaluations.items()})
        settings = {"control": self.study.control, "signatures": outcome.signatures, "run_id": outcome.run_id}
        directory = f"report-{name}-{fingerprint('study-report', settings, inputs)}"
        outcome.report = store.display_uri(directory)
        buckets = [bucket_table(name, outcome.buckets) for name in outcome.buckets]
        markdown = study_report.study_markdown(outcome.arms, outcome.run_id, outcome.signatures, buckets)
        if not store.exists(directory, "table.md"):
            with scratch_directory("report-") as scratch:
                histories: dict[str, list[Sequence[CurveRow]]] = {arm.arm: [] for arm in outcome.arms}
                for student in students:
                    histories[student.trial.arm].append(student.history)
                over = "seeds and teachers" if any(arm.teachers > 1 for arm in outcome.arms) else "seeds"
                draw_seeds(histories, scratch / "valid-bleu", over=over)
                if outcome.buckets:
                    draw_panels(bucket_panels(outcome.buckets), scratch / "bleu-by-bucket")
                (scratch / "arms.csv").write_text(study_report.study_csv(outcome.arms), encoding="utf-8")
                (scratch / "students.csv").write_text(study_report.students_csv(outcome.arms), encoding="utf-8")
                (scratch / "study.json").write_text(json.dumps(outcome.as_json(), indent=1), encoding="utf-8")
                store.upload(scratch, directory, others_stay=True)
            # Last: without the table the report counts as not yet written.
            store.write(markdown.encode(), directory, "table.md")
        outcome.files = [file for file, _ in store.files(directory)]
        with failures_logged():
            record_report(store, directory, _figures(outcome.arms), self.parent_run)


def study_run(study: Study, tracker: Tracker, storage: str) -> Run:
    """The tracked run of a study whose artifacts are in a storage."""
    settings = study.settings
    trials = {trial.key: _digest(trial) for trial in study.trials}
    key = fingerprint("study", {"name": settings.name, "control": study.control}, trials)
    return tracker.run(
        settings.name,
        key=f"study:{key}",
        params=settings.fingerprinted(),
        tags={
            "bertkd.kind": "study",
            "bertkd.arms": ",".join(settings.arms),
            "bertkd.control": study.control,
            "bertkd.storage": storage,
        },
    )


def trial_pipeline(trial: Trial, parent: str, session: Session | None = None) -> Pipeline:
    """The pipeline of one arm under one seed, whose run hangs below that of the study."""
    tags = {
        "bertkd.kind": "trial",
        "bertkd.pipeline": trial.config.name,
        "bertkd.arm": trial.arm,
        "bertkd.seed": trial.seed,
    }
    if trial.teacher_seed is not None:
        tags["bertkd.teacher_seed"] = trial.teacher_seed
    key = f"trial:{trial.arm}:{trial.seed}:{_digest(trial)}"
    run = RunIdentity(trial.key.replace("/", "/seed-", 1), key, tags, parent)
    return Pipeline(trial.config, session=session, run=run)


def _teachers(results: Results) -> Iterator[study_report.TeacherFigures]:
    """The figures of what a student learned from, of the results with its arm alone."""
    for name in results.teachers:
        if EXTRACT.named(name) not in results.stages:
            continue
        teacher, labels = results.stages[FINETUNE.named(name)], results.stages[EXTRACT.named(name)]
        kept = results.fidelity(name)
        fidelity = {key: kept[key] for key in ("gold_first", "gold_in_topk", "entropy_t1", "entropy_t10")}
        yield study_report.TeacherFigures(
            labels.display_uri, int(teacher.metrics["steps"]), teacher.metrics[VALID_ACCURACY], **fidelity, name=name
        )


def _digest(trial: Trial) -> str:
    return fingerprint("trial", trial.config.run_settings(), {})


def _figures(arms: Sequence[study_report.StudyArm]) -> dict[str, float]:
    """The table as metrics of the study's run."""
    figures: dict[str, float] = {}
    for arm in arms:
        spreads = {name: arm.spread(name) for name in ("valid_bleu", "test_bleu", "chrf")}
        if arm.delta is not None:
            spreads["delta"] = arm.delta
        for name, spread in spreads.items():
            figures[f"{arm.arm}/{name}"] = spread.mean
            if spread.sd is not None:
                figures[f"{arm.arm}/{name}_sd"] = spread.sd
        if arm.p_value is not None:
            figures[f"{arm.arm}/p"] = arm.p_value
        if (teacher := arm.teacher_bleu) is not None:
            figures[f"{arm.arm}/teacher_test_bleu"] = teacher
    return figures
