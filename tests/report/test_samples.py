from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkd_ray.report import samples
from bertkd_ray.report.samples import MarkedSpan, differing_samples, drawn_samples, marked


def table(references: list[str], said: list[str]) -> pa.Table:
    return pa.table(
        {
            "id": [10 * row for row in range(len(said))],
            "source": [f"Satz {row}" for row in range(len(said))],
            "reference": references,
            "hypotheses": pa.array([[line, "second best"] for line in said], pa.list_(pa.string())),
        }
    )


def told(pieces: list[MarkedSpan]) -> str:
    return "".join(piece.text if piece.is_in_reference else f"[{piece.text}]" for piece in pieces)


@pytest.mark.parametrize(
    ("hypothesis", "reference", "shown"),
    [
        ("A dog sleeps.", "A dog sleeps.", "A dog sleeps."),
        ("A cat sleeps.", "A dog sleeps.", "A [cat] sleeps."),
        ("A dog now sleeps", "A dog sleeps.", "A dog [now] sleeps"),
        # What follows a word that the reference lacks is no difference.
        ("An old dog sleeps.", "A dog sleeps.", "[An old] dog sleeps."),
        ("sleeps a dog", "a dog sleeps", "[sleeps] a dog"),
        ("Katze", "A dog sleeps.", "[Katze]"),
        ("", "A dog sleeps.", ""),
        ("我爱狗", "我爱猫", "我爱[狗]"),
        ("a b", "", "[a b]"),
    ],
)
def test_words_that_the_reference_lacks(hypothesis: str, reference: str, shown: str) -> None:
    assert told(marked(hypothesis, reference)) == shown


@given(st.text(alphabet="ab .,\n", max_size=12), st.text(alphabet="ab .,\n", max_size=12))
def test_pieces_are_the_hypothesis(hypothesis: str, reference: str) -> None:
    pieces = marked(hypothesis, reference)
    assert "".join(piece.text for piece in pieces) == hypothesis
    assert all(piece.text for piece in pieces)
    assert [piece.text for piece in pieces if not piece.is_in_reference and piece.text.strip() != piece.text] == []


def test_drawn_by_the_seed_alone_in_order() -> None:
    references = [f"reference {row}" for row in range(50)]
    tables = {"a": table(references, references), "b": table(references, ["x"] * 50)}
    once, again, other = (drawn_samples(tables, seed=seed, count=6) for seed in (1, 1, 2))
    assert once == again != other
    rows = [sentence.id // 10 for sentence in once]
    assert rows == sorted(set(rows))
    assert len(rows) == 6
    for row, sentence in zip(rows, once, strict=True):
        assert (sentence.source, sentence.reference) == (f"Satz {row}", f"reference {row}")
        assert sentence.hypotheses == {"a": f"reference {row}", "b": "x"}
        assert (sentence.chrf["a"], sentence.chrf["b"]) == (100, 0)
    assert len(drawn_samples(tables, seed=1, count=99)) == 50


def test_those_that_differ_most_stand_first() -> None:
    references = ["the dog sleeps"] * 5
    ours = ["the dog sleeps", "the dog sleeps", "zzz", "the dog", "qqq"]
    theirs = ["the dog sleeps", "the dog sleep", "the dog sleeps", "the dog", "zzz"]
    found = differing_samples({"a": table(references, ours), "b": table(references, theirs)}, seed=1)
    # Equal ones are left out, and so are those that are equally bad.
    assert [sentence.id for sentence in found] == [20, 10]
    assert found[0].spread == 100


def test_of_a_large_test_set_so_many_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "MOST_SCORED", 7)
    references = [f"reference {row}" for row in range(40)]
    tables = {"a": table(references, references), "b": table(references, ["x"] * 40)}
    assert len(differing_samples(tables, seed=3, count=30)) == 7
