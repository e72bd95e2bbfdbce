"""The chain of stages: what is finished is skipped, what is half done goes on, what changed is made again."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from bertkd_ray.artifacts import artifact as artifacts
from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact
from bertkd_ray.artifacts.lock import hold_lock
from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import NOT_PART_OF_A_RESULT, Config, with_current_keys
from bertkd_ray.core.console import Progress, human_seconds, log
from bertkd_ray.core.redaction import redacted
from bertkd_ray.core.timeline import span
from bertkd_ray.report.results import Results
from bertkd_ray.report.tables import ArmResult
from bertkd_ray.tracking import default_uri, open_tracker
from bertkd_ray.tracking.interface import InputArtifact, Run, Tracker, now_ms
from bertkd_ray.training.curves import TRAIN_LOSS, VALID_ACCURACY, VALID_BLEU, VALID_LOSS, CurveRow

if TYPE_CHECKING:
    from bertkd_ray.corpus.inspect import CorpusFigures

Status = Literal["done", "resumed", "cached"]
Method = TypeVar("Method", bound=Callable[..., Artifact])


def _once(name: str) -> Callable[[Method], Method]:
    """A stage method asked for a second time gives what it gave the first time; `{}` in the name stands for the arm."""

    def wrap(method: Method) -> Method:
        @wraps(method)
        def stage(self: Pipeline, *arm: str) -> Artifact:
            done = self.outcome.stages.get(name.format(*arm))
            return done.artifact if done else method(self, *arm)

        return stage  # type: ignore[return-value]

    return wrap


@dataclass(frozen=True)
class StageResult:
    """What a stage came to."""

    name: str
    """Stage, or stage/arm."""
    artifact: Artifact
    status: Status
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
    signatures: dict[str, str] = field(default_factory=dict)
    figures: list[str] = field(default_factory=list)
    page: str | None = None
    """The HTML page of the results, beside the figures."""
    how_to_open: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {
            "stages": {name: result.as_json() for name, result in self.stages.items()},
            "scores": [arm.as_json() for arm in self.arms],
            "signatures": self.signatures,
            "figures": self.figures,
            "page": self.page,
        }


@dataclass(frozen=True)
class Inspection:
    """What a corpus is like."""

    figures: CorpusFigures
    drawn: list[str]
    """Where the figure is, as PNG and as SVG."""

    def as_json(self) -> dict[str, Any]:
        """The object that `bertkd inspect --json` prints."""
        return {**self.figures.as_json(), "figures": self.drawn}


class Pipeline:
    """One configuration's stages. Each method makes its artifact, and before it those it is made from."""

    def __init__(self, config: Config, *, given: Sequence[str] = ()) -> None:
        """Opens storage and tracking; raises UserError when either cannot be used.

        given: what the command line says of the configuration, its file and the overrides, for people to repeat.
        """
        self.config = config
        self._given = given
        self.store = Store(config.storage)
        self.store.require_writable()
        self.outcome = Outcome()
        self._arms = config.arm_configs()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if "runtime" in self.__dict__:
            self.runtime.close()
        if "parent" in self.__dict__:
            self.parent.finish("FINISHED" if kind is None else "KILLED" if kind is KeyboardInterrupt else "FAILED")

    @cached_property
    def runtime(self) -> Any:
        """The Ray session, started by the first stage that computes, or this process."""
        if self.config.runtime == "local":
            from bertkd_ray.execution.local import LocalRuntime

            return LocalRuntime(self.config)
        from bertkd_ray.execution.ray.session import Runtime

        return Runtime(self.config)

    @cached_property
    def tracker(self) -> Tracker:
        """Where runs are recorded."""
        uri = self.config.tracking.uri or default_uri(self.store.uri)
        with span("tracker"):
            return open_tracker(uri, self.config.tracking.experiment or self.config.name)

    @cached_property
    def parent(self) -> Run:
        """The pipeline's run; a run per stage and arm hangs below it."""
        key = artifacts.fingerprint("pipeline", self.config.model_dump(exclude=NOT_PART_OF_A_RESULT), {})
        return self.tracker.run(
            self.config.name,
            key=f"pipeline:{key}",
            params=self.config.model_dump(exclude={"arms", "tracking", "storage"}),
            tags={"bertkd.kind": "pipeline", "bertkd.arms": ",".join(self._arms)},
        )

    @cached_property
    def bert(self) -> str:
        """The local directory of the BERT, checked before anything is made from it."""
        from bertkd_ray.teacher.source import check_bert, resolve_model

        directory = resolve_model(self.config.teacher.model)
        has_teacher = any(config.kd.alpha > 0 for config in self._arms.values())
        check_bert(directory, weights=self.config.teacher.pretrained and has_teacher)
        return directory

    @_once("prepare")
    def prepare(self) -> Artifact:
        """Stage 0."""
        from bertkd_ray.corpus import prepare
        from bertkd_ray.teacher.source import tokenizer_hash

        return self._stage(
            "prepare",
            prepare.pending_artifact(self.config, self.store, tokenizer_hash(self.bert)),
            [],
            lambda work, _: prepare.prepare(work, self.config, self.runtime, self.bert),
        )

    @_once("finetune")
    def finetune(self) -> Artifact:
        """Stage 1."""
        from bertkd_ray.teacher import finetune
        from bertkd_ray.teacher.source import model_hash

        corpus = self.prepare()
        steps = self.config.teacher.steps
        return self._stage(
            "finetune",
            finetune.pending_artifact(self.config, self.store, corpus.fingerprint, model_hash(self.bert)),
            [corpus],
            lambda work, run: self._training(
                "finetune",
                steps,
                run,
                lambda on_rows: finetune.finetune(work, self.config, self.runtime, corpus, self.bert, on_rows),
            ),
        )

    @_once("extract")
    def extract(self) -> Artifact:
        """Stage 2."""
        from bertkd_ray.softlabels import extract

        corpus, teacher = self.prepare(), self.finetune()
        return self._stage(
            "extract",
            extract.pending_artifact(self.config, self.store, corpus.fingerprint, teacher.fingerprint),
            [corpus, teacher],
            lambda work, _: extract.extract(work, self.config, self.runtime, corpus, teacher),
        )

    @_once("distill/{}")
    def distill(self, arm: str) -> Artifact:
        """Stage 3 of one arm; the control needs no teacher."""
        from bertkd_ray.student import distill

        config = self._arms[arm]
        corpus = self.prepare()
        labels = self.extract() if config.kd.alpha > 0 else None
        return self._stage(
            f"distill/{arm}",
            distill.pending_artifact(config, self.store, corpus.fingerprint, labels.fingerprint if labels else None),
            [corpus, *([labels] if labels else [])],
            lambda work, run: self._training(
                f"distill/{arm}",
                config.student.steps,
                run,
                lambda on_rows: distill.distill(work, config, self.runtime, corpus, labels, on_rows),
            ),
        )

    @_once("translate/{}")
    def translate(self, arm: str) -> Artifact:
        """Stage 4 of one arm."""
        from bertkd_ray.translation import translate

        config = self._arms[arm]
        corpus, student = self.prepare(), self.distill(arm)
        return self._stage(
            f"translate/{arm}",
            translate.pending_artifact(config, self.store, corpus.fingerprint, student.fingerprint),
            [corpus, student],
            lambda work, _: translate.translate(work, config, self.runtime, corpus, student),
        )

    def run(self) -> Outcome:
        """All stages for all arms, then the scores, the table and the figures."""
        self.outcome.how_to_open = self.tracker.how_to_open  # opened first: a server out of reach is found at once
        for arm in self._arms:
            self.translate(arm)
        with span("report"):
            self._report()
        return self.outcome

    def inspect(self, corpus: Artifact | None = None, *, seed: int = 1) -> Inspection:
        """The figures of a corpus (None: the one that `prepare` makes), drawn and written beside the reports.

        In MLflow a corpus has one run of its own, whoever looks at it, so that corpora stand side by side.
        """
        from bertkd_ray.corpus.inspect import inspect_corpus
        from bertkd_ray.report.corpus import corpus_text
        from bertkd_ray.report.lengths import draw_lengths

        self.outcome.how_to_open = self.tracker.how_to_open  # opened first, as in run()
        settings = self.config.corpus.model_dump(mode="json") if corpus is None else corpus.config
        corpus = corpus or self.prepare()
        figures = inspect_corpus(corpus, seed=seed)
        run = self.tracker.run(
            f"inspect/{corpus.directory}",
            key=f"inspect:{corpus.fingerprint}",
            params={"corpus": settings},
            tags={"bertkd.kind": "inspect", "bertkd.input.corpus": corpus.fingerprint},
        )
        with _ended(run), scratch_directory("report-") as scratch:
            run.log_inputs([InputArtifact(corpus.stage, corpus.fingerprint, corpus.uri, _counts(corpus))])
            run.log_metrics([(0, figures.metrics(), now_ms())], series="inspect")
            run.log_text(corpus_text(figures), "corpus.txt")
            run.log_table([sample.as_json() for sample in figures.samples], "samples.json")
            report = f"report-corpus-{corpus.fingerprint}"
            drawn = draw_lengths(figures.lengths(), scratch / "lengths")
            for path in drawn:
                run.log_figure(path.stem, path)
            (scratch / "corpus.txt").write_text(corpus_text(figures) + "\n", encoding="utf-8")
            (scratch / "corpus.json").write_text(json.dumps(figures.as_json(), indent=1), encoding="utf-8")
            self.store.upload(scratch, report)
        return Inspection(figures, [self.store.display_uri(report, path.name) for path in drawn])

    def _stage(
        self,
        name: str,
        work: PendingArtifact,
        inputs: list[Artifact],
        make: Callable[[PendingArtifact, Run], Artifact],
    ) -> Artifact:
        """The finished artifact of a draft, made now unless it exists; while another driver makes it, a UserError."""
        started = time.perf_counter()
        status: Status = "cached"
        found = self._find(work)
        if found is None:
            with hold_lock(self.store, work.directory):
                # Another driver may have finished it a moment ago.
                found = self._find(work)
                if found is None:
                    found, status = self._make(name, work, inputs, make)
        result = StageResult(name, found, status, time.perf_counter() - started)
        said = f" in {human_seconds(result.seconds)}" if status != "cached" else ""
        log(f"{status:<8} {found.directory}{said}", stage=name)
        self.outcome.stages[name] = result
        return found

    def _find(self, work: PendingArtifact) -> Artifact | None:
        checksums = self.config.verify == "checksums"
        return artifacts.find(self.store, work.stage, work.fingerprint, checksums=checksums)

    def _make(
        self, name: str, work: PendingArtifact, inputs: list[Artifact], make: Callable[[PendingArtifact, Run], Artifact]
    ) -> tuple[Artifact, Status]:
        """Makes an artifact under a run of its own."""
        started = time.perf_counter()
        status: Status = "resumed" if work.resumed else "done"
        log(f"{'resuming' if status == 'resumed' else 'starting'} {work.directory}", stage=name)
        run = self._stage_run(name, work, inputs)
        with _ended(run):
            made = make(work, run)
            seconds = time.perf_counter() - started
            figures = {f"final/{name}": value for name, value in {**made.metrics, "seconds": seconds}.items()}
            run.log_metrics([(0, figures, now_ms())], series="final")
        return made, status

    def _stage_run(self, name: str, work: PendingArtifact, inputs: list[Artifact]) -> Run:
        stage, _, arm = name.partition("/")
        tags = {"bertkd.kind": "stage", "bertkd.stage": stage, "bertkd.fingerprint": work.fingerprint}
        tags["bertkd.artifact"] = self.store.uri_of(work.directory)
        tags.update({f"bertkd.input.{source}": digest for source, digest in work.inputs.items()})
        if arm:
            tags["bertkd.arm"] = arm
        run = self.tracker.run(
            name,
            key=f"{name}:{work.fingerprint}",
            parent=self.parent.ref,
            params=with_current_keys(work.config),
            tags=tags,
        )
        run.log_inputs([InputArtifact(one.stage, one.fingerprint, one.uri, _counts(one)) for one in inputs])
        return run

    def _training(
        self, name: str, steps: int, run: Run, train: Callable[[Callable[[list[CurveRow]], None]], Artifact]
    ) -> Artifact:
        """Trains while the curves go to the terminal and to the tracker."""
        started, is_training = time.time(), False
        with Progress(steps, name, "steps") as progress:

            def on_rows(rows: list[CurveRow]) -> None:
                nonlocal is_training
                # The start of the workers is no part of the rate, nor are rows that a checkpoint hands out again.
                told = progress.update if is_training else progress.resume
                for row in rows:
                    told(row.step, **_displayed_metrics(row))
                    is_training = row.time >= started
                _log_rows(run, rows)

            return train(on_rows)

    @property
    def results(self) -> Results:
        """The stages that this command has made or found, in one order whichever came first."""
        of_arms = [f"{stage}/{arm}" for arm in self._arms for stage in ("distill", "translate")]
        stages = self.outcome.stages
        finished = {
            name: stages[name].artifact for name in ("prepare", "finetune", "extract", *of_arms) if name in stages
        }
        return Results(self.config, finished, command=self.command("run"))

    def command(self, *words: str) -> str:
        """The command line of another command for this configuration, without credentials."""
        return redacted(shlex.join(["bertkd", *words[:1], *(self._given or ["CONFIG.yaml"]), *words[1:]]))

    def _report(self) -> None:
        """The scores, and figures, tables and page, into the storage directory and to the tracker."""
        from bertkd_ray.report.arm_runs import record_arms
        from bertkd_ray.report.writing import PAGE, write_report

        results = self.results
        self.outcome.arms, self.outcome.signatures = results.arms, results.signatures
        record_arms(results, self.tracker, self.parent.ref)
        files = write_report(results, self.store, self.parent)
        self.outcome.figures = [
            self.store.display_uri(results.directory, name) for name in files if name.endswith(".png")
        ]
        self.outcome.page = self.store.display_uri(results.directory, PAGE)


@contextmanager
def _ended(run: Run) -> Iterator[None]:
    """Ends a run as the block ends."""
    try:
        yield
    except BaseException as error:
        run.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    run.finish()


def _displayed_metrics(row: CurveRow) -> dict[str, float]:
    """The figures of a row that the progress line shows."""
    labels = {TRAIN_LOSS: "loss", VALID_LOSS: "valid loss", VALID_ACCURACY: "valid accuracy", VALID_BLEU: "BLEU"}
    return {label: row.metrics[key] for key, label in labels.items() if key in row.metrics}


def _log_rows(run: Run, rows: Iterable[CurveRow]) -> None:
    """Training and validation figures are two series: both may have a row at the same step."""
    by_series: dict[str, list[tuple[int, dict[str, float], int]]] = {"train": [], "valid": []}
    for row in rows:
        by_series[row.split].append((row.step, dict(row.metrics), int(row.time * 1000)))
    for series, items in by_series.items():
        if items:
            run.log_metrics(items, series=series)


def _counts(artifact: Artifact) -> dict[str, int]:
    """Whole-number figures that say how large an artifact is."""
    return {name: int(value) for name, value in artifact.metrics.items() if float(value).is_integer()}
