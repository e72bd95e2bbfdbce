from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

from bertkd_ray.core.keyed_random import keyed_permutation
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.training import batch_plan as batching
from bertkd_ray.training.batch_plan import (
    BatchPlan,
    MicroBatch,
    RowLengths,
    StreamPosition,
    Streams,
    concatenated,
    forward_passes,
    shuffled_batches,
)

GROUP = 50


def plan_of(groups: int, streams: int, **more) -> BatchPlan:
    return BatchPlan(np.full(groups, GROUP, np.int64), streams, seed=3, **more)


def windows_of(plan: BatchPlan, epoch: int) -> list[np.ndarray]:
    """The row groups of every window of an epoch."""
    size = plan.windows_per_epoch
    return [plan.window(StreamPosition(epoch * size + index, 0))[1] for index in range(size)]


def test_every_epoch_has_every_group_once_in_another_order():
    plan = plan_of(10, 2, window_pairs=120)
    assert plan.windows_per_epoch == 6  # ceil(500 / 120) = 5, rounded up to a multiple of 2
    epochs = [np.concatenate(windows_of(plan, epoch)) for epoch in range(3)]
    for order in epochs:
        assert sorted(order) == list(range(10))
    assert len({tuple(order) for order in epochs}) == 3


def test_windows_are_dealt_to_streams_in_turn():
    plan = plan_of(8, 4, window_pairs=100)
    assert plan.windows_per_epoch == 4
    for stream in range(4):
        first = StreamPosition(stream, 0)
        assert plan.window(first)[0] == 0
        assert plan.window(StreamPosition(first.window + 4, 0))[0] == 1
    dealt = [plan.window(StreamPosition(stream, 0))[1].tolist() for stream in range(4)]
    assert sorted(itertools.chain.from_iterable(dealt)) == list(range(8))


def test_fewer_groups_than_streams_starve_no_stream():
    plan = plan_of(1, 4)
    assert [plan.window(StreamPosition(stream, 0)) for stream in range(4)] == [
        (epoch, np.array([0])) for epoch in range(4)
    ]


LARGE = np.full(-(-100_000_000 // 1024), 1024, np.int64)
"""Row groups of 100 million pairs, as prepare cuts them unless told otherwise."""


def test_the_plan_for_100_million_pairs_needs_row_counts_alone():
    plan = BatchPlan(LARGE, 64, seed=1)
    assert plan.windows_per_epoch % 64 == 0
    windows = windows_of(plan, 5)
    rows = np.asarray([plan.group_rows[window].sum() for window in windows])
    assert rows.max() <= 8192 + 1024
    assert np.array_equal(np.sort(np.concatenate(windows)), np.arange(len(plan.group_rows)))


@pytest.mark.parametrize(("groups", "streams", "window_pairs"), [(1, 4, 8192), (10, 2, 120), (23, 3, 170), (64, 1, 50)])
def test_a_window_is_the_one_that_its_epoch_has(groups, streams, window_pairs):
    plan = plan_of(groups, streams, window_pairs=window_pairs)
    size = plan.windows_per_epoch
    expected = {epoch: windows_of(BatchPlan(plan.group_rows, streams, 3, window_pairs), epoch) for epoch in range(4)}
    # In turn, backwards, and leaping between epochs, as streams do of which one is ahead.
    for ordinal in [*range(4 * size), *reversed(range(4 * size)), 0, 3 * size, size, 2 * size]:
        epoch, window = plan.window(StreamPosition(ordinal, 0))
        assert epoch == ordinal // size
        assert window.tolist() == expected[epoch][ordinal % size].tolist()


def test_an_epoch_of_100_million_pairs_is_shuffled_once_in_bounded_memory(monkeypatch):
    shuffled: list[tuple[int, ...]] = []

    def permutation(size: int, *key: int) -> np.ndarray:
        shuffled.append(key)
        return keyed_permutation(size, *key)

    monkeypatch.setattr(batching, "keyed_permutation", permutation)
    plan = BatchPlan(LARGE, 64, seed=1)
    plan.window(StreamPosition(0, 0))
    tracemalloc.start()
    try:
        for position in (StreamPosition(window, 0) for window in range(1, 3 * plan.windows_per_epoch, 64)):
            plan.window(position)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert shuffled == [(1, 0), (1, 1), (1, 2)]
    order = LARGE.nbytes
    assert held <= 2.1 * order
    assert peak <= 10 * order  # while one is made: the bits of its keys, and what sorting them takes


def test_shuffled_batches_keep_the_budget_and_every_row():
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 60, 500)
    batches = shuffled_batches(tokens, tokens, 256, 7)
    assert sorted(np.concatenate(batches)) == list(range(500))
    for batch in batches:
        assert len(batch) * tokens[batch].max() <= 256
    full = [len(batch) * tokens[batch].max() for batch in batches]
    assert np.mean(full) > 200  # cut by length, a batch wastes little


def test_shuffled_batches_by_hand():
    lengths = np.array([5, 1, 3, 1, 5])
    batches = shuffled_batches(lengths, lengths, 6, 0)
    # Sorted 1 1 3 5 5: two rows of 1 and none of 3 (3 rows of 3 are 9); 3 alone (2 rows of 5 are 10); 5 and 5.
    assert sorted(tuple(sorted(batch)) for batch in batches) == [(0,), (1, 3), (2,), (4,)]


def test_a_row_over_the_budget_is_a_batch_of_its_own():
    lengths = np.array([3, 100, 4])
    assert any(batch.tolist() == [1] for batch in shuffled_batches(lengths, lengths, 10, 0))


def test_the_order_depends_on_the_key_alone():
    lengths = np.random.default_rng(1).integers(1, 9, 200)
    same, other = (shuffled_batches(lengths, lengths, 40, 5, key) for key in (1, 2))
    again = shuffled_batches(lengths, lengths, 40, 5, 1)
    assert [b.tolist() for b in same] == [b.tolist() for b in again]
    assert [b.tolist() for b in same] != [b.tolist() for b in other]


class Source:
    """Rows numbered across groups, with lengths that follow from the number."""

    def __init__(self) -> None:
        self.reads: list[tuple[int, ...]] = []

    def read(self, groups: np.ndarray) -> pa.Table:
        self.reads.append(tuple(groups.tolist()))
        ids = np.concatenate([np.arange(group * GROUP, (group + 1) * GROUP) for group in groups])
        return pa.table({"id": ids})


def lengths_of(table: pa.Table) -> RowLengths:
    lengths = table["id"].to_numpy() % 13 + 1
    return RowLengths(lengths, lengths)


def streams_of(plan: BatchPlan, source: Source, rank: int = 0, workers: int = 1, positions=None) -> Streams:
    return Streams(
        plan, budget=60, read=source.read, lengths=lengths_of, rank=rank, workers=workers, positions=positions
    )


def run(streams: Streams, steps: int) -> list[dict[int, tuple[int, ...]]]:
    found = [{micro.stream: tuple(micro.rows["id"].to_pylist()) for micro in streams.step()} for _ in range(steps)]
    streams.close()
    return found


@pytest.mark.parametrize("workers", [2, 4])
def test_the_batches_do_not_depend_on_the_number_of_workers(workers):
    plan = plan_of(12, 4, window_pairs=150)
    alone = run(streams_of(plan, Source()), 60)
    parts = [run(streams_of(plan, Source(), rank, workers), 60) for rank in range(workers)]
    for step in range(60):
        together = {stream: rows for part in parts for stream, rows in part[step].items()}
        assert together == alone[step]


def test_a_run_may_change_its_workers_halfway():
    plan = plan_of(12, 4, window_pairs=150)
    whole = run(streams_of(plan, Source()), 40)
    positions = [StreamPosition(stream, 0) for stream in range(4)]
    for rank in range(2):
        streams = streams_of(plan, Source(), rank, 2)
        for _ in range(17):
            for micro in streams.step():
                positions[micro.stream] = micro.after
        streams.close()
    assert run(streams_of(plan, Source(), positions=positions), 23) == whole[17:]


def test_an_epoch_gives_every_row_once():
    plan = plan_of(8, 2, window_pairs=200)
    seen: list[int] = []
    streams = streams_of(plan, Source())
    last_epoch = 0
    while True:
        micros = streams.step()
        last_epoch = max(micro.epoch for micro in micros)
        seen += [row for micro in micros if micro.epoch == 0 for row in micro.rows["id"].to_pylist()]
        if min(micro.epoch for micro in micros) > 0:
            break
    streams.close()
    assert last_epoch >= 1
    assert sorted(seen) == list(range(8 * GROUP))


def test_resuming_reads_nothing_that_was_used():
    plan = plan_of(8, 2, window_pairs=100)
    positions = [StreamPosition(4, 1), StreamPosition(5, 0)]
    source = Source()
    run(streams_of(plan, source, positions=positions), 1)
    expected = [tuple(plan.window(StreamPosition(window, 0))[1].tolist()) for window in (4, 5, 6, 7)]
    assert set(source.reads) <= set(expected)
    assert set(expected[:2]) <= set(source.reads)


def test_workers_share_as_evenly_as_they_can_and_none_is_left_without_a_micro_batch():
    plan = plan_of(12, 4)
    shares = []
    for rank in range(3):
        streams = streams_of(plan, Source(), rank, 3)
        shares.append([micro.stream for micro in streams.step()])
        streams.close()
    assert shares == [[0, 3], [1], [2]]
    with pytest.raises(ValueError, match="3 micro-batches cannot be shared by 4 workers"):
        streams_of(plan_of(4, 3), Source(), 0, 4)


def test_ragged_take_matches_python_lists():
    rows = [[1, 2, 3], [], [4], [5, 6]]
    taken = Ragged.from_lists(rows).take(np.array([3, 0, 0, 1]))
    assert [taken.row(index).tolist() for index in range(4)] == [[5, 6], [1, 2, 3], [1, 2, 3], []]


def micro_of(lengths: list[int], stream: int, epoch: int = 0) -> MicroBatch:
    return MicroBatch(stream, epoch, pa.table({"length": lengths}), StreamPosition(stream, 1))


@pytest.mark.parametrize(
    ("budget", "streams"),
    [
        (8, [[0, 1], [2], [3], [4]]),  # 2 + 2 rows of 2; with the row of 5 they would be 25 tokens
        (7, [[0], [1], [2], [3], [4]]),
        (25, [[0, 1, 2], [3], [4]]),  # 6 rows of 5 are 30; the last is of another epoch
        (30, [[0, 1, 2, 3], [4]]),
    ],
)
def test_micro_batches_of_a_forward_pass_take_no_more_than_its_budget(budget, streams):
    micros = [micro_of([2, 1], 0), micro_of([2, 2], 1), micro_of([5], 2), micro_of([3], 3), micro_of([1], 4, epoch=1)]

    def lengths(rows: pa.Table) -> RowLengths:
        return RowLengths(rows["length"].to_numpy(), rows["length"].to_numpy())

    passes = forward_passes(micros, lengths, budget)
    assert [[micro.stream for micro in (first, *first.joined)] for first in passes] == streams
    assert concatenated(micros[:3]).rows["length"].to_pylist() == [2, 1, 2, 2, 5]
