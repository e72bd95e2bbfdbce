"""Checkpoints of an unfinished training in the store, the same under Ray and without it.

One is whole with its file that is uploaded last; then the others are removed. Earlier versions left checkpoints to Ray
Train, which has a snapshot of those that it knows: they are gone on from while that is there, and removed with it.
"""

import json
from collections.abc import Callable
from pathlib import Path

from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.artifacts.store import Store
from bertkd_ray.training.context import KEPT, KEPT_LIST

RAY_SNAPSHOT = "checkpoint_manager_snapshot.json"
"""Ray Train's file of the checkpoints that it knows."""
_PREFIX, _LAST_FILE = "checkpoint-", "training.pt"
"""How a checkpoint is called, and its file that is uploaded last: with it the checkpoint is whole."""


def whole_checkpoints(store: Store, staging: str) -> list[str]:
    """The names of the whole checkpoints in a directory of unfinished work, the oldest first, Ray Train's last."""
    paths = (Path(name) for name, _ in store.files(staging))
    return sorted(path.parts[0] for path in paths if path.name == _LAST_FILE and len(path.parts) == 2)


def newest_without_ray(store: Store, staging: str) -> str | None:
    """The newest whole checkpoint that is not Ray Train's, whose own may be cut off where it does not know them."""
    return next((name for name in reversed(whole_checkpoints(store, staging)) if name.startswith(_PREFIX)), None)


def download_checkpoint(store: Store, staging: str, name: str, directory: Path) -> None:
    """Copies a checkpoint into a local directory, with the weights that it shares with others."""
    store.download(directory, staging, name)
    if (directory / KEPT_LIST).exists():
        store.download(directory / KEPT, staging, KEPT)


def keep_checkpoint(store: Store, staging: str, save: Callable[[Path], None], step: int) -> None:
    """Uploads the checkpoint that `save` writes into a directory, and then removes every other, Ray Train's too.

    A process that is killed meanwhile leaves the one before.
    """
    with scratch_directory("checkpoint-") as directory:
        save(directory)
        name, listed = f"{_PREFIX}{step:09d}", directory / KEPT_LIST
        kept = sorted(json.loads(listed.read_text(encoding="utf-8"))) if listed.exists() else []
        store.upload(directory / KEPT, staging, KEPT, others_stay=True)
        for path in (directory / KEPT).glob("*"):
            path.unlink()
        store.upload(directory, staging, name)
    # First, so that nobody is led to checkpoints that are gone.
    store.delete_file(staging, RAY_SNAPSHOT)
    for other in whole_checkpoints(store, staging):
        if other != name:
            store.delete(staging, other)
    store.keep_only(kept, staging, KEPT)
