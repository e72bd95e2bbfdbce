"""How often a piece of work was begun, and what it was at when its process died: a ledger that outlives the process.

A process that is killed cannot say which input killed it, so it has to be written down before. A piece that is begun
for the first time pays one small file for it. From the second time on every batch is written down before it is
computed; the pairs of a batch that was in flight at a death are then computed one by one, each written down, before
their batch; and a pair that was in flight by itself at two deaths is rejected. So a pair that always kills its process
ends with the fourth death, while a process that is taken away at any moment costs no pair, nor a bit of the result: a
batch is computed as if nothing had happened, unless it has died as a whole twice though its pairs did not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow.parquet as pq

from bertkd_ray.artifacts.store import Store
from bertkd_ray.core.errors import StorageError
from bertkd_ray.execution.dead_letters import DeadLetter

STATS = b"stats"
"""Key in the schema's metadata of a finished file: a JSON object with at least `rows` and `rejects`, two counts."""

_LEDGERS = "attempts"
_DEATHS = 2  # with the same thing in flight: one may be chance


@dataclass
class _Ledger:
    begun: int = 0
    in_flight: list[int] = field(default_factory=list)
    """Ids of the pairs being computed."""
    probed: bool = False
    """Whether the pairs in flight had each been computed by itself."""
    suspects: list[int] = field(default_factory=list)
    """Ids of pairs that were in flight at a death."""
    alone: dict[str, int] = field(default_factory=dict)
    """Deaths with this pair alone in flight, by its id."""
    together: int = 0
    """Deaths with a probed batch in flight."""
    poison_records: dict[str, int] = field(default_factory=dict)
    """Tries of the pairs that are rejected for the deaths, by their ids."""
    rejects: list[dict[str, Any]] = field(default_factory=list)
    """All rejects of the piece, for whatever reason, once it is finished."""

    def begin(self) -> None:
        """Counts one more try. What is in flight now was so when the last one died."""
        if len(self.in_flight) == 1:
            pair = str(self.in_flight[0])
            self.alone[pair] = self.alone.get(pair, 0) + 1
            if self.alone[pair] >= _DEATHS:
                self.poison_records[pair] = self.begun
        elif self.in_flight and self.probed:
            self.together += 1
        self.suspects = sorted({*self.suspects, *self.in_flight})
        self.in_flight = []
        self.begun += 1


class Attempt:
    """One try at a piece of work, in this process."""

    def __init__(self, store: Store, work: str, name: str) -> None:
        """Counts the try. work: the draft's directory of unfinished work; name: the piece's own in it."""
        self._store, self._path = store, _path(work, name)
        self._ledger = _read(store, work, name)
        self._ledger.begin()
        self._suspects = set(self._ledger.suspects)
        self._write()

    @property
    def is_careful(self) -> bool:
        """Whether what is in flight has to be said: the piece was begun before, and did not end."""
        return self._ledger.begun > 1

    @property
    def one_by_one(self) -> bool:
        """Whether batches kill their process though none of their pairs does."""
        return self._ledger.together >= _DEATHS

    @property
    def poison_records(self) -> dict[int, int]:
        """Pairs that are to be left out, with the number of tries that died, by id."""
        return {int(pair): tries for pair, tries in self._ledger.poison_records.items()}

    def suspects(self, ids: Iterable[int]) -> bool:
        """Whether one of these pairs was in flight when an earlier try died."""
        return not self._suspects.isdisjoint(ids)

    def before(self, ids: Sequence[int], *, probed: bool = False) -> None:
        """Writes down what is computed next. probed: each of these pairs has just been computed by itself."""
        self._ledger.in_flight, self._ledger.probed = list(ids), probed
        self._write()

    def after(self) -> None:
        """Writes down that nothing is in flight any more."""
        if self._ledger.in_flight:
            self.before([])

    def finish(self, rejects: Sequence[DeadLetter]) -> None:
        """Keeps the rejects of the piece; to be called before its file is written."""
        said = [asdict(reject) for reject in rejects]
        if said != self._ledger.rejects:
            self._ledger.rejects = said
            self._write()

    def _write(self) -> None:
        self._store.write(json.dumps(asdict(self._ledger)).encode(), *self._path)


def dead_letters_of(store: Store, work: str, name: str) -> list[DeadLetter]:
    """The rejects of a finished piece."""
    return [DeadLetter(**reject) for reject in _read(store, work, name).rejects]


def finished(store: Store, work: str, name: str, *parts: str) -> dict[str, Any] | None:
    """What the finished Parquet file of a piece says of itself (`STATS`), or None when it has to be made.

    parts: the file's path in the store. A file that is cut off or cannot be read, or whose rejects are not known any
    more, has to be made again; a flipped bit in its data is not noticed here, for want of a manifest.
    """
    if not store.exists(*parts):
        return None
    try:
        with store.open_input(*parts) as source:
            footer = pq.read_metadata(source)
        stats = dict(json.loads((footer.metadata or {})[STATS]))
        sound = (stats["rows"], stats["rejects"]) == (footer.num_rows, len(dead_letters_of(store, work, name)))
    except (StorageError, ValueError, KeyError, TypeError):
        return None
    return stats if sound else None


def _read(store: Store, work: str, name: str) -> _Ledger:
    path = _path(work, name)
    if not store.exists(*path):
        return _Ledger()
    try:
        return _Ledger(**json.loads(store.read(*path)))
    except (ValueError, TypeError):
        # Cut off by a full disk: the tries are counted anew.
        return _Ledger()


def _path(work: str, name: str) -> tuple[str, ...]:
    return work, _LEDGERS, f"{name}.json"
