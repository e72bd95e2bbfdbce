"""The tracked run of a stage: what it is called, its inputs and curves."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact
from bertkd_ray.config import with_current_keys
from bertkd_ray.core.console import Progress
from bertkd_ray.core.stages import STAGES
from bertkd_ray.tracking.interface import InputArtifact, Run, Tracker
from bertkd_ray.training.curves import TRAIN_LOSS, VALID_ACCURACY, VALID_BLEU, VALID_LOSS, CurveRow, RowCallback

_DISPLAYED = {TRAIN_LOSS: "loss", VALID_LOSS: "valid loss", VALID_ACCURACY: "valid accuracy", VALID_BLEU: "BLEU"}
"""The figures of a row that the progress line shows."""
_LATE = 5.0  # seconds that rows may be under way


def stage_run(tracker: Tracker, parent: str, name: str, pending: PendingArtifact, inputs: Iterable[Artifact]) -> Run:
    """The run of a stage that is about to be made; name: its result's, `stage`, `stage/arm` or `stage/teacher`."""
    stage, _, owner = name.partition("/")
    tags = {"bertkd.kind": "stage", "bertkd.stage": stage, "bertkd.fingerprint": pending.fingerprint}
    tags["bertkd.artifact"] = pending.store.uri_of(pending.directory)
    tags.update({f"bertkd.input.{source}": digest for source, digest in pending.inputs.items()})
    if owner:
        tags["bertkd.arm" if STAGES[stage].per_arm else "bertkd.teacher_name"] = owner
    params = with_current_keys(pending.config)
    run = tracker.run(name, key=f"{name}:{pending.fingerprint}", parent=parent, params=params, tags=tags)
    run.log_inputs([run_input(artifact) for artifact in inputs])
    return run


def run_input(artifact: Artifact) -> InputArtifact:
    """An artifact as the input of a run, with the whole-number figures that say how large it is."""
    counts = {name: int(value) for name, value in artifact.metrics.items() if float(value).is_integer()}
    return InputArtifact(artifact.stage, artifact.fingerprint, artifact.uri, counts)


@contextmanager
def tracked_curves(name: str, steps: int, run: Run) -> Iterator[RowCallback]:
    """Takes the curves of a training to the terminal and to its run."""
    newest = last = time.time()
    is_training = False
    with Progress(steps, name, "steps") as progress:

        def on_rows(rows: list[CurveRow]) -> None:
            nonlocal newest, last, is_training
            since, last = last, time.time()
            # Rows that took longer than it is since the last ones came are handed out of a checkpoint.
            handed_out = bool(rows) and rows[-1].time - rows[0].time > last - since + _LATE
            for row in rows:
                # The start of the workers is no part of the rate, nor are rows that are handed out again.
                is_new = row.time > newest and not handed_out
                advance = progress.update if is_training and is_new else progress.resume
                figures = {label: row.metrics[key] for key, label in _DISPLAYED.items() if key in row.metrics}
                advance(row.step, **figures)
                newest, is_training = max(newest, row.time), is_new
            # Two series: both may have a row at the same step.
            for split in sorted({row.split for row in rows}):
                of_split = [row for row in rows if row.split == split]
                run.log_metrics([(row.step, row.metrics, int(row.time * 1000)) for row in of_split], series=split)

        yield on_rows
