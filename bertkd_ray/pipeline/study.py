"""Runs a study: every arm under every seed, one after the other, then the comparison of all.

Each is a pipeline of its own on the store, the Ray session and the tracker of the study, so what one has made the
next finds. A study that was cut off goes on with the same command. `side_by_side` makes students at the same time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact, fingerprint
from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.config import NOT_PART_OF_A_RESULT
from bertkd_ray.config.study import Study, Trial
from bertkd_ray.core.console import human_seconds, log
from bertkd_ray.core.errors import UserError
from bertkd_ray.pipeline.pipeline import Pipeline, StageResult, Status
from bertkd_ray.report.arm_runs import record_student
from bertkd_ray.report.study import (
    SeedResult,
    StudyArm,
    TeacherFigures,
    students_csv,
    study_csv,
    study_markdown,
    study_text,
)
from bertkd_ray.tracking.interface import Run, RunRef, Tracker, now_ms
from bertkd_ray.training.curves import VALID_ACCURACY, CurveRow

BuildRecord = dict[str, tuple[Status, float]]
"""What was made: by directory, whether it was begun anew or gone on with, and the seconds it took."""

_SHARED = ("prepare", "finetune", "extract")


@dataclass
class StudyOutcome:
    """All stages of all arms and seeds, the comparison, and where it is written."""

    arms: list[StudyArm] = field(default_factory=list)
    stages: dict[str, StageResult] = field(default_factory=dict)
    signatures: dict[str, str] = field(default_factory=dict)
    run_id: str = ""
    report: str = ""
    """Directory or URI of the tables and the figure."""
    files: list[str] = field(default_factory=list)
    """What lies there."""
    how_to_open: str | None = None

    def text(self) -> str:
        """What the terminal shows: the tables, where they are, and how to open the runs."""
        lines = [study_text(self.arms, self.run_id, self.signatures), ""]
        lines.append(f"Report: {self.report} ({', '.join(self.files)})")
        return "\n".join([*lines, *([f"Runs:   {self.how_to_open}"] if self.how_to_open else [])])

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {
            "stages": {name: result.as_json() for name, result in self.stages.items()},
            "scores": [arm.as_json() for arm in self.arms],
            "signatures": self.signatures,
            "run_id": self.run_id,
            "report": self.report,
            "files": self.files,
        }


@dataclass(frozen=True)
class _Student:
    """What one arm came to under one seed."""

    trial: Trial
    result: SeedResult
    history: list[CurveRow]
    translation: Artifact


class StudyRunner:
    """One study; a context manager, which ends the Ray session and the study's run."""

    def __init__(self, study: Study, made: BuildRecord | None = None) -> None:
        """Opens storage; raises UserError when it cannot be used. made: what was made for this study a moment ago."""
        self.study = study
        self._made = made or {}
        self.outcome = StudyOutcome()
        self.found: dict[str, Artifact] = {}
        """Artifacts by directory that this command has checked or made: one check serves all arms."""
        self._pipeline = Pipeline(study.config)
        self._store = self._pipeline.store

    def __enter__(self) -> StudyRunner:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._pipeline.__exit__(kind, error, trace)
        if "parent" in self.__dict__:
            self.parent.finish("FINISHED" if kind is None else "KILLED" if kind is KeyboardInterrupt else "FAILED")

    @property
    def runtime(self) -> Any:
        """The Ray session of all arms, started by the first stage that computes."""
        return self._pipeline.runtime

    @property
    def tracker(self) -> Tracker:
        """Where runs are recorded."""
        return self._pipeline.tracker

    @cached_property
    def parent(self) -> Run:
        """The study's run; a run per arm and seed hangs below it."""
        settings = self.study.settings
        trials = {f"{one.arm}/{one.seed}": _print_of(one) for one in self.study.trials}
        key = fingerprint("study", {"name": settings.name, "control": self.study.control}, trials)
        return self.tracker.run(
            settings.name,
            key=f"study:{key}",
            params=settings.model_dump(),
            tags={"bertkd.kind": "study", "bertkd.arms": ",".join(settings.arms), "bertkd.control": self.study.control},
        )

    def run(self) -> StudyOutcome:
        """All arms under all seeds, the comparison, the tables and the figure."""
        self.outcome.how_to_open = self.tracker.how_to_open  # opened first: a server out of reach is found at once
        self.outcome.run_id = self.parent.ref.run_id
        students = [self._train(place, trial) for place, trial in enumerate(self.study.trials, start=1)]
        self._compare(students)
        self._report(students)
        return self.outcome

    def _train(self, place: int, trial: Trial) -> _Student:
        """The student of one arm under one seed, translated and scored."""
        started = time.perf_counter()
        log(f"{place} of {len(self.study.trials)}: {trial.arm}, seed {trial.seed}", stage="study")
        pipeline = _TrialInStudy(trial, self)
        with pipeline:
            student = pipeline.student()
        scores = student.result.scores
        log(
            f"{trial.arm}, seed {trial.seed}: valid BLEU {scores.valid_bleu:.2f}, test BLEU {scores.test_bleu:.2f} "
            f"after {human_seconds(time.perf_counter() - started)}",
            stage="study",
        )
        self.outcome.signatures.update(pipeline.outcome.signatures)
        self._keep_stages(trial, pipeline.outcome.stages)
        return student

    def _keep_stages(self, trial: Trial, stages: dict[str, StageResult]) -> None:
        """Stages of one arm and seed by `stage/arm/seed`; shared ones once, with the first arm where several differ."""
        kept = self.outcome.stages
        for name, found in stages.items():
            status, seconds = self._made.get(found.artifact.directory, (found.status, found.seconds))
            result = replace(found, status=status, seconds=seconds)
            if name not in _SHARED:
                kept[f"{name}/{trial.seed}"] = result
            elif all(other.artifact.directory != result.artifact.directory for other in kept.values()):
                kept[f"{name}/{trial.arm}" if name in kept else name] = result

    def _compare(self, students: Sequence[_Student]) -> None:
        """Every arm with the control, seed by seed and over the seeds."""
        from bertkd_ray.evaluation.metrics import DEFAULT_TOKENIZER
        from bertkd_ray.evaluation.significance import BleuResamples, bootstrap_signature, compare, resample
        from bertkd_ray.translation.translate import best_hypotheses, read_translations

        samples = self.study.config.translate.bootstrap_samples
        references: list[str] = []
        resampled: dict[str, list[BleuResamples]] = {}
        for one in students:
            table = read_translations(one.translation)
            expected = table["reference"].to_pylist()
            references = references or expected
            if expected != references:
                raise UserError(
                    f"arms.{one.trial.arm}: its test references are not those of arms.{students[0].trial.arm}, so that "
                    "scores do not compare; no arm may change the test set"
                )
            tokenize = one.translation.info.get("tokenize", DEFAULT_TOKENIZER)
            found = resample(best_hypotheses(table), expected, samples=samples, tokenize=tokenize)
            resampled.setdefault(one.trial.arm, []).append(found)
        control = resampled[self.study.control]
        for arm, systems in resampled.items():
            results = [one.result for one in students if one.trial.arm == arm]
            if arm == self.study.control:
                self.outcome.arms.append(StudyArm(arm, results))
                continue
            over_seeds = compare(control, systems)
            by_seed = [compare([before], [after]) for before, after in zip(control, systems, strict=True)]
            seeds = [
                replace(result, scores=replace(result.scores, delta=one.delta, p_value=one.p_value))
                for result, one in zip(results, by_seed, strict=True)
            ]
            self.outcome.arms.append(StudyArm(arm, seeds, over_seeds.p_value, over_seeds.interval))
        self.outcome.signatures["bootstrap"] = bootstrap_signature(samples, over_seeds=True)

    def _report(self, students: Sequence[_Student]) -> None:
        """Tables and figure, into the storage directory and to the study's run."""
        outcome, name = self.outcome, self.study.settings.name
        inputs = {f"{one.trial.arm}/{one.trial.seed}": one.translation.fingerprint for one in students}
        settings = {"control": self.study.control, "signatures": outcome.signatures, "run_id": outcome.run_id}
        directory = f"report-{name}-{fingerprint('study-report', settings, inputs)}"
        outcome.report = self._store.display_uri(directory)
        markdown = study_markdown(outcome.arms, outcome.run_id, outcome.signatures)
        if not self._store.exists(directory, "table.md"):
            from bertkd_ray.report.figures import draw_seeds

            with scratch_directory("report-") as here:
                histories = {
                    arm.arm: [one.history for one in students if one.trial.arm == arm.arm] for arm in outcome.arms
                }
                for path in draw_seeds(histories, here / "valid-bleu"):
                    self.parent.log_figure(path.stem, path)
                (here / "arms.csv").write_text(study_csv(outcome.arms), encoding="utf-8")
                (here / "students.csv").write_text(students_csv(outcome.arms), encoding="utf-8")
                (here / "study.json").write_text(json.dumps(outcome.as_json(), indent=1), encoding="utf-8")
                for file in ("arms.csv", "students.csv", "study.json"):
                    self.parent.log_artifact(here / file)
                self.parent.log_text(markdown, "table.md")
                self._store.upload(here, directory)
            self.parent.log_metrics([(0, _figures(outcome.arms), now_ms())], series="scores")
            # Last: without the table the report counts as not yet written.
            self._store.write(markdown.encode(), directory, "table.md")
        outcome.files = [file for file, _ in self._store.files(directory)]


class TrialPipeline(Pipeline):
    """The pipeline of one arm under one seed."""

    def __init__(self, trial: Trial, study_run: RunRef) -> None:
        """study_run: the study's run, below which this one's hangs."""
        super().__init__(trial.config)
        self.trial, self._study_run = trial, study_run

    @cached_property
    def parent(self) -> Run:
        """The run of this arm and seed; the stages that it had to make hang below it."""
        trial = self.trial
        return self.tracker.run(
            f"{trial.arm}/seed-{trial.seed}",
            key=f"trial:{trial.arm}:{trial.seed}:{_print_of(trial)}",
            parent=self._study_run,
            params=self.config.model_dump(exclude={"arms", "tracking", "storage"}),
            tags={
                "bertkd.kind": "trial",
                "bertkd.pipeline": self.config.name,
                "bertkd.arm": trial.arm,
                "bertkd.seed": trial.seed,
            },
        )

    @property
    def made(self) -> BuildRecord:
        """The stages that this pipeline had to make."""
        results = self.outcome.stages.values()
        return {one.artifact.directory: (one.status, one.seconds) for one in results if one.status != "cached"}

    def student(self) -> _Student:
        """The student, its translations and scores, and its curve and scores in its run, whoever made them when."""
        arm, outcome = self.trial.arm, self.outcome
        translation = self.translate(arm)
        results = self.results
        (scores,) = results.arms
        outcome.signatures.update(results.signatures)
        student = outcome.stages[f"distill/{arm}"].artifact
        history = results.histories[arm]
        record_student(self.parent, scores, student, translation, history)
        places = (student.display_uri, translation.display_uri, self.parent.ref.run_id)
        result = SeedResult(self.trial.seed, scores, *places, teacher=_teacher(outcome.stages))
        return _Student(self.trial, result, history, translation)


class _TrialInStudy(TrialPipeline):
    """One in the session and the tracker of its study, which checks every artifact once."""

    def __init__(self, trial: Trial, runner: StudyRunner) -> None:
        super().__init__(trial, runner.parent.ref)
        self._runner = runner

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        # The session is the study's, which ends it.
        self.__dict__.pop("runtime", None)
        super().__exit__(kind, *rest)

    @cached_property
    def runtime(self) -> Any:
        """The study's."""
        return self._runner.runtime

    @cached_property
    def tracker(self) -> Tracker:
        """The study's."""
        return self._runner.tracker

    def _find(self, work: PendingArtifact) -> Artifact | None:
        known = self._runner.found
        if work.directory not in known:
            found = super()._find(work)
            if found is None:
                return None
            known[work.directory] = found
        return known[work.directory]


def _teacher(stages: Mapping[str, StageResult]) -> TeacherFigures | None:
    """The figures of what a student learned from."""
    if "extract" not in stages:
        return None
    teacher, labels = stages["finetune"].artifact, stages["extract"].artifact
    fidelity = {
        name: labels.metrics[f"fidelity/{name}"] for name in ("gold_first", "gold_in_topk", "entropy_t1", "entropy_t10")
    }
    return TeacherFigures(
        labels.display_uri, int(teacher.metrics["steps"]), teacher.metrics[VALID_ACCURACY], **fidelity
    )


def _print_of(trial: Trial) -> str:
    return fingerprint("trial", trial.config.model_dump(exclude=NOT_PART_OF_A_RESULT), {})


def _figures(arms: Sequence[StudyArm]) -> dict[str, float]:
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
    return figures
