"""Pairs that could not be computed: how many a stage bears, and the table that they end in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from bertkd_ray.artifacts.artifact import PendingArtifact
from bertkd_ray.artifacts.store import Store
from bertkd_ray.core.console import log
from bertkd_ray.core.errors import UserError

DEAD_LETTERS = "rejects.parquet"
"""The table in an artifact; there is none where nothing was rejected."""
DEAD_LETTERS_SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("reason", pa.string()),
        ("tries", pa.int32()),
        ("fragment", pa.string()),
        ("traceback", pa.string()),
    ]
)
_REASONS_SHOWN = 3
_REASON_LETTERS = 160  # of a reason in a message


@dataclass(frozen=True)
class DeadLetter:
    """A pair that is left out."""

    id: int
    """The pair's id in the corpus."""
    reason: str
    """One line: `Type: message` of what was raised, or how often its process died."""
    tries: int
    """How often it was tried."""
    fragment: str
    """The file of the corpus that it stands in."""
    traceback: str = ""
    """Of what was raised."""


@dataclass(frozen=True)
class ErrorBudget:
    """How many pairs a stage may leave out."""

    stage: str
    share: float
    """Of its pairs; `max_rejects` of the configuration."""
    pairs: int
    """Of the stage, one at least."""

    def require(self, rejects: Sequence[DeadLetter], store: Store, work: str) -> None:
        """Raises UserError when there are more, and leaves the table of them in the directory of unfinished work."""
        if len(rejects) / self.pairs <= self.share:
            return
        _write(rejects, store, work)
        raise UserError(
            f"{self.stage}: {self.counted(rejects)}, more than max_rejects {self.share:g}; {_reasons(rejects)}; "
            f"all of them: {store.display_uri(work, DEAD_LETTERS)}; "
            "mend the cause, or raise max_rejects, and run again to go on"
        )

    def counted(self, rejects: Sequence[DeadLetter]) -> str:
        """How many they are."""
        return f"{len(rejects):,} of {self.pairs:,} pairs rejected ({len(rejects) / self.pairs:.3%})"


class DeadLetters:
    """The rejects of a stage, as its driver gathers them."""

    def __init__(self, work: PendingArtifact, limit: ErrorBudget) -> None:
        self._work, self.limit = work, limit
        self._all: list[DeadLetter] = []

    def __len__(self) -> int:
        return len(self._all)

    def add(self, more: Sequence[DeadLetter]) -> None:
        """Adds those of a finished piece. Raises UserError as soon as there are too many."""
        self._all += more
        self.limit.require(self._all, self._work.store, self._work.staging)

    def keep(self) -> list[str]:
        """Leaves the table in the artifact, where there are any, and says so on the terminal; gives the files made."""
        if not self._all:
            return []
        store, directory = self._work.store, self._work.directory
        _write(self._all, store, directory)
        said = f"{self.limit.counted(self._all)}; {_reasons(self._all)}"
        log(f"{said}; all of them: {store.display_uri(directory, DEAD_LETTERS)}", stage=self.limit.stage)
        return [DEAD_LETTERS]


def _write(rejects: Sequence[DeadLetter], store: Store, directory: str) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.Table.from_pylist([asdict(reject) for reject in _sorted(rejects)], schema=DEAD_LETTERS_SCHEMA), sink
    )
    store.write(bytes(sink.getvalue()), directory, DEAD_LETTERS)


def _sorted(rejects: Sequence[DeadLetter]) -> list[DeadLetter]:
    return sorted(rejects, key=lambda reject: reject.id)


def _reasons(rejects: Sequence[DeadLetter]) -> str:
    """The first few reasons, each with the first pair that it was given for."""
    first = {reject.reason: reject for reject in reversed(_sorted(rejects))}
    return "; ".join(f"pair {one.id}: {_cut(one.reason)}" for one in _sorted(list(first.values()))[:_REASONS_SHOWN])


def _cut(reason: str) -> str:
    return reason if len(reason) <= _REASON_LETTERS else f"{reason[:_REASON_LETTERS]}…"
