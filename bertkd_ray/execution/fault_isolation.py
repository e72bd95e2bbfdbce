"""Computes batches of pairs and leaves out the pairs that cannot be computed.

A batch that raises is halved until it is one row, and the pair of that row is rejected; so a batch that is too big for
the memory is split, and costs no pair. A pair that kills its process is identified over several processes
(`execution.attempts`). In either case the rest of its batch is computed in one go, so that the results do not depend on
how the pair was identified.
"""

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
    """The pairs of one item: which are `kept` (bool[n]), and the `dead_letters` of the others.

    ids: int64[n]. fragment: the file of the corpus they are from. require: raises when too many pairs are rejected.
    synchronise: returns when the device has done what it was given, and raises when it cannot be used any more.
    on_done: takes the number of pairs done, rejected ones too, after every batch.

    A ReportedError is no pair's fault and passes. An error that outlives its batch (a GPU whose context is lost) ends
    the process, since nothing can be computed after it; the pair is then identified as one that kills its process.
    """

    def __init__(
        self,
        ids: NDArray[np.int64],
        attempt: Attempt,
        fragment: str,
        *,
        require: Callable[[Sequence[DeadLetter]], None],
        synchronise: Callable[[], None],
        on_done: Callable[[int], None] = lambda pairs: None,
    ) -> None:
        self._ids, self._attempt, self._fragment = ids, attempt, fragment
        self._require, self._synchronise, self._on_done = require, synchronise, on_done
        self.kept: NDArray[np.bool_] = np.ones(len(ids), dtype=np.bool_)
        self.dead_letters: list[DeadLetter] = []
        for index in np.flatnonzero(np.isin(ids, list(attempt.poison_records))).tolist():
            attempts = attempt.poison_records[int(ids[index])]
            self.add_dead_letter(index, f"its process died {attempts} times", attempts)

    def run(self, batches: Iterable[Rows], pair_of: Rows, compute: Callable[[Rows], None]) -> None:
        """Computes every batch without the rows of rejected pairs; a row may be computed more than once.

        batches: row numbers; pair_of: int64[rows], which of the n pairs each row belongs to.
        """
        self._pair_of, self._compute = pair_of, compute
        compute_batch = self._compute_logged if self._attempt.is_retry else self._compute_whole
        done = 0
        try:
            for rows in batches:
                compute_batch(rows)
                done += len(rows)
                self._on_done(len(self._ids) * done // len(pair_of))
            self._require_device()
        finally:
            self._attempt.clear_in_flight()

    def add_dead_letter(self, pair: int, reason: str, tries: int = 1, traceback_text: str = "") -> None:
        """Leaves a pair (0 to n - 1) out, if it is not yet."""
        if self.kept[pair]:
            self.kept[pair] = False
            self.dead_letters.append(DeadLetter(int(self._ids[pair]), reason, tries, self._fragment, traceback_text))
            self._require(self.dead_letters)

    def _compute_logged(self, rows: Rows) -> None:
        """Computes a batch and logs before what is in flight; suspects are first computed by themselves."""
        pairs = np.unique(self._pair_of[rows])
        probed = self._attempt.one_by_one or (len(pairs) > 1 and self._attempt.has_suspects(self._ids[pairs].tolist()))
        if probed:
            for pair in pairs[self.kept[pairs]]:
                self._attempt.log_in_flight([int(self._ids[pair])])
                self._bisect(rows[self._pair_of[rows] == pair])
        if not self._attempt.one_by_one:
            rows = self._without_dead_letters(rows)
            self._attempt.log_in_flight(self._ids[np.unique(self._pair_of[rows])].tolist(), probed=probed)
            self._compute_whole(rows)

    def _compute_whole(self, rows: Rows) -> None:
        """Computes a batch; if pairs of it are rejected, what is left of it once more, now that it can be whole."""
        known = len(self.dead_letters)
        self._bisect(rows)
        if len(self.dead_letters) > known and len(left := self._without_dead_letters(rows)):
            # Should it be too big as well, its halves are computed already.
            self._try_to_compute(left)

    def _bisect(self, rows: Rows, tries: int = 1) -> None:
        rows = self._without_dead_letters(rows)
        failure = self._try_to_compute(rows) if len(rows) else None
        if failure is None:
            return
        if len(rows) == 1:
            self.add_dead_letter(int(self._pair_of[rows[0]]), failure[0], tries, failure[1])
            return
        for half in np.array_split(rows, 2):
            self._bisect(half, tries + 1)

    def _try_to_compute(self, rows: Rows) -> tuple[str, str] | None:
        """Reason and traceback of what computing these rows raises. The exception itself would hold on to memory."""
        try:
            self._compute(rows)
            if self._attempt.is_retry:
                # Else the process could die of these rows when others are logged as in flight.
                self._synchronise()
        except ReportedError:
            raise
        except Exception as error:
            failure = f"{type(error).__name__}: {one_line(error)}", traceback.format_exc()
        else:
            return None
        self._require_device()
        return failure

    def _without_dead_letters(self, rows: Rows) -> Rows:
        return rows[self.kept[self._pair_of[rows]]]

    def _require_device(self) -> None:
        """Ends the process, as a crash would, when its device cannot be used any more."""
        try:
            self._synchronise()
        except Exception:
            traceback.print_exc()
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)
