"""How many dead letters are too many, what is said of them, and the table."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from bertkd_ray.artifacts.artifact import PendingArtifact
from bertkd_ray.artifacts.store import Store
from bertkd_ray.core.errors import UserError
from bertkd_ray.execution.dead_letters import DEAD_LETTERS, DeadLetter, DeadLetters, ErrorBudget


def reject(pair: int, reason: str = "IndexError: index 99 is out of bounds") -> DeadLetter:
    return DeadLetter(pair, reason, 3, "train/fragment-000001.parquet", "Traceback…")


@pytest.fixture
def pending(tmp_path) -> PendingArtifact:
    return PendingArtifact(Store(str(tmp_path)), "softlabels", "0123456789abcdef", {}, {})


@pytest.mark.parametrize(
    ("count", "pairs", "share", "too_many"),
    [
        (0, 1, 0.0, False),
        (1, 1_000_000, 0.0, True),
        (1, 1000, 0.001, False),
        (2, 1999, 0.001, True),
        (3, 30, 0.1, False),
    ],
)
def test_the_share_itself_is_allowed(pending, count, pairs, share, too_many):
    letters = [reject(pair) for pair in range(count)]
    budget = ErrorBudget("extract", share, pairs)
    if too_many:
        with pytest.raises(UserError, match="more than max_rejects"):
            budget.require(letters, pending.store, pending.staging)
    else:
        budget.require(letters, pending.store, pending.staging)
    assert pending.store.exists(pending.staging, DEAD_LETTERS) == too_many


def test_what_is_said_when_there_are_too_many(pending):
    many = [
        reject(9),
        reject(7),
        reject(12, "its process died 4 times"),
        reject(15, "ValueError: " + "x" * 200),
        reject(20, "KeyError: 1"),
    ]
    with pytest.raises(UserError) as error:
        ErrorBudget("extract", 0.001, 2000).require(many, pending.store, pending.staging)
    assert str(error.value) == (
        "extract: 5 of 2,000 pairs rejected (0.250%), more than max_rejects 0.001; "
        "pair 7: IndexError: index 99 is out of bounds; "
        f"pair 12: its process died 4 times; pair 15: ValueError: {'x' * 148}…; "
        f"all of them: {pending.store.root}/{pending.staging}/rejects.parquet; "
        "mend the cause, or raise max_rejects, and run again to go on"
    )


def test_the_table_is_in_the_order_of_ids(pending):
    letters = DeadLetters(pending, ErrorBudget("extract", 0.5, 10))
    letters.add([reject(9), reject(1 << 56)])
    letters.add([reject(3, "its process died 4 times")])
    assert letters.keep() == [DEAD_LETTERS]
    table = pq.read_table(pending.store.path(pending.directory, DEAD_LETTERS))
    assert str(table.schema.field("id").type) == "int64"
    assert table.to_pylist() == [
        {
            "id": pair,
            "reason": reason,
            "tries": 3,
            "fragment": "train/fragment-000001.parquet",
            "traceback": "Traceback…",
        }
        for pair, reason in [
            (3, "its process died 4 times"),
            (9, "IndexError: index 99 is out of bounds"),
            (1 << 56, "IndexError: index 99 is out of bounds"),
        ]
    ]


def test_they_are_said_on_the_terminal(pending, capsys):
    letters = DeadLetters(pending, ErrorBudget("translate", 0.5, 10))
    letters.add([reject(9)])
    letters.keep()
    assert capsys.readouterr().err == (
        "translate  1 of 10 pairs rejected (10.000%); pair 9: IndexError: index 99 is out of bounds; "
        f"all of them: {pending.store.root}/{pending.directory}/rejects.parquet\n"
    )


def test_without_any_there_is_no_table_and_nothing_to_say(pending, capsys):
    letters = DeadLetters(pending, ErrorBudget("extract", 0.0, 10))
    letters.add([])
    assert letters.keep() == []
    assert pending.store.files() == []
    assert capsys.readouterr().err == ""


def test_the_pieces_add_up_to_too_many(pending):
    letters = DeadLetters(pending, ErrorBudget("extract", 0.2, 10))
    letters.add([reject(1), reject(2)])
    with pytest.raises(UserError, match=r"^extract: 3 of 10 pairs rejected \(30\.000%\)"):
        letters.add([reject(3)])
    assert len(pq.read_table(pending.store.path(pending.staging, DEAD_LETTERS))) == 3
