"""The chain of stages: what is finished is skipped, what is half done goes on, what changed is made again."""

import shlex
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import wait
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact, fingerprint
from bertkd_ray.artifacts.lock import hold_lock
from bertkd_ray.config import Config
from bertkd_ray.config.results import results_of, sources_of
from bertkd_ray.core.console import human_seconds, log
from bertkd_ray.core.environment import default_variables
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.redaction import redacted
from bertkd_ray.core.stages import DISTILL, STAGES, Stage
from bertkd_ray.core.timeline import span
from bertkd_ray.execution.stage import StageContext, ignore_rows, stage_module
from bertkd_ray.pipeline.pool import process_pool
from bertkd_ray.pipeline.session import Session
from bertkd_ray.pipeline.stage_runs import stage_run, tracked_curves
from bertkd_ray.report.arm_runs import record_arms, record_teachers
from bertkd_ray.report.buckets import BucketTables, bucket_json
from bertkd_ray.report.results import Results
from bertkd_ray.report.tables import ArmResult
from bertkd_ray.report.writing import PAGE, record_report, save_page, write_page, write_report
from bertkd_ray.student.start import check_start, start_artifact
from bertkd_ray.tracking.interface import Run, closing_run, failures_logged, now_ms

StageStatus = Literal["done", "resumed", "cached"]


@dataclass(frozen=True)
class StageResult:
    """What a stage came to."""

    name: str
    """Stage, or stage/arm."""
    artifact: Artifact
    status: StageStatus
    seconds: float
    """Wall-clock seconds of this command; the time the work took when it was done is in the manifest."""

    def as_json(self) -> dict[str, Any]:
        """The stage's entry of `--json`."""
        return {
            "path": self.artifact.display_uri,
            "fingerprint": self.artifact.fingerprint,
            "seconds": round(self.seconds, 3),
            "status": self.status,
            "metrics": self.artifact.metrics,
        }


@dataclass
class Outcome:
    """All stages of a command, and the scores where it got so far."""

    stages: dict[str, StageResult] = field(default_factory=dict)
    arms: list[ArmResult] = field(default_factory=list)
    teachers: list[ArmResult] = field(default_factory=list)
    """The scores of teachers that translate, which are no arms."""
    signatures: dict[str, str] = field(default_factory=dict)
    buckets: BucketTables = field(default_factory=dict)
    """BLEU of the arms against the control by source length and by frequency of the reference's tokens."""
    figures: list[str] = field(default_factory=list)
    page: str | None = None
    """The HTML page of the results, beside the figures."""
    how_to_open: str | None = None

    @property
    def rows(self) -> list[ArmResult]:
        """The rows of the table."""
        return [*self.arms, *self.teachers]

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {
            "stages": {name: result.as_json() for name, result in self.stages.items()},
            "scores": [arm.as_json() for arm in self.arms],
            **({"teachers": [teacher.as_json() for teacher in self.teachers]} if self.teachers else {}),
            "signatures": self.signatures,
            "bleu_by": bucket_json(self.buckets),
            "figures": self.figures,
            "page": self.page,
        }


def _train_student(config: Config, given: Sequence[str], arm: str) -> StageResult:
    """The student of an arm, made by this process."""
    with Pipeline(config, given=given) as pipeline:
        pipeline.make(DISTILL.name, arm)
    return pipeline.outcome.stages[DISTILL.named(arm)]


@dataclass(frozen=True)
class RunIdentity:
    """The tracked run of a pipeline, below which the runs of its stages hang."""

    name: str
    key: str
    """Key by which the run is found again."""
    tags: Mapping[str, Any]
    parent: str = ""


class Pipeline(ExitStack):
    """The stages of one configuration; a context manager, which ends the run and a session of its own."""

    def __init__(
        self,
        config: Config,
        *,
        session: Session | None = None,
        run: RunIdentity | None = None,
        given: Sequence[str] = (),
    ) -> None:
        """Opens the storage; raises UserError when it cannot be used.

        session: shared with other pipelines, which outlives this one; None opens one. run: how the pipeline's run is
        tracked; None is under the configuration's name. given: what the command line says of the configuration, its
        file and the overrides, for people to repeat.
        """
        super().__init__()
        self.config = config
        self.outcome = Outcome()
        self.session = session or self.enter_context(Session(config))
        self.session.store.require_writable()
        self._arms, self._teachers, self._given = config.arm_configs(), config.teacher_configs(), given
        tags = {"bertkd.kind": "pipeline", "bertkd.arms": ",".join(self._arms)}
        key = f"pipeline:{fingerprint('pipeline', config.run_settings(), {})}"
        self._identity = run or RunIdentity(config.name, key, tags)

    @cached_property
    def parent_run(self) -> Run:
        """The pipeline's run; a run per stage and arm hangs below it."""
        own = self._identity
        params = self.config.as_given(exclude={"arms", "tracking", "storage"})
        tags = {**own.tags, "bertkd.storage": self.session.store.uri}
        run = self.session.tracker.run(own.name, key=own.key, parent=own.parent, params=params, tags=tags)
        return self.enter_context(closing_run(run))

    @property
    def run_id(self) -> str:
        """MLflow's id of the pipeline's run; empty where there is none, or none can be had."""
        with failures_logged():
            return self.parent_run.run_id
        return ""

    def run(self) -> Outcome:
        """All stages for all arms, then scores, figures, tables and page, into the storage and to the tracker."""
        self.outcome.how_to_open = self.session.tracker.how_to_open  # opened first: one out of reach is found at once
        for config in self._arms.values():
            check_start(config.student)
        # What arms share is made when one needs it: a control that stands first is trained before the teacher.
        for stage, owner in sorted(results_of(self.config).values(), key=lambda result: not result[0].per_arm):
            if stage is DISTILL:
                self._train_together()
            self.make(stage.name, owner)
        with span("report"):
            results, store = self.results, self.session.store
            self.outcome.arms, self.outcome.teachers = results.arms, results.teacher_rows
            self.outcome.signatures, self.outcome.buckets = results.signatures, results.buckets
            files = write_report(results, store, self.run_id)
            figures = [name for name in files if name.endswith(".png")]
            self.outcome.figures = [store.display_uri(results.directory, name) for name in figures]
            self.outcome.page = store.display_uri(results.directory, PAGE)
            scores = {f"{row.arm}/{name}": value for row in results.rows for name, value in row.metrics().items()}
            with failures_logged():
                record_arms(results, self.session.tracker, self.parent_run.run_id)
                record_teachers(results, self.session.tracker, self.parent_run.run_id)
                record_report(store, results.directory, scores, self.parent_run)
        return self.outcome

    def _train_together(self) -> None:
        """Trains the students that are not finished at the same time, where GPUs would be idle otherwise.

        Each in a process of its own, as many as there is room for. What they are made from is finished.
        """
        unfinished: dict[str, str] = {}  # of arms that are the same, one
        for arm, config in self._arms.items():
            sources = sources_of(DISTILL, arm, config).items()
            inputs = {kind: self.make(of.name, owner).fingerprint for kind, (of, owner) in sources}
            pending = self.session.pending(DISTILL, config, inputs)
            if self.session.find(pending) is None:
                unfinished[pending.directory] = arm
        if len(unfinished) < 2:
            return
        runtime = self.session.runtime
        runtime.start()
        if (most := min(runtime.trainings_at_once(), len(unfinished))) < 2:
            return
        log(f"{', '.join(unfinished.values())}: {most} at a time", stage=DISTILL.name)
        address = {"RAY_ADDRESS": runtime.address} if runtime.address else {}
        with default_variables(address), process_pool(most, quiet=False) as pool:
            trainings = [pool.submit(_train_student, self.config, self._given, arm) for arm in unfinished.values()]
            wait(trainings)
        for training in trainings:
            made = training.result()
            self.outcome.stages[made.name] = made

    def report(self, output: Path | None = None) -> Results:
        """Writes the page of all that is finished into the store and the pipeline's run, and to `output`, if given.

        Nothing is made; what is not finished is named, on the page and on stderr. Raises UserError when not even the
        corpus is, when `output` cannot be written, and when it is a file that is no such page.
        """
        outcome, store = self.outcome, self.session.store
        unfinished: dict[str, str] = {}
        for name, (stage, owner) in results_of(self.config).items():
            if self._artifact_of(stage, owner, compute=False) is not None:
                continue
            if not stage.inputs:
                nothing = f"{store.display_uri()}: nothing of this configuration is finished"
                raise UserError(f"{nothing}; run {self.command('run')}")
            option = "--arm" if stage.per_arm else "--teacher"
            unfinished[name] = self.command(stage.name, *([option, owner] if owner else []))
            log(f"not finished; {unfinished[name]} makes it", stage=name)
        outcome.how_to_open = self.session.tracker.how_to_open  # where nothing is finished, no database is made
        results = replace(self.results, unfinished=unfinished)
        html = write_page(results, store, self.run_id)
        outcome.arms, outcome.teachers = results.arms, results.teacher_rows
        outcome.signatures, outcome.buckets = results.signatures, results.buckets
        outcome.page = store.display_uri(results.directory, PAGE)
        if output is not None:
            save_page(html, output)
            outcome.page = str(output.resolve())
        with failures_logged():
            self.parent_run.log_text(html, PAGE)
        return results

    def make(self, name: str, owner: str = "") -> Artifact:
        """The artifact of a stage: made now, after those that it is made from, unless it is finished.

        owner: the arm, for a stage that every arm has; the teacher, for one that each of several teachers has. Raises
        UserError while another driver makes it, where the configuration has no such artifact, and where there are
        several teachers and owner is none of them.
        """
        stage = STAGES[name]
        owner = self._owner(stage, owner)
        if stage.unless and (why := stage.unless(self._config_of(stage, owner))):
            raise UserError(why)
        if stage.per_arm:
            check_start(self._arms[owner].student)
        artifact = self._artifact_of(stage, owner, compute=True)
        assert artifact is not None
        return artifact

    def find(self, name: str, owner: str = "") -> Artifact | None:
        """The artifact of a stage; None where it, or one that it is made from, is not finished."""
        stage = STAGES[name]
        return self._artifact_of(stage, self._owner(stage, owner), compute=False)

    def _owner(self, stage: Stage, owner: str) -> str:
        if stage.per_arm:
            return owner
        owner = owner if stage.per_teacher and self.config.teachers else ""
        if stage.per_teacher and owner not in self._teachers:
            raise UserError(f"{stage.name}: the configuration has the teachers {', '.join(self._teachers)}; name one")
        return owner

    def _config_of(self, stage: Stage, owner: str) -> Config:
        return (self._arms if stage.per_arm else self._teachers if stage.per_teacher else {owner: self.config})[owner]

    def _artifact_of(self, stage: Stage, owner: str, *, compute: bool) -> Artifact | None:
        """The artifact of a stage; without `compute` None where it, or one that it is made from, is not finished."""
        name = stage.named(owner)
        if name in self.outcome.stages:
            return self.outcome.stages[name].artifact
        config = self._config_of(stage, owner)
        inputs: dict[str, Artifact] = {}
        for kind, source in sources_of(stage, owner, config).items():
            artifact = self._artifact_of(*source, compute=compute)
            if artifact is None:
                return None
            inputs[kind] = artifact
        fingerprints = {kind: artifact.fingerprint for kind, artifact in inputs.items()}
        pending = self.session.pending(stage, config, fingerprints)
        started = time.perf_counter()
        status: StageStatus = "cached"
        artifact = self.session.find(pending)
        if artifact is None and compute:
            with hold_lock(self.session.store, pending.directory):
                # Another driver may have finished it a moment ago.
                artifact = self.session.find(pending)
                if artifact is None:
                    artifact, status = self._compute(stage, name, config, pending, inputs)
        if artifact is None:
            return None
        seconds = time.perf_counter() - started
        duration = f" in {human_seconds(seconds)}" if status != "cached" else ""
        log(f"{status:<8} {artifact.directory}{duration}", stage=name)
        self.outcome.stages[name] = StageResult(name, artifact, status, seconds)
        return artifact

    def _compute(
        self, stage: Stage, name: str, config: Config, pending: PendingArtifact, inputs: Mapping[str, Artifact]
    ) -> tuple[Artifact, StageStatus]:
        """Makes an artifact under a run of its own."""
        started, pending.started = time.perf_counter(), time.time()
        status: StageStatus = "resumed" if pending.resumed else "done"
        log(f"{'resuming' if status == 'resumed' else 'starting'} {pending.directory}", stage=name)
        start = start_artifact(config.student) if stage is DISTILL else None
        read = [*inputs.values(), *([start] if start else [])]
        run = stage_run(self.session.tracker, self.parent_run.run_id, name, pending, read)
        with closing_run(run):
            curves = tracked_curves(name, stage.steps(config), run) if stage.steps else nullcontext(ignore_rows)
            with curves as on_rows:
                bert = self.session.bert(config) if stage.bert else ""
                context = StageContext(config, self.session.runtime, inputs, bert, on_rows)
                artifact = stage_module(stage).make(pending, context)
            figures = {**artifact.metrics, "seconds": time.perf_counter() - started}
            finals = {f"final/{metric}": value for metric, value in figures.items()}
            with failures_logged():
                run.log_metrics([(0, finals, now_ms())], series="final")
                if precision := artifact.info.get("precision"):
                    run.set_tags({"bertkd.precision": precision})
        self.session.artifacts[artifact.directory] = artifact
        return artifact, status

    @property
    def results(self) -> Results:
        """The stages that this command has made or found, in one order whichever came first."""
        stages = self.outcome.stages
        finished = {name: stages[name].artifact for name in results_of(self.config) if name in stages}
        return Results(self.config, finished, command=self.command("run"))

    def command(self, *words: str) -> str:
        """The command line of another command for this configuration, without credentials."""
        return redacted(shlex.join(["bertkd", *words[:1], *(self._given or ["CONFIG.yaml"]), *words[1:]]))
