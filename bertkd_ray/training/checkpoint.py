"""What a checkpoint of a training holds, and its files.

`training.pt` has the weights and the optimizer, `progress.json` the step, the position in the data and the curves. The
weights that are kept for the end (of the best validation, or of the last ones) are files of their own below `kept/`,
each written once, which later checkpoints share: `kept.json` has their names and checksums. `sha256` is the checksum of
the other three.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from bertkd_ray.core.errors import DamagedCheckpointError, one_line
from bertkd_ray.training.batch_plan import StreamPosition
from bertkd_ray.training.context import KEPT, KEPT_LIST, World
from bertkd_ray.training.curves import CurveRow

StateDict = dict[str, Tensor]
_TRAINING, _PROGRESS, _CHECKSUM = "training.pt", "progress.json", "sha256"


@dataclass
class TrainState:
    """Where a training run stands; with the weights, all that a checkpoint holds."""

    step: int = 0
    best: tuple[float, ...] = ()
    best_step: int = 0
    evaluations_since_best: int = 0
    positions: list[StreamPosition] = field(default_factory=list)
    history: list[CurveRow] = field(default_factory=list)


@dataclass(frozen=True)
class Checkpoint:
    """Everything that the next step depends on, in the host's memory; nothing in it changes any more."""

    model: StateDict
    optimizer: dict[str, Any]
    kept: Mapping[int, StateDict]
    """Weights that the result will be made of, by their step."""
    state: TrainState

    @classmethod
    def of(cls, model: StateDict, optimizer: dict[str, Any], kept: Mapping[int, StateDict], state: TrainState) -> Self:
        """A copy of a training at this moment; of the weights that are kept, which do not change, there is none."""
        values = {each.name: getattr(state, each.name) for each in fields(state)}
        copied = TrainState(**values | {"positions": list(state.positions), "history": list(state.history)})
        return cls(_host_copy(model), _host_copy(optimizer), dict(kept), copied)

    def write(self, directory: Path, written: Mapping[str, str]) -> dict[str, str]:
        """Writes its files into a directory, but for weights that an earlier checkpoint has written.

        written: the checksums of those, by their names. Returns the checksums of all weights that are kept.
        """
        checksums = {}
        for step, weights in self.kept.items():
            name = f"{step:09d}.pt"
            checksums[name] = written.get(name, "")
            if not checksums[name]:
                (directory / KEPT).mkdir(exist_ok=True)
                torch.save(weights, directory / KEPT / name)
                checksums[name] = _sha256([directory / KEPT / name])
        torch.save({"model": self.model, "optimizer": self.optimizer}, directory / _TRAINING)
        progress = vars(self.state) | {"history": [row.to_json() for row in self.state.history]}
        (directory / _PROGRESS).write_text(json.dumps(progress), encoding="utf-8")
        (directory / KEPT_LIST).write_text(json.dumps(checksums), encoding="utf-8")
        (directory / _CHECKSUM).write_text(_sha256(_files(directory)), encoding="ascii")
        return checksums


def read_checkpoint(directory: Path, world: World) -> tuple[Checkpoint, dict[str, str]]:
    """The checkpoint in a directory, and the checksums of the weights that it keeps; called on every worker.

    Raises DamagedCheckpointError, on all workers, where one of them cannot read it or finds it changed.
    """
    if damage := next(filter(None, world.gather(_damage(directory))), None):
        raise DamagedCheckpointError(f"the checkpoint is damaged: {damage}")
    saved = _load(directory / _TRAINING)
    progress = json.loads((directory / _PROGRESS).read_text(encoding="utf-8"))
    is_earlier = isinstance(progress["best"], float)  # of a version that had one number
    progress["best"] = (progress["best"],) if is_earlier else tuple(progress["best"])
    progress["positions"] = [StreamPosition(*position) for position in progress["positions"]]
    progress["history"] = [CurveRow.from_json(row) for row in progress["history"]]
    state, checksums = TrainState(**progress), _checksums(directory)
    if "best" in saved:
        kept = _kept_within(saved, state)
    else:
        kept = {int(Path(name).stem): _load(directory / KEPT / name) for name in checksums}
    return Checkpoint(saved["model"], saved["optimizer"], kept, state), checksums


def _kept_within(saved: dict[str, Any], state: TrainState) -> dict[int, StateDict]:
    """The weights that a checkpoint of an earlier version held: the best ones, or those of the last validations."""
    validated = [row.step for row in state.history if row.split == "valid"]
    recent = saved["recent"]
    if recent:
        return dict(zip(validated[-len(recent) :], recent, strict=True))
    return {state.best_step: saved["best"]} if saved["best"] else {}


def _host_copy(value: Any) -> Any:
    """A copy of nested dictionaries and lists with all tensors in the host's memory."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _host_copy(of) for key, of in value.items()}
    return [_host_copy(of) for of in value] if isinstance(value, list) else value


def _load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _damage(directory: Path) -> str:
    """What is wrong with the files of a checkpoint; empty if nothing is. Those of earlier versions have no checksum."""
    try:
        checksum, written = _sha256(_files(directory)), directory / _CHECKSUM
        if written.exists() and written.read_text("ascii", "replace") != checksum:
            return "its content differs from its checksum"
        for name, checksum in _checksums(directory).items():
            if _sha256([directory / KEPT / name]) != checksum:
                return f"{KEPT}/{name} differs from its checksum"
    except FileNotFoundError as error:
        return one_line(error)
    return ""


def _checksums(directory: Path) -> dict[str, str]:
    listed = directory / KEPT_LIST
    return dict(json.loads(listed.read_text(encoding="utf-8"))) if listed.exists() else {}


def _files(directory: Path) -> list[Path]:
    """What the checksum is of, in its order; earlier versions have no file of the weights that are kept."""
    listed = directory / KEPT_LIST
    return [directory / _PROGRESS, *([listed] if listed.exists() else []), directory / _TRAINING]


def _sha256(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()
