"""The estimated shape of a corpus, against its text."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertkd_ray.config.corpus import CorpusConfig
from bertkd_ray.core.errors import UserError
from bertkd_ray.corpus import sampling
from bertkd_ray.corpus.sampling import count_lines, shape_as_given, shape_of_text
from tests.helpers.small_config import write_corpus, write_small_bert

FILES = {split: {"src": f"{split}.de.gz", "tgt": f"{split}.en.gz"} for split in ("train", "valid", "test")}


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    """A corpus of 244 training pairs, two of which cannot be trained on, and a BERT."""
    directory = tmp_path_factory.mktemp("text")
    splits = write_corpus(directory)
    write_small_bert(directory / "bert", splits)
    rows = [{"src": src, "tgt": tgt} for src, tgt in splits["train"]]
    for part in range(2):
        pq.write_table(pa.Table.from_pylist(rows[part::2]), directory / f"part-{part}.parquet")
    return directory


def estimated(directory: Path, **settings: object):
    config = {"directory": str(directory), "max_side_tokens": 100, **FILES, **settings}
    return shape_of_text(CorpusConfig.model_validate(config), str(directory / "bert"))


def test_pairs_that_cannot_be_trained_on_are_taken_off(directory):
    found = estimated(directory)
    # An empty source, and a word of 10,000 letters.
    assert found.splits["train"].pairs == 242
    assert len(found.splits["train"].src) == 242
    assert (found.splits["valid"].pairs, found.splits["test"].pairs) == (24, 20)
    assert found.basis == "an estimate, from 243 of 244 training pairs"
    assert found.vocabulary % 8 == 0


def test_rules_and_shares_and_weights(directory):
    short = estimated(directory, clean={"max_words": 7}).splits["train"]
    lines = [
        gzip.decompress((directory / f"train.{side}.gz").read_bytes()).decode().splitlines() for side in ("de", "en")
    ]
    kept = [pair for pair in zip(*lines, strict=True) if all(0 < len(text.split()) <= 7 for text in pair)]
    assert short.pairs == len(kept) - 1  # the long word is one word
    held = estimated(directory, valid={"held_out": 0.25}).splits
    assert (held["train"].pairs, held["valid"].pairs, held["test"].pairs) == (182, 60, 20)
    twice = estimated(directory, train=[{**FILES["train"], "weight": 2.5}, FILES["valid"]]).splits["train"]
    assert twice.pairs == pytest.approx(2.5 * 242 + 24, abs=2)


def test_a_long_source_is_looked_at_in_front_and_counted(directory, monkeypatch):
    monkeypatch.setattr(sampling, "MAX_PAIRS_READ", 100)
    whole = estimated(directory)
    assert "of 244 training pairs" in whole.basis
    monkeypatch.setattr(sampling, "SAMPLE_PAIRS", dict.fromkeys(sampling.SAMPLE_PAIRS, 120))
    parquet = estimated(directory, source="mixed", train={"parquet": "part-*.parquet"})
    assert parquet.basis == "an estimate, from 120 of 244 training pairs"
    assert parquet.splits["train"].pairs == 244


def test_the_vocabulary_of_a_text_is_more_than_that_of_its_sample(directory, monkeypatch):
    whole = estimated(directory).vocabulary
    monkeypatch.setattr(sampling, "SAMPLE_PAIRS", dict.fromkeys(sampling.SAMPLE_PAIRS, 60))
    assert estimated(directory).vocabulary == pytest.approx(whole, rel=0.25)


def test_an_empty_split_and_one_of_which_nothing_is_left(directory):
    with pytest.raises(UserError, match=r"^corpus\.train: no pair of the \d+ looked at is left"):
        estimated(directory, clean={"min_words": 500})
    (directory / "none.txt").touch()
    with pytest.raises(UserError, match=r"none\.txt: the file is empty"):
        estimated(directory, train={"src": "none.txt", "tgt": "none.txt"})


def test_lines_are_counted_or_worked_out_from_the_size(tmp_path, monkeypatch):
    file, packed = tmp_path / "a.txt", tmp_path / "a.txt.gz"
    file.write_bytes(b"0123456\n" * 1000 + b"end")
    packed.write_bytes(gzip.compress(file.read_bytes()))
    (tmp_path / "empty.txt").touch()
    assert count_lines(str(file)) == count_lines(str(packed)) == (1001, True)
    assert count_lines(str(tmp_path / "empty.txt")) == (0, True)
    monkeypatch.setattr(sampling, "_READ_BYTES", 800)
    monkeypatch.setattr(sampling, "_COUNTED_BYTES", 1600)
    assert count_lines(str(file)) == (1000, False)
    assert count_lines(str(packed)) == (1001, True)  # what a compressed file holds, its size does not tell


def test_given_lengths_have_the_given_means_and_the_spread_of_talks():
    train = shape_as_given(1_000_000, 27, 25, 40_000, 5_000).splits["train"]
    assert train.pairs == 1_000_000
    assert train.src.mean() == pytest.approx(27, rel=0.01)
    assert train.tgt.mean() == pytest.approx(25, rel=0.01)
    size = (np.log(train.src) + np.log(train.tgt)) / 2
    ratio = np.log(train.src) - np.log(train.tgt)
    assert size.std() == pytest.approx(0.65, abs=0.02)
    assert ratio.std() == pytest.approx(0.26, abs=0.02)
