from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bertkd_ray.evaluation.buckets import BucketScores
from bertkd_ray.evaluation.significance import PairedTestResult, sentence_counts
from bertkd_ray.report.buckets import (
    bucket_json,
    bucket_panels,
    bucket_table,
    bucket_tables,
    token_frequencies,
)
from bertkd_ray.report.frame import draw_panels
from tests.helpers.hand_made_corpus import write_corpus_artifact
from tests.report.test_figures import check

SCORES = [
    BucketScores(1, 1, 1200, {"control": 30.0, "hot": 31.0}, {"hot": PairedTestResult(1.0, 0.04, (0.1, 1.9))}),
    BucketScores(2, 1500, 1201, {"control": 20.0, "hot": 19.5}, {"hot": PairedTestResult(-0.5, None, (-1.0, 0.2))}),
]
TABLES = {"source_length": SCORES, "reference_frequency": SCORES[1:]}


def test_a_table_has_a_line_a_bucket() -> None:
    assert bucket_table("source_length", TABLES) == [
        ["source tokens", "sentences", "control", "Δ hot", "95%", "p"],
        ["1", "1,200", "30.00", "+1.00", "+0.10 … +1.90", "0.040"],
        ["2–1,500", "1,201", "20.00", "-0.50", "-1.00 … +0.20", "–"],
    ]
    assert bucket_table("reference_frequency", TABLES)[0][0] == "mean training frequency"


def test_json_has_the_numbers_whole() -> None:
    (_, second), (only,) = bucket_json(TABLES).values()
    assert second == only
    assert second == {
        "low": 2,
        "high": 1500,
        "sentences": 1201,
        "bleu": {"control": 20.0, "hot": 19.5},
        "differences": {"hot": {"delta": -0.5, "p_value": None, "interval": (-1.0, 0.2)}},
    }


def test_the_figure_has_a_panel_a_table_and_a_bar_an_interval(tmp_path: Path) -> None:
    panels = bucket_panels(TABLES)
    check(draw_panels(panels, tmp_path / "b"), "By source length", "By frequency of the reference's tokens", "hot")
    assert panels[0].summary == "hot: +1.00 at 1, -0.50 at 2–1,500"

    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    panels[0].draw(axes)
    (container,) = axes.containers
    data_line, _, (bars,) = container.lines
    assert list(data_line.get_ydata()) == [1.0, -0.5]
    ends = [sorted(segment[:, 1]) for segment in bars.get_segments()]
    assert np.ravel(ends) == pytest.approx([0.1, 1.9, -1.0, 0.2])


def test_frequencies_are_of_the_target_side_of_the_training_text(tmp_path: Path) -> None:
    train = [("a", ["▁a"] * 5, "b", ["▁b", "▁b", "##c"])] * 6
    corpus = write_corpus_artifact(tmp_path, train=train)
    corpus.info["vocabulary"] = 20
    counts = token_frequencies(corpus)
    assert len(counts) == 20
    assert sorted(counts[counts > 0]) == [6, 12]
    # Of row groups of two pairs every third is read, which stand for all.
    assert sorted(sampled := token_frequencies(corpus, most=2)) == sorted(counts)
    assert sampled.tolist() == counts.tolist()


def test_sentences_are_found_by_their_ids(tmp_path: Path) -> None:
    test = [("a", ["▁a"] * (1 + row), "b", ["▁b"]) for row in range(12)]
    corpus = write_corpus_artifact(tmp_path, test=test)
    corpus.info["vocabulary"] = 20
    # The other way round, so that the longest sources stand first.
    translations = pa.table({"id": [10 * row for row in reversed(range(12))]})
    references = ["a b c d e f"] * 12
    hypotheses = [*["a b c d e f"] * 6, *["a b c d e"] * 6]
    counts = {
        "control": [sentence_counts(references, references)],
        "hot": [sentence_counts(hypotheses, references)],
    }
    tables = bucket_tables(corpus, translations, counts, "control", samples=10)
    short, long = tables["source_length"]
    assert [(of.low, of.high) for of in (short, long)] == [(1, 6), (7, 12)]
    assert short.differences["hot"].delta < -10
    assert long.differences["hot"].delta == 0
    # All references are of the same token.
    assert [of.sentences for of in tables["reference_frequency"]] == [12]


def test_too_few_sentences_make_no_table(tmp_path: Path) -> None:
    corpus = write_corpus_artifact(tmp_path)
    corpus.info["vocabulary"] = 20
    counts = {"control": [np.zeros((2, 10), np.int64)], "hot": [np.zeros((2, 10), np.int64)]}
    assert bucket_tables(corpus, pa.table({"id": [10, 0]}), counts, "control", samples=10) == {}
