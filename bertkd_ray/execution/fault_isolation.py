"""Computes batches of pairs and leaves out the pairs that cannot be computed.

What raises is halved until it is one row, and the pair of that row is rejected; so a batch that is too big for the
memory is split, and costs no pair. What kills its process is found out over several processes (`execution.attempts`).
However a pair was found, the rest of its batch is computed in one go, so that the results do not tell the way there.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from bertkd_ray.core.errors import ReportedError, one_line
from bertkd_ray.execution.attempts import Attempt
from bertkd_ray.execution.dead_letters import DeadLetter

Rows = NDArray[np.int64]


class FaultIsolation:
    """The pairs of one piece of work: which are `kept` (bool[n]), and the `rejects`.

    ids: int64[n]. fragment: the file of the corpus they are from. require: raises when the rejects are too many.
    synchronise: returns when the device has done what it was given, and raises when it cannot be used any more.

    A ReportedError is no pair's fault and passes. An error that outlives its batch (a GPU whose context is lost) ends
    the process, since nothing can be computed after it; the pair is then found as one that kills its process.
    """

    def __init__(
        self,
        ids: NDArray[np.int64],
        attempt: Attempt,
        fragment: str,
        *,
        require: Callable[[Sequence[DeadLetter]], None],
        synchronise: Callable[[], None],
    ) -> None:
        self._ids, self._attempt, self._fragment = ids, attempt, fragment
        self._require, self._synchronise = require, synchronise
        self.kept: NDArray[np.bool_] = np.ones(len(ids), dtype=np.bool_)
        self.rejects: list[DeadLetter] = []
        for index in np.flatnonzero(np.isin(ids, list(attempt.poison_records))).tolist():
            tries = attempt.poison_records[int(ids[index])]
            self.reject(index, f"its process died {tries} times", tries)

    def run(self, batches: Iterable[Rows], pair_of: Rows, compute: Callable[[Rows], None]) -> None:
        """Computes every batch without the rows of rejected pairs; a row may be computed more than once.

        batches: row numbers; pair_of: int64[rows], which of the n pairs each row belongs to.
        """
        self._pair_of, self._compute = pair_of, compute
        one = self._carefully if self._attempt.is_careful else self._whole
        try:
            for rows in batches:
                one(rows)
            self._require_device()
        finally:
            self._attempt.after()

    def reject(self, pair: int, reason: str, tries: int = 1, raised: str = "") -> None:
        """Leaves a pair (0 to n - 1) out, if it is not yet; raised: the traceback."""
        if self.kept[pair]:
            self.kept[pair] = False
            self.rejects.append(DeadLetter(int(self._ids[pair]), reason, tries, self._fragment, raised))
            self._require(self.rejects)

    def _carefully(self, rows: Rows) -> None:
        """Computes a batch and writes down before what is in flight; suspects are first computed by themselves."""
        pairs = np.unique(self._pair_of[rows])
        probed = self._attempt.one_by_one or (len(pairs) > 1 and self._attempt.suspects(self._ids[pairs].tolist()))
        if probed:
            for pair in pairs[self.kept[pairs]]:
                self._attempt.before([int(self._ids[pair])])
                self._halving(rows[self._pair_of[rows] == pair])
        if not self._attempt.one_by_one:
            left = self._left(rows)
            self._attempt.before(self._ids[np.unique(self._pair_of[left])].tolist(), probed=probed)
            self._whole(left)

    def _whole(self, rows: Rows) -> None:
        """Computes a batch; if pairs of it are rejected, what is left of it once more, now that it can be whole."""
        rejected = len(self.rejects)
        self._halving(rows)
        if len(self.rejects) > rejected and len(left := self._left(rows)):
            # Should it be too big as well, its pieces are computed already.
            self._failure(left)

    def _halving(self, rows: Rows, tries: int = 1) -> None:
        rows = self._left(rows)
        failure = self._failure(rows) if len(rows) else None
        if failure is None:
            return
        if len(rows) == 1:
            self.reject(int(self._pair_of[rows[0]]), failure[0], tries, failure[1])
            return
        for half in np.array_split(rows, 2):
            self._halving(half, tries + 1)

    def _failure(self, rows: Rows) -> tuple[str, str] | None:
        """Reason and traceback of what computing these rows raises. The exception itself would hold on to memory."""
        try:
            self._compute(rows)
            if self._attempt.is_careful:
                # Else the process could die of these rows when others are said to be in flight.
                self._synchronise()
        except ReportedError:
            raise
        except Exception as error:
            failure = f"{type(error).__name__}: {one_line(error)}", traceback.format_exc()
        else:
            return None
        self._require_device()
        return failure

    def _left(self, rows: Rows) -> Rows:
        return rows[self.kept[self._pair_of[rows]]]

    def _require_device(self) -> None:
        """Ends the process, as a crash would, when its device cannot be used any more."""
        try:
            self._synchronise()
        except Exception:
            traceback.print_exc()
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)
