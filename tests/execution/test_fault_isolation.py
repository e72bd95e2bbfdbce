"""What raises is left out, what kills its process too, and nothing else; on made-up work of known faults."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bertkd_ray.artifacts.store import Store
from bertkd_ray.core.errors import UserError
from bertkd_ray.execution.attempts import Attempt
from bertkd_ray.execution.fault_isolation import FaultIsolation
from tests.helpers.killable_processes import is_killed, kills_until_done

IDS = np.arange(100, 112)
"""Twelve pairs."""
ROWS_A_PAIR = 2
PAIR_OF = np.repeat(np.arange(len(IDS)), ROWS_A_PAIR)
BATCHES = [np.arange(0, 9), np.arange(9, 16), np.arange(16, 24)]
"""Pair 104 stands in the first and in the second, as does no other."""


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Work:
    """Rows of which some raise and some kill."""

    directory: Path
    raising: set[int] = field(default_factory=set)
    """Ids."""
    killing: set[int] = field(default_factory=set)
    """Ids."""
    most_rows: int = 1000
    """More at once raise MemoryError."""
    killing_rows: int = 1000
    """More at once kill."""
    calls: list[list[int]] = field(default_factory=list)
    """Rows of each call that went well."""
    dies_at: int | None = None
    """Call, from 1, at which the process is taken away."""
    computed: int = 0
    """Calls so far."""

    def compute(self, rows: np.ndarray) -> None:
        self.computed += 1
        if self.dies_at == self.computed:
            with (self.directory / "ends.jsonl").open("a") as ends:
                ends.write(json.dumps(rows.tolist()) + "\n")
            kill()
        ids = set(IDS[PAIR_OF[rows]].tolist())
        if ids & self.killing or len(rows) > self.killing_rows:
            kill()
        if ids & self.raising:
            raise IndexError(f"no room for\n{min(ids & self.raising)}")
        if len(rows) > self.most_rows:
            raise MemoryError
        self.calls.append(rows.tolist())

    def isolation(self, require=lambda rejects: None, synchronise=lambda: None, **options) -> FaultIsolation:
        attempt = Attempt(Store(str(self.directory)), "work/thing", "piece")
        return FaultIsolation(IDS, attempt, "train/piece.parquet", require=require, synchronise=synchronise, **options)

    def run(self) -> FaultIsolation:
        isolation = self.isolation()
        isolation.run(iter(BATCHES), PAIR_OF, self.compute)
        rejects = [(one.id, one.reason, one.tries) for one in isolation.dead_letters]
        (self.directory / "said.json").write_text(json.dumps({"calls": self.calls, "rejects": rejects}))
        return isolation

    @property
    def said(self) -> dict[str, list]:
        """Calls and rejects of the process that came to an end."""
        return json.loads((self.directory / "said.json").read_text())

    @property
    def ends(self) -> list[list[int]]:
        """What was being computed whenever the process was taken away."""
        path = self.directory / "ends.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def without(*ids: int) -> list[list[int]]:
    """The batches less the rows of some pairs."""
    return [[row for row in batch.tolist() if IDS[PAIR_OF[row]] not in ids] for batch in BATCHES]


def test_where_nothing_is_wrong_the_batches_are_computed_as_they_are(tmp_path):
    work = Work(tmp_path)
    isolation = work.run()
    assert work.calls == [batch.tolist() for batch in BATCHES]
    assert isolation.kept.all()
    assert isolation.dead_letters == []


def test_what_raises_is_halved_to_the_pair_that_does(tmp_path):
    work = Work(tmp_path, raising={107})
    isolation = work.run()
    assert IDS[~isolation.kept].tolist() == [107]
    (reject,) = isolation.dead_letters
    assert (reject.id, reject.reason, reject.fragment) == (107, "IndexError: no room for 107", "train/piece.parquet")
    # Rows 9 … 15, of which row 14 is the first of the pair: 7 rows, the last 3 of them, 14 and 13 or 14 alone.
    assert reject.tries in (3, 4)
    assert reject.traceback.startswith("Traceback (most recent call last):")
    assert "in compute" in reject.traceback
    # The rest of the batch once more, in one go.
    assert [call for call in work.calls if call in without(107)] == without(107)
    assert 14 not in [row for call in work.calls for row in call]


def test_the_rest_of_a_batch_that_is_too_big_stays_in_pieces(tmp_path):
    work = Work(tmp_path, raising={107}, most_rows=3)
    isolation = work.run()
    assert IDS[~isolation.kept].tolist() == [107]
    assert {row for call in work.calls for row in call} == {row for row in range(24) if PAIR_OF[row] != 7}
    assert max(map(len, work.calls)) == 3


def test_a_pair_of_two_batches_is_left_out_of_both(tmp_path):
    work = Work(tmp_path, raising={104})
    work.run()
    assert work.calls[-2:] == without(104)[1:]
    assert [row for call in work.calls for row in call if PAIR_OF[row] == 4] == []


def test_a_batch_too_big_for_the_memory_is_split_and_costs_no_pair(tmp_path):
    work = Work(tmp_path, most_rows=3)
    isolation = work.run()
    assert isolation.dead_letters == []
    assert sorted(row for call in work.calls for row in call) == list(range(24))
    assert max(map(len, work.calls)) == 3


def test_a_mistake_of_the_user_is_no_fault_of_a_pair(tmp_path):
    def compute(rows: np.ndarray) -> None:
        raise UserError("pair 103 is too long")

    with pytest.raises(UserError, match="pair 103 is too long"):
        Work(tmp_path).isolation().run(BATCHES, PAIR_OF, compute)


def test_too_many_end_it_at_once(tmp_path):
    def require(rejects):
        if len(rejects) > 1:
            raise UserError("too many")

    work = Work(tmp_path, raising=set(IDS.tolist()))
    isolation = work.isolation(require)
    with pytest.raises(UserError, match="too many"):
        isolation.run(BATCHES, PAIR_OF, work.compute)
    assert len(isolation.dead_letters) == 2


def test_a_pair_that_kills_its_process_ends_with_the_fourth_death(tmp_path):
    work = Work(tmp_path, killing={107})
    assert kills_until_done(work.run) == 4
    assert work.said["rejects"] == [[107, "its process died 4 times", 4]]
    # The pairs that were in flight with it one by one, and the batches as if it had never been.
    whole = [call for call in work.said["calls"] if call in without(107)]
    assert whole == without(107)


def test_what_is_known_to_kill_does_not_kill_again(tmp_path):
    work = Work(tmp_path, killing={107})
    kills_until_done(work.run)
    assert not is_killed(work.run)
    assert work.said["rejects"] == [[107, "its process died 4 times", 4]]


@pytest.mark.parametrize(
    ("killing", "deaths"),
    # Pair 104 makes the second batch suspect where it was in flight with the first.
    [({106, 107}, 1 + 1 + 4), ({100, 111}, 1 + 3 + 3), ({100, 101, 106, 111}, 1 + 5 + 2 + 3)],
)
def test_several_that_kill_are_found_one_after_another(tmp_path, killing, deaths):
    """The first death says nothing; then a batch costs one, and each of its pairs two."""
    work = Work(tmp_path, killing=killing)
    assert kills_until_done(work.run) == deaths
    assert {reject[0] for reject in work.said["rejects"]} == killing
    assert [call for call in work.said["calls"] if call in without(*killing)] == without(*killing)


def test_where_every_pair_kills_every_pair_is_rejected(tmp_path):
    work = Work(tmp_path, killing=set(IDS.tolist()))
    assert kills_until_done(work.run) <= 1 + len(BATCHES) + 2 * len(IDS)
    assert {reject[0] for reject in work.said["rejects"]} == set(IDS.tolist())
    assert work.said["calls"] == []


def test_raising_and_killing_together(tmp_path):
    work = Work(tmp_path, raising={101, 107}, killing={106})
    assert kills_until_done(work.run) == 4
    reasons = {reject[0]: reject[1] for reject in work.said["rejects"]}
    assert [call for call in work.said["calls"] if call in without(101, 106, 107)] == without(101, 106, 107)
    assert reasons == {
        101: "IndexError: no room for 101",
        106: "its process died 4 times",
        107: "IndexError: no room for 107",
    }


@pytest.mark.parametrize("rows", [0, 1, 7, 8])
def test_batches_that_kill_as_a_whole_end_in_single_pairs(tmp_path, rows):
    """The memory of a machine has no exception: who takes too much is killed. No pair is to blame for that."""
    work = Work(tmp_path, killing_rows=max(rows, ROWS_A_PAIR))
    assert kills_until_done(work.run) == 4
    assert work.said["rejects"] == []
    assert {row for call in work.said["calls"] for row in call} == set(range(24))


@given(moments=st.lists(st.integers(1, 10), min_size=1, max_size=7))
@example(moments=[1, 1, 1])
@example(moments=[3, 2, 1, 6, 4, 5])
@settings(max_examples=12, deadline=None, derandomize=True)
def test_processes_that_are_taken_away_cost_nothing(moments):
    """Killed at any call of each process: no pair is lost that was not computed alone at two deaths."""
    with tempfile.TemporaryDirectory() as directory:
        work = Work(Path(directory))
        for moment in moments:
            work.dies_at = moment
            is_killed(work.run)
        work.dies_at = None
        assert not is_killed(work.run)
        ends = Counter(tuple(sorted(set(PAIR_OF[rows].tolist()))) for rows in work.ends)
        twice = {IDS[pairs[0]] for pairs, deaths in ends.items() if len(pairs) == 1 and deaths > 1}
        assert {reject[0] for reject in work.said["rejects"]} == twice
        if max(ends.values(), default=0) < 2:
            whole = [call for call in work.said["calls"] if len(call) > ROWS_A_PAIR]
            assert whole == [batch.tolist() for batch in BATCHES]


@pytest.mark.parametrize("faults", [{}, {"raising": {104, 110}}, {"most_rows": 3}], ids=["none", "pairs", "memory"])
def test_pairs_are_counted_once_whatever_has_to_be_computed_again(tmp_path, faults):
    work, counts = Work(tmp_path, **faults), []
    work.isolation(on_done=counts.append).run(BATCHES, PAIR_OF, work.compute)
    assert counts == [4, 8, 12]


def test_a_device_that_is_lost_ends_the_process(tmp_path):
    """A kernel's error stays: whatever comes after it raises too, and would be blamed on the wrong pairs."""
    work = Work(tmp_path, raising={107})

    def synchronise() -> None:
        if len(work.calls) > 0:
            raise RuntimeError("the context is lost")

    def run() -> None:
        work.isolation(synchronise=synchronise).run(BATCHES, PAIR_OF, work.compute)

    assert is_killed(run)
