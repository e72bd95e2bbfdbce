"""One batch plan for any number of workers.

An update is B micro-batches, whatever the number of workers. B endless streams feed them: in every epoch the row groups
are shuffled by (seed, epoch) and cut into windows; window g of the endless sequence belongs to stream g mod B. A stream
shuffles its window, sorts it by length, cuts it where the padded tokens would pass the budget, shuffles the batches and
goes on to its next window. Where every epoch has sources of its own (subword dropout), they are made when a window is
read, so that the lengths that are counted are those of the batches. Micro-batch j of every update comes from stream j,
and worker r serves the streams with index ≡ r (mod workers). So the loss curve does not depend on the number of
workers, a worker reads only its own windows, and the position in the data is B small tuples.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bertkd_ray.core.keyed_random import keyed_permutation

WINDOW_PAIRS = 8192
PASS_TOKENS = {"cuda": 8_192}
"""By device: padded tokens up to which micro-batches are one forward pass, since fewer do not fill it; estimated."""


class StreamPosition(NamedTuple):
    """Where a stream stands: the next batch it will give."""

    window: int
    """Ordinal of the window in the endless sequence over all epochs."""
    batch: int
    """Batches of that window already given."""


def start_positions(streams: int) -> list[StreamPosition]:
    """Where so many streams begin."""
    return [StreamPosition(stream, 0) for stream in range(streams)]


@dataclass(frozen=True)
class BatchPlan:
    """Which row groups make up which window, in every epoch; a pure function of row counts and the seed.

    group_rows: int64[G], rows of every row group; streams: B; window_pairs: rows a window has at about the most.
    """

    group_rows: NDArray[np.int64]
    streams: int
    seed: int
    window_pairs: int = WINDOW_PAIRS

    @cached_property
    def windows_per_epoch(self) -> int:
        """Windows an epoch: enough that none is much over `window_pairs`, a multiple of B where the groups suffice."""
        wanted = -(-int(self.group_rows.sum()) // self.window_pairs)
        wanted = -(-wanted // self.streams) * self.streams
        return min(wanted, len(self.group_rows))

    def window(self, position: StreamPosition) -> tuple[int, NDArray[np.int64]]:
        """The epoch and the row groups of the window at a position; an epoch's windows have each group once."""
        epoch, index = divmod(position.window, self.windows_per_epoch)
        size, longer = divmod(len(self.group_rows), self.windows_per_epoch)
        start = index * size + min(index, longer)
        return epoch, self._order(epoch)[start : start + size + (index < longer)]

    @cached_property
    def _order(self) -> Callable[[int], NDArray[np.int64]]:
        """The row groups of an epoch in its order."""
        # Two are in use while the streams cross from an epoch to the next, one at any other time.
        return lru_cache(maxsize=2)(partial(keyed_permutation, len(self.group_rows), self.seed))


def shuffled_batches(
    sort_lengths: NDArray[np.int64], row_tokens: NDArray[np.int64], budget: int, *key: int
) -> list[NDArray[np.int64]]:
    """Batches of similar lengths: int64 row numbers of each.

    sort_lengths: int64[n], what the rows are sorted by, ties in an order that depends on the key; row_tokens: int64[n],
    tokens a row takes once padded to the longest of its batch; budget: padded tokens a batch, rows times the largest
    row_tokens. The order of the batches depends on the key. A row over the budget is a batch of its own.
    """
    shuffled = keyed_permutation(len(sort_lengths), *key, 0)
    order = shuffled[np.argsort(sort_lengths[shuffled], kind="stable")]
    tokens = row_tokens[order]
    batches = []
    begin = 0
    while begin < len(order):
        most = min(len(order) - begin, max(1, budget // max(1, int(tokens[begin])) + 1))
        padded = np.maximum.accumulate(tokens[begin : begin + most]) * np.arange(1, most + 1)
        size = max(1, int(np.searchsorted(padded, budget, side="right")))
        batches.append(order[begin : begin + size])
        begin += size
    return [batches[index] for index in keyed_permutation(len(batches), *key, 1)]


@dataclass(frozen=True)
class MicroBatch:
    """The rows of one micro-batch, and where its stream stands afterwards."""

    stream: int
    epoch: int
    rows: pa.Table
    after: StreamPosition
    joined: tuple["MicroBatch", ...] = ()
    """Those of other streams whose rows stand behind its own."""


@dataclass(frozen=True)
class RowLengths:
    """How a table's rows are counted: int64[n] to sort by, and int64[n] padded tokens."""

    sort: NDArray[np.int64]
    tokens: NDArray[np.int64]


def concatenated(micros: Sequence[MicroBatch]) -> MicroBatch:
    """The rows of micro-batches of one epoch, one after another, as the first one with the others joined."""
    first, *others = micros
    if not others:
        return first
    return replace(first, rows=pa.concat_tables(micro.rows for micro in micros).combine_chunks(), joined=tuple(others))


def forward_passes(
    micros: Sequence[MicroBatch], lengths: Callable[[pa.Table], RowLengths], budget: int
) -> list[MicroBatch]:
    """Neighbours of one epoch joined, as long as they take no more padded tokens than the budget."""
    passes: list[list[MicroBatch]] = []
    rows, longest = 0, 0
    for micro in micros:
        own_rows, own_longest = micro.rows.num_rows, int(lengths(micro.rows).tokens.max())
        rows, longest = rows + own_rows, max(longest, own_longest)
        if passes and rows * longest <= budget and passes[-1][0].epoch == micro.epoch:
            passes[-1].append(micro)
        else:
            passes.append([micro])
            rows, longest = own_rows, own_longest
    return [concatenated(together) for together in passes]


class Streams:
    """The streams that one worker serves, each reading its next window ahead in a thread."""

    def __init__(
        self,
        plan: BatchPlan,
        positions: list[StreamPosition] | None = None,
        *,
        budget: int,
        read: Callable[[NDArray[np.int64]], pa.Table],
        lengths: Callable[[pa.Table], RowLengths],
        resample: Callable[[pa.Table, int], pa.Table] | None = None,
        rank: int = 0,
        workers: int = 1,
    ) -> None:
        """budget: padded tokens a micro-batch; read: row groups to a table; positions: all B, to go on from.

        resample: a window's rows and the epoch to the rows as that epoch has them, which are what is counted and cut
        into batches; called by one thread.
        """
        if plan.streams < workers:
            raise ValueError(f"{plan.streams} micro-batches cannot be shared by {workers} workers")
        self._plan, self._budget, self._read, self._lengths, self._resample = plan, budget, read, lengths, resample
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="window")
        starts = positions or start_positions(plan.streams)
        self._streams = [self._stream(stream, starts[stream]) for stream in range(rank, plan.streams, workers)]

    def step(self) -> list[MicroBatch]:
        """The micro-batches of this worker's streams for the next update."""
        return [next(stream) for stream in self._streams]

    def close(self) -> None:
        """Ends the reading ahead."""
        self._pool.shutdown(cancel_futures=True)

    def _stream(self, stream: int, position: StreamPosition) -> Iterator[MicroBatch]:
        ahead = self._read_ahead(position)
        while True:
            epoch, _ = self._plan.window(position)
            following = StreamPosition(position.window + self._plan.streams, 0)
            table, ahead = ahead.result(), self._read_ahead(following)
            lengths = self._lengths(table)
            batches = shuffled_batches(lengths.sort, lengths.tokens, self._budget, self._plan.seed, position.window)
            for index in range(position.batch, len(batches)):
                last = index + 1 == len(batches)
                after = following if last else StreamPosition(position.window, index + 1)
                yield MicroBatch(stream, epoch, table.take(pa.array(batches[index])), after)
            position = following

    def _read_ahead(self, position: StreamPosition) -> Future[pa.Table]:
        return self._pool.submit(self._rows, *self._plan.window(position))

    def _rows(self, epoch: int, groups: NDArray[np.int64]) -> pa.Table:
        table = self._read(groups)
        return self._resample(table, epoch) if self._resample else table
