"""What is kept of a training that has ended: the chosen weights and the curves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact
from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.artifacts.store import Store
from bertkd_ray.training.context import TrainJob
from bertkd_ray.training.curves import validation_at

if TYPE_CHECKING:
    from bertkd_ray.training.trainer import TrainResult

MODEL = "model"
HISTORY = "history.json"


def save_trained(
    job: TrainJob, model: Any, trained: TrainResult, files: dict[str, bytes], validation: dict[str, float] | None = None
) -> None:
    """Writes a trained model as a `save_pretrained` directory, and its curves with the summary of the chosen weights.

    model: a transformers model with the chosen weights. files: what else belongs in the model's directory, by name.
    validation: figures of the chosen weights; None takes the best checkpoint's.
    """
    from bertkd_ray.core.quiet import quiet_transformers

    store, artifact = Store(job.storage), job.artifact
    with scratch_directory("model-") as scratch:
        with quiet_transformers():
            model.save_pretrained(scratch / MODEL)
        for name, data in files.items():
            (scratch / MODEL / name).write_bytes(data)
        store.upload(scratch / MODEL, artifact, MODEL)
    state = trained.state
    summary = {
        **(validation or validation_at(state.history, state.best_step).metrics),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": state.step,
        "best_step": state.best_step,
    }
    history = {"summary": summary, "precision": trained.precision, "rows": [row.to_json() for row in state.history]}
    store.write(json.dumps(history).encode(), artifact, HISTORY)


def commit_trained(pending: PendingArtifact, info: dict[str, Any]) -> Artifact:
    """The finished artifact of what `save_trained` wrote; its metrics are the figures of the chosen weights."""
    history = json.loads(pending.store.read(pending.directory, HISTORY))
    info = {"precision": history.get("precision", ""), **info}
    return pending.commit(made=[MODEL, HISTORY], metrics=history["summary"], info=info)
