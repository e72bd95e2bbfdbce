from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bertkd_ray.corpus.inspect import CorpusFigures, corpus_figures
from bertkd_ray.report.corpus import corpus_text
from tests.helpers.hand_made_corpus import TRAIN, write_corpus_artifact


@pytest.fixture
def figures(tmp_path: Path) -> CorpusFigures:
    counts = {"train": {"read": 5, "empty": 2, "side_too_long": 0, "normalised": 1}, "valid": {"empty": 0}}
    corpus = write_corpus_artifact(tmp_path, counts=counts, config={"src_lang": "he", "tgt_lang": "en"})
    return replace(corpus_figures(corpus, seed=3), path="store/corpus", fingerprint="0" * 16)


def test_the_whole_page(figures: CorpusFigures) -> None:
    assert corpus_text(figures).splitlines() == [
        "0000000000000000  store/corpus",
        "vocabulary  14 tokens",
        "BERT lacks  1 of them, 8.33% of train, and sees [UNK]: \u2068▁שלום\u2069",
        "",
        "types by occurrences in train  0  1  2  3-10  11-100  101-1000  over 1000",
        "─────────────────────────────  ─  ─  ─  ────  ──────  ────────  ─────────",
        "vocabulary                     5  2  1     2       0         0          0",
        "",
        "                              train     valid      test",
        "────────────────────────────  ─────  ────────  ────────",
        "pairs                             3         1         2",
        "read                              5         1         2",
        "dropped                           2         0         0",
        "  empty                           2         0         –",
        "normalised                        1         –         –",
        "with an empty side                0         0         1",
        "source, he",
        "  tokens                          7         1         3",
        "  words                           5         1         3",
        "  tokens a word                1.40      1.00      1.00",
        "  characters a token           1.71      1.00      1.67",
        "  length, mean                  2.3       1.0       1.5",
        "  length, median                  2         1         0",
        "  length, 95%                     4         1         3",
        "  length, longest                 4         1         3",
        "  unknown                     0.00%     0.00%     0.00%",
        "target, en",
        "  tokens                          5         2         3",
        "  words                           4         2         3",
        "  tokens a word                1.25      1.00      1.00",
        "  characters a token           1.20      1.50      1.33",
        "  length, mean                  1.7       2.0       1.5",
        "  length, median                  2         2         1",
        "  length, 95%                     2         2         2",
        "  length, longest                 2         2         2",
        "  unknown                     0.00%  ! 50.00%  ! 66.67%",
        "source tokens a target token",
        "  1%                           0.50      0.50      1.50",
        "  5%                           0.50      0.50      1.50",
        "  median                       1.00      0.50      1.50",
        "  95%                          4.00      0.50      1.50",
        "  99%                          4.00      0.50      1.50",
        "",
        "! valid: 1 of 2 target tokens are unknown. Characters that train lacks: x ×1",
        "! test: 2 of 3 target tokens are unknown. Characters that train lacks: ž ×2",
        "",
        "3 pairs of train, drawn by --seed 3",
        "",
        "id 0",
        "  source  ab a.",
        "          ▁a ##b ▁a .",
        "  target  b",
        "          ▁b",
        "",
        "id 10",
        "  source  a",
        "          ▁a",
        "  target  ab",
        "          ▁a ##b",
        "",
        "id 20",
        "  source  \u2068שלום a\u2069",
        "          \u2068▁שלום\u2069 ▁a",
        "  target  b b",
        "          ▁b ▁b",
    ]


def test_a_quiet_corpus_has_no_warnings(tmp_path: Path) -> None:
    text = corpus_text(corpus_figures(write_corpus_artifact(tmp_path, valid=TRAIN, test=TRAIN), seed=1))
    assert "!" not in text
    assert "with an empty side" not in text


def test_long_sentences_are_wrapped_behind_their_label(tmp_path: Path) -> None:
    long = ("a " * 150).strip(), ["▁a"] * 150, "b", ["▁b"]
    text = corpus_text(corpus_figures(write_corpus_artifact(tmp_path, train=[long]), seed=1))
    lines = text[text.index("id 0") :].splitlines()
    assert max(map(len, lines)) <= 100
    assert all(line.startswith(" " * 10) or line.startswith(("  source  ", "  target  ", "id")) for line in lines)
    assert sum(line.count("▁a") for line in lines) == 150


def test_characters_that_cannot_stand_alone_are_shown_by_number(tmp_path: Path) -> None:
    odd = ("a\u200d e\u0301x א", ["▁a", "<unk>", "<unk>"], "b", ["▁b"])
    text = corpus_text(corpus_figures(write_corpus_artifact(tmp_path, test=[odd]), seed=1))
    assert "Characters that train lacks: U+200D ×1  e ×1  U+0301 ×1  x ×1  \u2068א\u2069 ×1" in text


@pytest.mark.parametrize(("unknown", "shown"), [(0, "0.00%"), (1, "! <0.01%"), (50, "! 0.01%"), (12_345, "! 1.23%")])
def test_a_small_rate_is_not_shown_as_none(figures: CorpusFigures, unknown: int, shown: str) -> None:
    test = figures.splits["test"]
    changed = replace(test, tgt=replace(test.tgt, tokens=1_000_000, unknown=unknown, unknown_rate=unknown / 1e6))
    text = corpus_text(replace(figures, splits={**figures.splits, "test": changed}))
    row = [line for line in text.splitlines() if line.startswith("  unknown")][1]
    assert row.endswith(f"  {shown}")
