"""Pairs that could not be computed: how many a stage bears, and the table that they end in."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter

import pyarrow as pa

from bertkd_ray.artifacts.artifact import PendingArtifact
from bertkd_ray.artifacts.row_groups import write_parquet
from bertkd_ray.artifacts.store import Store
from bertkd_ray.core.console import log
from bertkd_ray.core.errors import UserError

DEAD_LETTERS = "rejects.parquet"
"""The table in an artifact; there is none where nothing was rejected."""
DEAD_LETTERS_SCHEMA = pa.schema(
    {"id": pa.int64(), "reason": pa.string(), "tries": pa.int32(), "fragment": pa.string(), "traceback": pa.string()}
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
    """Traceback of the exception; empty where the process died."""


@dataclass(frozen=True)
class ErrorBudget:
    """How many pairs a stage may leave out."""

    stage: str
    share: float
    """Share of the pairs that may be left out; `max_rejects` of the configuration."""
    pairs: int
    """Number of pairs of the stage, at least 1."""

    def require(self, dead_letters: Sequence[DeadLetter], store: Store, staging: str) -> None:
        """Raises UserError when there are more, and leaves the table of them in the staging directory."""
        if len(dead_letters) / self.pairs <= self.share:
            return
        _write(dead_letters, store, staging)
        raise UserError(
            f"{self.stage}: {self.counted(dead_letters)}, more than max_rejects {self.share:g}; "
            f"{_reasons(dead_letters)}; all of them: {store.display_uri(staging, DEAD_LETTERS)}; "
            "mend the cause, or raise max_rejects, and run again to go on"
        )

    def counted(self, dead_letters: Sequence[DeadLetter]) -> str:
        """Number and share of the rejected pairs, as a message."""
        return f"{len(dead_letters):,} of {self.pairs:,} pairs rejected ({len(dead_letters) / self.pairs:.3%})"


class DeadLetters:
    """The rejected pairs of a stage, as its driver gathers them."""

    def __init__(self, pending: PendingArtifact, budget: ErrorBudget) -> None:
        self._pending, self.budget = pending, budget
        self._all: list[DeadLetter] = []

    def __len__(self) -> int:
        return len(self._all)

    def add(self, more: Sequence[DeadLetter]) -> None:
        """Adds those of a finished item. Raises UserError as soon as there are too many."""
        self._all += more
        self.budget.require(self._all, self._pending.store, self._pending.staging)

    def keep(self) -> list[str]:
        """Leaves the table in the artifact, where there are any, and says so on the terminal; gives the files made."""
        if not self._all:
            return []
        store, directory = self._pending.store, self._pending.directory
        _write(self._all, store, directory)
        summary = f"{self.budget.counted(self._all)}; {_reasons(self._all)}"
        log(f"{summary}; all of them: {store.display_uri(directory, DEAD_LETTERS)}", stage=self.budget.stage)
        return [DEAD_LETTERS]


def _write(dead_letters: Sequence[DeadLetter], store: Store, directory: str) -> None:
    table = pa.Table.from_pylist([asdict(dead_letter) for dead_letter in dead_letters], schema=DEAD_LETTERS_SCHEMA)
    write_parquet(store, table.sort_by("id"), directory, DEAD_LETTERS)


def _reasons(dead_letters: Sequence[DeadLetter]) -> str:
    """The first few reasons, each with the first pair that it was given for."""
    first: dict[str, int] = {}
    for dead_letter in sorted(dead_letters, key=attrgetter("id")):
        first.setdefault(dead_letter.reason, dead_letter.id)
    return "; ".join(
        f"pair {pair}: {reason[:_REASON_LETTERS]}{'…' * (len(reason) > _REASON_LETTERS)}"
        for reason, pair in list(first.items())[:_REASONS_SHOWN]
    )
