"""Checkpoints of an unfinished training in the store: those of Ray Train, and those that are kept without Ray.

The newest are Ray Train's where its snapshot is there: training without Ray goes on from them, and removes the snapshot
with its own first checkpoint; Ray Train goes on from the others where it has no snapshot.
"""

from pathlib import Path

from bertkd_ray.artifacts.store import Store

RAY_SNAPSHOT = "checkpoint_manager_snapshot.json"
"""Ray Train's file of the checkpoints that it knows."""
_PREFIX, _LAST_FILE = "checkpoint-", "training.pt"
"""How a checkpoint kept without Ray is called, and its file that is uploaded last: with it the checkpoint is whole."""


def whole_checkpoints(store: Store, staging: str) -> list[str]:
    """The names of the whole checkpoints in a directory of unfinished work, the oldest first, Ray Train's last."""
    paths = (Path(name) for name, _ in store.files(staging))
    return sorted(path.parts[0] for path in paths if path.name == _LAST_FILE and len(path.parts) == 2)


def newest_without_ray(store: Store, staging: str) -> str | None:
    """The newest whole checkpoint that was kept without Ray, whose own may be cut off where it does not know them."""
    return next((name for name in reversed(whole_checkpoints(store, staging)) if name.startswith(_PREFIX)), None)


def keep_checkpoint(store: Store, directory: Path, staging: str, step: int) -> None:
    """Uploads a checkpoint of a training without Ray and removes every other, Ray Train's too."""
    name = f"{_PREFIX}{step:09d}"
    store.upload(directory, staging, name)
    # First, so that Ray Train is not led to checkpoints that are gone.
    store.delete_file(staging, RAY_SNAPSHOT)
    for other in whole_checkpoints(store, staging):
        if other != name:
            store.delete(staging, other)
