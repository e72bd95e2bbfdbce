"""How often an item was begun, and what was in flight when its process died: a ledger that outlives the process.

A process that is killed cannot say which input killed it, so that is logged before. An item that is begun for the first
time pays one small file for it. From the second attempt on every batch is logged before it is computed; the pairs of a
batch that was in flight at a death are then computed one by one, each logged, before their batch; and a pair that was
in flight by itself at two deaths is rejected. So a pair that always kills its process ends with the fourth death, while
a process that is taken away at any moment costs no pair, nor a bit of the result: a batch is computed as if nothing had
happened, unless it has died as a whole twice though its pairs did not.
"""

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
    attempts: int = 0
    in_flight: list[int] = field(default_factory=list)
    """Ids of the pairs being computed."""
    probed: bool = False
    """Whether the pairs in flight had each been computed by itself."""
    suspects: list[int] = field(default_factory=list)
    """Ids of pairs that were in flight at a death."""
    pair_deaths: dict[str, int] = field(default_factory=dict)
    """Deaths with a single pair in flight, by its id."""
    batch_deaths: int = 0
    """Deaths with a probed batch in flight."""
    poison_records: dict[str, int] = field(default_factory=dict)
    """Attempts at the pairs that are rejected for the deaths, by their ids."""
    dead_letters: list[dict[str, Any]] = field(default_factory=list)
    """All rejected pairs of the item, for whatever reason, once it is finished."""

    def begin(self) -> None:
        """Counts one more attempt. What is in flight now was so when the last one died."""
        if len(self.in_flight) == 1:
            pair = str(self.in_flight[0])
            self.pair_deaths[pair] = self.pair_deaths.get(pair, 0) + 1
            if self.pair_deaths[pair] >= _DEATHS:
                self.poison_records[pair] = self.attempts
        elif self.in_flight and self.probed:
            self.batch_deaths += 1
        self.suspects = sorted({*self.suspects, *self.in_flight})
        self.in_flight = []
        self.attempts += 1


class Attempt:
    """One attempt at an item, in this process."""

    def __init__(self, store: Store, staging: str, name: str) -> None:
        """Counts the attempt. staging: the pending artifact's directory in the store; name: of the item in it."""
        self.name, self._store, self._path = name, store, _path(staging, name)
        self._ledger = _read(store, staging, name)
        self._ledger.begin()
        self._suspects = set(self._ledger.suspects)
        self._write()

    @property
    def is_retry(self) -> bool:
        """Whether what is in flight has to be logged: the item was begun before, and did not end."""
        return self._ledger.attempts > 1

    @property
    def one_by_one(self) -> bool:
        """Whether batches kill their process though none of their pairs does."""
        return self._ledger.batch_deaths >= _DEATHS

    @property
    def poison_records(self) -> dict[int, int]:
        """Pairs that are to be left out, with the number of attempts that died, by id."""
        return {int(pair): attempts for pair, attempts in self._ledger.poison_records.items()}

    def has_suspects(self, ids: Iterable[int]) -> bool:
        """Whether one of these pairs was in flight when an earlier attempt died."""
        return not self._suspects.isdisjoint(ids)

    def log_in_flight(self, ids: Sequence[int], *, probed: bool = False) -> None:
        """Logs what is computed next. probed: each of these pairs has just been computed by itself."""
        self._ledger.in_flight, self._ledger.probed = list(ids), probed
        self._write()

    def clear_in_flight(self) -> None:
        """Logs that nothing is in flight any more."""
        if self._ledger.in_flight:
            self.log_in_flight([])

    def finish(self, dead_letters: Sequence[DeadLetter]) -> None:
        """Keeps the rejected pairs of the item; to be called before its file is written."""
        rows = [asdict(dead_letter) for dead_letter in dead_letters]
        if rows != self._ledger.dead_letters:
            self._ledger.dead_letters = rows
            self._write()

    def _write(self) -> None:
        self._store.write(json.dumps(asdict(self._ledger)).encode(), *self._path)


def dead_letters_of(store: Store, staging: str, name: str) -> list[DeadLetter]:
    """The rejected pairs of a finished item."""
    return [DeadLetter(**row) for row in _read(store, staging, name).dead_letters]


def finished(store: Store, staging: str, name: str, *path: str) -> dict[str, Any] | None:
    """What the finished Parquet file of an item says of itself (`STATS`), or None when it has to be made.

    path: of the file in the store. A file that is cut off or cannot be read, or whose rejected pairs are not known any
    more, has to be made again; a flipped bit in its data is not noticed here, for want of a manifest.
    """
    if not store.exists(*path):
        return None
    try:
        with store.open_input(*path) as source:
            footer = pq.read_metadata(source)
        stats = dict(json.loads((footer.metadata or {})[STATS]))
        sound = (stats["rows"], stats["rejects"]) == (footer.num_rows, len(dead_letters_of(store, staging, name)))
    except (StorageError, FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return stats if sound else None


def _read(store: Store, staging: str, name: str) -> _Ledger:
    try:
        return _Ledger(**json.loads(store.read(*_path(staging, name))))
    except (FileNotFoundError, ValueError, TypeError):
        # Not there, cut off by a full disk, or of a version with other keys: the attempts are counted anew.
        return _Ledger()


def _path(staging: str, name: str) -> tuple[str, ...]:
    return staging, _LEDGERS, f"{name}.json"
