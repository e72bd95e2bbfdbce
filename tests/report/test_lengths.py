from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bertkd_ray.corpus.inspect import LengthCounts
from bertkd_ray.report import lengths
from bertkd_ray.report.lengths import draw_lengths, length_panels, read_lengths
from tests.helpers.hand_made_corpus import write_corpus_artifact
from tests.report.test_figures import check


def counts(*rows: tuple[int, int, int]) -> LengthCounts:
    src, tgt, pairs = np.array(rows, np.int64).reshape(-1, 3).T
    return LengthCounts(src, tgt, pairs)


def spread(pairs: int, seed: int) -> LengthCounts:
    random = np.random.default_rng(seed)
    src = random.geometric(0.06, pairs) + 2
    return LengthCounts(
        src, np.maximum(src * random.uniform(0.4, 1.2, pairs), 1).astype(np.int64), np.ones(pairs, np.int64)
    )


@pytest.fixture
def drawn(monkeypatch) -> list[dict[str, list[float]]]:
    """What every panel's stairs show, by split: heights, in percent, and edges."""
    seen: list[dict[str, list[float]]] = []
    draw = lengths._draw_stairs

    def spy(axes, names, shares, edges):
        seen.append(
            {**{name: share.tolist() for name, share in zip(names, shares, strict=True)}, "edges": edges.tolist()}
        )
        draw(axes, names, shares, edges)

    monkeypatch.setattr(lengths, "_draw_stairs", spy)
    return seen


def test_three_panels_of_three_splits(tmp_path: Path) -> None:
    splits = {
        name: spread(pairs, seed) for seed, (name, pairs) in enumerate([("train", 5000), ("valid", 300), ("test", 200)])
    }
    check(
        draw_lengths(splits, tmp_path / "lengths"),
        *splits,
        "Source length",
        "Target length",
        "Length ratio",
        "1/2",
        "2",
    )


def test_heights_are_percent_of_the_splits_pairs(tmp_path: Path, drawn) -> None:
    draw_lengths({"train": counts((1, 1, 3), (2, 1, 1)), "test": counts((3, 3, 2))}, tmp_path / "l")
    src, tgt, ratio = drawn
    assert src == {"train": [0, 75, 25, 0], "test": [0, 0, 0, 100], "edges": [0, 1, 2, 3, 4]}
    assert tgt == {"train": [0, 100, 0, 0], "test": [0, 0, 0, 100], "edges": [0, 1, 2, 3, 4]}
    # An octave of six bins, and one more, to each side of 1.
    assert ratio["train"] == [*[0] * 7, 75, *[0] * 5, 25, 0]
    assert ratio["test"] == [*[0] * 7, 100, *[0] * 7]
    assert ratio["edges"][7:9] == pytest.approx([2 ** (-1 / 12), 2 ** (1 / 12)])


def test_a_few_long_sentences_do_not_press_the_rest_flat(tmp_path: Path, drawn) -> None:
    draw_lengths({"train": counts((10, 10, 999), (10_000, 1, 1))}, tmp_path / "l")
    assert drawn[0]["edges"][-1] == 11
    assert drawn[0]["train"][10] == pytest.approx(99.9)
    assert drawn[2]["edges"][-1] < 2.5


def test_long_lengths_share_bins(tmp_path: Path, drawn) -> None:
    draw_lengths({"train": counts((100, 5, 1), (50, 5, 1))}, tmp_path / "l")
    assert np.unique(np.diff(drawn[0]["edges"])).tolist() == [3]
    assert sum(drawn[0]["train"]) == pytest.approx(100)
    assert sum(drawn[1]["train"]) == pytest.approx(100)


def test_a_split_without_a_source_is_drawn(tmp_path: Path, drawn) -> None:
    drawing = draw_lengths({"train": counts((0, 2, 5)), "test": counts((0, 1, 5))}, tmp_path / "l")
    check(drawing, "train", "test")
    assert set(drawn[2]["train"]) == {0}


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    once, again = (draw_lengths({"train": spread(100, 1)}, tmp_path / name) for name in "ab")
    assert (once.svg.read_bytes(), once.png.read_bytes()) == (again.svg.read_bytes(), again.png.read_bytes())


def test_ratios_far_apart_have_few_ticks(tmp_path: Path) -> None:
    drawing = draw_lengths({"train": counts((1, 150, 1), (2000, 1, 1))}, tmp_path / "l")
    check(drawing, "1/64", "1/8", "1", "512")
    assert "<!-- 2 -->" not in drawing.svg.read_text()


def test_lengths_of_a_split_are_read_from_the_artifact(tmp_path: Path) -> None:
    pair = ("a", ["▁a"], "b", ["▁b"])
    long = ("a a a", ["▁a"] * 3, "b b", ["▁b"] * 2)
    corpus = write_corpus_artifact(tmp_path / "store", train=[*[pair] * 6, *[long] * 3])
    found = read_lengths(corpus, "train")
    assert list(zip(found.src, found.tgt, found.pairs, strict=True)) == [(1, 1, 6), (3, 2, 3)]
    # Row groups of two in fragments of four: every third of the five groups is read.
    found = read_lengths(corpus, "train", most=4)
    assert list(zip(found.src, found.tgt, found.pairs, strict=True)) == [(1, 1, 2), (3, 2, 2)]


def test_panels_tell_their_medians() -> None:
    panels = length_panels({"train": counts((4, 2, 3), (9, 7, 1)), "test": counts((5, 6, 1))})
    assert [panel.summary for panel in panels[:2]] == [
        "train: median 4 tokens; test: median 5 tokens",
        "train: median 2 tokens; test: median 6 tokens",
    ]
