"""Checkpoints of an unfinished training in the store: those of Ray Train, and those that are kept without Ray.

The newest are Ray Train's where its snapshot is there: training without Ray goes on from them, and removes the snapshot
with its own first checkpoint; Ray Train goes on from the others where it has no snapshot.
"""

from pathlib import Path

from bertkd_ray.artifacts.store import Store

RAY_SNAPSHOT = "checkpoint_manager_snapshot.json"
"""Ray Train's file of the checkpoints that it knows."""
_LAST_FILE = "training.pt"
"""The file of a checkpoint that is uploaded last: with it the checkpoint is whole."""


def whole_checkpoints(store: Store, staging: str) -> list[str]:
    """The names of the whole checkpoints in a directory of unfinished work, the oldest first, Ray Train's last."""
    paths = (Path(name) for name, _ in store.files(staging))
    return sorted(path.parts[0] for path in paths if path.name == _LAST_FILE and len(path.parts) == 2)


def keep_checkpoint(store: Store, directory: Path, staging: str, step: int) -> None:
    """Uploads a checkpoint of a training without Ray and removes every other, Ray Train's too."""
    name = f"checkpoint-{step:09d}"
    store.upload(directory, staging, name)
    # First, so that Ray Train is not led to checkpoints that are gone.
    store.delete_file(staging, RAY_SNAPSHOT)
    for other in whole_checkpoints(store, staging):
        if other != name:
            store.delete(staging, other)
