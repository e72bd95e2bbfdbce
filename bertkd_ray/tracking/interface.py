"""What a tracker offers to those who log: experiments, runs and their values; without MLflow they log nothing."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bertkd_ray.core.console import log
from bertkd_ray.core.errors import one_line

NO_TRACKING = "none"
"""The tracking URI under which nothing is tracked."""

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]
RunValues = Mapping[str, Any]
"""Parameters or tags by name."""
MetricRow = tuple[int, Mapping[str, float], int]
"""(step, values by metric key, milliseconds since 1970)"""


@dataclass(frozen=True)
class InputArtifact:
    """One input of a run, logged as an MLflow dataset.

    name: what the artifact is, e.g. "corpus"; fingerprint: its hash (MLflow keeps 36 characters of it as the digest;
    the whole stands in the profile); source: path or URI (logged without credentials); counts: rows by split or
    whatever describes its size; context: what the run uses it for, e.g. "training".
    """

    name: str
    fingerprint: str
    source: str
    counts: Mapping[str, int] = field(default_factory=dict)
    context: str = "input"


@dataclass(frozen=True)
class StudentModel:
    """A student as it is logged and registered as a model.

    name: what the model is called, the arm; fingerprint: of the student artifact; fetch: gives a local
    `save_pretrained` directory, for which it may use the scratch directory that it is given; example: a sentence to
    translate; settings: `text`, `src_lang` and `tgt_lang` of the corpus; code: modules beside the student, needed where
    `text` is not raw; scores: `valid_bleu` and others; tags: of the model and its versions, among them `bertkd.corpus`
    and `bertkd.content`, by which models of one fingerprint but other weights are told apart.
    """

    name: str
    fingerprint: str
    fetch: Callable[[Path], Path]
    example: str
    settings: Mapping[str, str]
    code: Sequence[Path]
    scores: Mapping[str, float]
    tags: Mapping[str, str]


class Run:
    """A run that is being logged; this one, of `tracking.uri: none`, logs nothing, and `MlflowRun` overrides it.

    Every method may be repeated after a resume. run_id: MLflow's, by which children name it; empty for one that logs
    nothing.
    """

    def __init__(self, run_id: str = "") -> None:
        self.run_id = run_id

    def log_params(self, params: RunValues) -> None:
        """Log parameters; nested mappings become dotted keys, values that are neither text nor paths become JSON.

        URIs are logged without credentials. A parameter already logged with another value keeps it, and the new value
        goes to the tag `bertkd.changed.<key>`. A value over MLflow's limit is cut, and its end says so.
        """

    def set_tags(self, tags: RunValues) -> None:
        """Set tags, written as parameters are; existing ones are replaced."""

    def log_metrics(self, rows: Iterable[MetricRow], *, series: str = "train") -> None:
        """Log `rows`, each (step, {key: value}, milliseconds since 1970), of one series of metrics.

        Steps up to the last one logged of this series are left out, so the steps of a series must rise from call to
        call, and a metric key belongs to one series. At most 999 keys a row. NaN and infinities are logged as they are;
        an SQL store gives 1.8e308 for an infinity. Rows that MLflow does not take are kept: a line says so once, later
        calls and the end of the run send them.
        """

    def log_artifact(self, path: str | Path, directory: str = "") -> None:
        """Copy a local file into the run's artifact `directory` (its root by default)."""

    def log_text(self, text: str, file: str) -> None:
        """Write `text` as the artifact `file`, e.g. "tables/scores.md"."""

    def log_table(self, rows: Sequence[Mapping[str, Any]], file: str) -> None:
        """Write rows of equal keys as the artifact `file` (ends in .json), which MLflow shows as a table."""

    def log_inputs(self, inputs: Sequence[InputArtifact]) -> None:
        """Log the run's input artifacts as MLflow datasets."""

    def log_model(self, student: StudentModel, *, register: str | None = None) -> str | None:
        """Log a student as a model, once an experiment, with this run as a source of it; its URI, `models:/m-…`.

        register: the registered model of which it becomes a version, once; stderr says whether it is the champion.
        """
        return None

    def finish(self, status: RunStatus = "FINISHED", *, below: bool = False) -> None:
        """Close the run, and those `below` it that killed processes left; `Tracker.run` of its key opens it again."""


class Tracker:
    """An experiment in which runs are found or made; this one, of runs that log nothing, `MlflowTracker` overrides."""

    @property
    def how_to_open(self) -> str | None:
        """The command or address that shows the runs, without credentials; None where nothing is tracked."""
        return None

    def run(
        self, name: str, *, key: str, parent: str = "", params: RunValues | None = None, tags: RunValues | None = None
    ) -> Run:
        """The experiment's run of this key under this parent, set to RUNNING again, or a new one.

        name: what the run is called in MLflow; key: what it is found by (a fingerprint, say); parent: the id of the
        run above it, empty where there is none; tags: a run with other values of `bertkd.storage`, `bertkd.artifact` or
        `bertkd.content`, which say what it is of, is not the run of this key.
        """
        return Run()


@contextmanager
def failures_logged() -> Iterator[None]:
    """Says in one line why the block could not record what is in the storage already, and goes on.

    Results are not lost to a tracking server that is gone or refuses them.
    """
    try:
        yield
    except Exception as error:
        log(f"warning: {one_line(error)}; what is in the storage stays, MLflow lacks some of it", stage="tracking")


@contextmanager
def closing_run(run: Run) -> Iterator[Run]:
    """Ends a run as the block ends; a run that cannot be ended costs nothing else."""
    try:
        yield run
    except BaseException as error:
        with failures_logged():
            run.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    with failures_logged():
        run.finish()


def now_ms() -> int:
    """Milliseconds since 1970, as `Run.log_metrics` takes them."""
    return time.time_ns() // 1_000_000
