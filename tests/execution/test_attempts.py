"""The ledger of a piece of work, and which finished files are taken as such."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertkd_ray.artifacts.store import Store
from bertkd_ray.execution.attempts import STATS, Attempt, dead_letters_of, finished
from bertkd_ray.execution.dead_letters import DeadLetter

STAGING, NAME = "work/softlabels-0123456789abcdef", "shard-000000.parquet"
LEDGER = (STAGING, "attempts", f"{NAME}.json")


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(str(tmp_path))


def begin(store: Store) -> Attempt:
    return Attempt(store, STAGING, NAME)


def test_the_first_try_writes_one_file_and_says_nothing_of_what_is_in_flight(store):
    attempt = begin(store)
    assert not attempt.is_retry
    assert store.files(STAGING) == [(f"attempts/{NAME}.json", len(store.read(*LEDGER)))]
    assert json.loads(store.read(*LEDGER))["attempts"] == 1


def test_a_piece_that_was_begun_before_is_done_with_care(store):
    begin(store)
    attempt = begin(store)
    assert attempt.is_retry
    assert not attempt.one_by_one
    assert attempt.poison_records == {}


def test_pairs_that_were_in_flight_at_a_death_are_suspects_from_then_on(store):
    begin(store)
    begin(store).log_in_flight([4, 5])
    assert begin(store).has_suspects([5, 6])
    assert not begin(store).has_suspects([6])
    assert begin(store).has_suspects([4])


def test_one_pair_is_to_blame_from_its_second_death_alone(store):
    begin(store)
    begin(store).log_in_flight([4])
    attempt = begin(store)
    assert attempt.poison_records == {}
    attempt.log_in_flight([4])
    assert begin(store).poison_records == {4: 3}
    assert begin(store).poison_records == {4: 3}


def test_what_has_landed_is_not_to_blame(store):
    for _ in range(4):
        attempt = begin(store)
        attempt.log_in_flight([4])
        attempt.clear_in_flight()
    assert begin(store).poison_records == {}


def test_a_batch_is_to_blame_from_its_second_death_after_its_pairs_went_well(store):
    for _ in range(2):
        begin(store).log_in_flight([4, 5], probed=True)
    assert begin(store).one_by_one
    assert begin(store).poison_records == {}


def test_a_ledger_that_was_cut_off_starts_anew(store):
    begin(store)
    store.write(store.read(*LEDGER)[:20], *LEDGER)
    assert not begin(store).is_retry


def earlier_ledger(rejects: list[dict]) -> bytes:
    """A ledger as it was written before its keys were renamed."""
    ledger = {"begun": 3, "in_flight": [4], "probed": False, "suspects": [4], "alone": {"4": 1}}
    return json.dumps({**ledger, "together": 0, "killers": {}, "rejects": rejects}).encode()


def test_a_ledger_of_an_earlier_version_starts_anew(store):
    store.write(earlier_ledger([]), *LEDGER)
    attempt = begin(store)
    assert not attempt.is_retry
    assert attempt.poison_records == {}


def test_rejects_are_kept(store):
    rejects = [DeadLetter(7, "IndexError: no", 3, "train/fragment-000000.parquet", "Traceback…")]
    attempt = begin(store)
    attempt.finish(rejects)
    assert dead_letters_of(store, STAGING, NAME) == rejects
    begin(store).finish([])
    assert dead_letters_of(store, STAGING, NAME) == []
    assert dead_letters_of(store, STAGING, "shard-000001.parquet") == []


def parquet(rows: int, stats: object) -> bytes:
    table = pa.table({"id": list(range(rows))}).replace_schema_metadata({STATS: json.dumps(stats)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


GOOD = {"rows": 3, "rejects": 0}


def found(store: Store, data: bytes) -> dict | None:
    store.write(data, "artifact", NAME)
    return finished(store, STAGING, NAME, "artifact", NAME)


def test_a_finished_file_says_what_it_is(store):
    assert found(store, parquet(3, {**GOOD, "more": [1.5]})) == {**GOOD, "more": [1.5]}


def test_no_file_is_not_finished(store):
    assert finished(store, STAGING, NAME, "artifact", NAME) is None


def test_a_file_that_is_removed_meanwhile_is_not_finished(store, monkeypatch):
    monkeypatch.setattr(Store, "exists", lambda *path: True)
    assert finished(store, STAGING, NAME, "artifact", NAME) is None


def test_a_finished_file_of_an_earlier_version_is_kept_where_its_rejected_pairs_are_known(store):
    store.write(earlier_ledger([]), *LEDGER)
    assert found(store, parquet(3, GOOD)) == GOOD
    reject = {"id": 4, "reason": "no", "tries": 1, "fragment": "train/part-000000.parquet", "traceback": ""}
    store.write(earlier_ledger([reject]), *LEDGER)
    assert found(store, parquet(3, {"rows": 3, "rejects": 1})) is None


@pytest.mark.parametrize("size", [0, 1, 3, 4, 8, 100, -4, -8, -9, -30, -1])
def test_a_file_that_was_cut_off_is_not_finished(store, size):
    assert found(store, parquet(3, GOOD)[:size]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"not Parquet at all",
        b"PAR1" + b"\xff" * 64 + b"PAR1",
        parquet(3, {"rows": 2, "rejects": 0}),
        parquet(3, {"rows": 3}),
        parquet(3, [3, 0]),
        parquet(3, {"rows": 3, "rejects": 1}),
    ],
    ids=["text", "footer", "rows", "older", "list", "rejects unknown"],
)
def test_a_file_that_does_not_say_what_it_is_is_not_finished(store, data):
    assert found(store, data) is None


def test_a_file_without_any_metadata_is_not_finished(store):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": [1]}), sink, store_schema=False)
    assert found(store, bytes(sink.getvalue())) is None


def test_a_file_with_rejects_needs_to_know_them(store):
    begin(store).finish([DeadLetter(7, "its process died 4 times", 4, "train/fragment-000000.parquet")])
    assert found(store, parquet(3, {"rows": 3, "rejects": 1})) == {"rows": 3, "rejects": 1}
    assert found(store, parquet(3, GOOD)) is None
