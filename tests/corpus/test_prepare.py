"""Prepare without Ray: chunks, the tokenizer beside them, what is dropped, and a corpus that cannot be made."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config
from bertkd_ray.core.errors import UserError
from bertkd_ray.corpus import prepare, sources
from bertkd_ray.corpus.bert_tokenizer import load_bert_tokenizer
from bertkd_ray.corpus.passes import CORPUS_SCHEMA, TOKENIZER
from bertkd_ray.corpus.segmentation import Segmenter, normalise
from bertkd_ray.corpus.tokenizer import decode, load_bert_ids, load_tokenizer
from tests.corpus.berts import pieces_of_words
from tests.helpers.local_project import Project
from tests.helpers.raw_pairs import raw_pairs
from tests.helpers.small_config import ODD_PAIRS


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def corpus(project):
    return project.corpus()


def rows_of(corpus, split: str) -> list[dict]:
    return pq.read_table(corpus.path(split)).to_pylist()


def lines(project: Project, name: str) -> list[str]:
    path = project.directory / "text" / f"{name}.gz"
    return gzip.decompress(path.read_bytes()).decode().split("\n")[:-1]


def test_rows_have_the_schema_and_ids_are_line_numbers(project, corpus):
    for entry in corpus.files_below("train/"):
        assert pq.read_schema(corpus.path(entry.path)).equals(CORPUS_SCHEMA)
    src, tgt = lines(project, "train.de"), lines(project, "train.en")
    rows = rows_of(corpus, "train")
    # 244 lines; the word of 10,000 letters (242) and the empty source (243) are dropped.
    assert [row["id"] for row in rows] == list(range(242))
    assert all((row["src"], row["tgt"]) == (src[row["id"]], tgt[row["id"]]) for row in rows)


def test_fragments_and_row_groups_have_the_configured_sizes(corpus):
    groups = {entry.path: entry.row_groups for entry in corpus.files_below("train/")}
    assert groups == {
        "train/fragment-000000.parquet": [32, 32],
        "train/fragment-000001.parquet": [32, 32],
        "train/fragment-000002.parquet": [32, 32],
        "train/fragment-000003.parquet": [32, 18],
    }


def test_drops_are_counted_by_reason(corpus):
    splits = corpus.info["splits"]
    assert {key: splits["train"][key] for key in ("read", "pairs", "empty", "side_too_long", "pair_too_long")} == {
        "read": 244,
        "pairs": 242,
        "empty": 1,
        "side_too_long": 1,
        "pair_too_long": 0,
    }
    assert corpus.metrics["train/dropped"] == 2
    for side in ("src", "tgt"):
        tokens = sum(len(row[f"{side}_ids"]) for row in rows_of(corpus, "train"))
        assert corpus.metrics[f"train/{side}_tokens"] == tokens
        assert corpus.metrics[f"train/{side}_unknown"] == 0


def test_ids_decode_to_the_text_and_stand_for_berts_pieces(project, corpus):
    directory = Path(corpus.path(TOKENIZER))
    tokenizer, bert_ids = load_tokenizer(directory), load_bert_ids(directory)
    assert len(bert_ids) == corpus.info["vocabulary"]
    assert len(bert_ids) % 8 == 0
    segmenter = Segmenter(load_bert_tokenizer(project.bert))
    for row in rows_of(corpus, "train"):
        for side in ("src", "tgt"):
            assert decode(tokenizer, [row[f"{side}_ids"]]) == [row[side]]
            pieces = [piece for word in pieces_of_words(segmenter, row[side].split()) for piece in word]
            assert bert_ids[row[f"{side}_ids"]].tolist() == [piece.bert_id for piece in pieces]


def test_every_line_of_the_test_set_is_kept(tmp_path):
    project = Project(tmp_path)
    long, empty = ODD_PAIRS[2], ODD_PAIRS[3]
    for split in ("valid", "test"):
        for side, name in enumerate(("de", "en")):
            text = "".join(pair[side] + "\n" for pair in (long, empty, ODD_PAIRS[0]))
            (tmp_path / "text" / f"{split}.{name}.gz").write_bytes(gzip.compress(text.encode()))
    corpus = project.corpus()
    assert [row["id"] for row in rows_of(corpus, "test")] == [0, 1, 2]
    assert rows_of(corpus, "test")[1]["src_ids"] == []
    assert [row["id"] for row in rows_of(corpus, "valid")] == [2]
    assert corpus.metrics["test/dropped"] == 0
    assert corpus.metrics["valid/dropped"] == 2


def test_lower_casing_comes_first(project, corpus, tmp_path):
    lowered = project.variant(tmp_path, "corpus.lowercase=true").corpus()
    assert lowered.fingerprint != corpus.fingerprint
    assert [row["tgt"] for row in rows_of(lowered, "test")] == [
        normalise(row["tgt"], lowercase=True) for row in rows_of(corpus, "test")
    ]
    assert any(row["tgt"] != row["tgt"].lower() for row in rows_of(corpus, "test"))


def test_the_same_input_gives_the_same_files(project, corpus, tmp_path):
    again = project.variant(tmp_path).corpus()
    assert again.fingerprint == corpus.fingerprint
    assert again.files == corpus.files


def test_the_unfinished_work_is_gone(project, corpus):
    assert project.store.files("work") == []
    assert list(corpus.problems(checksums=True)) == []


def test_a_split_of_which_nothing_is_left(tmp_path):
    project = Project(tmp_path)
    for name in ("de", "en"):
        (tmp_path / "text" / f"valid.{name}.gz").write_bytes(gzip.compress(b"\n\n"))
    with pytest.raises(UserError, match=r"^corpus\.valid: no pair is left \(2 empty\)"):
        project.corpus()


def test_files_of_differing_length_are_named(tmp_path):
    project = Project(tmp_path)
    (tmp_path / "text" / "valid.en.gz").write_bytes(gzip.compress(b"one line\n"))
    with pytest.raises(UserError, match=r"valid\.de\.gz has 24 lines and .*valid\.en\.gz has 1;"):
        project.corpus()


def test_splits_are_read_from_every_kind_of_source(tmp_path):
    (tmp_path / "a.tsv").write_text("x\tein\tone\ny\tzwei\ttwo\n")
    split = {"tsv": str(tmp_path / "a.tsv"), "src_column": 1, "tgt_column": 2}
    config = Config.model_validate(
        {"name": "t", "corpus": {"source": "tsv", "train": split, "valid": split, "test": split}}
    )
    assert raw_pairs(config.corpus, "train") == [("ein", "one"), ("zwei", "two")]
    # The columns are part of the fingerprint: the same file read otherwise is another corpus.
    other = config.model_copy(
        update={
            "corpus": config.corpus.model_copy(update={"test": config.corpus.test.model_copy(update={"tgt_column": 0})})
        }
    )
    store, inputs = Store(str(tmp_path)), {"bert_tokenizer": "bert"}
    prints = {prepare.pending_artifact(one, store, inputs).fingerprint for one in (config, other)}
    assert len(prints) == 2


def test_counts_of_words_are_those_of_the_whole_split(project, tmp_path):
    """Cutting the text into other chunks changes the fragments, not the tokenizer."""
    whole = project.variant(tmp_path, "corpus.fragment_pairs=1000").corpus()
    assert len(whole.files_below("train/")) == 1
    assert whole.files_below(TOKENIZER) == project.corpus().files_below(TOKENIZER)
    assert [entry.path for entry in whole.files_below(f"{TOKENIZER}/tokenizer.json")] == [f"{TOKENIZER}/tokenizer.json"]


def test_the_demo_corpus_enters_by_its_text(monkeypatch, tmp_path):
    config = Config.model_validate({"name": "demo", "corpus": {"source": "demo"}})
    pairs = {"train": [("a", "b")], "valid": [("c", "d")], "test": [("e", "f")]}
    monkeypatch.setattr(sources, "demo_pairs", lambda: pairs)
    assert raw_pairs(config.corpus, "valid") == [("c", "d")]
    store, inputs = Store(str(tmp_path)), {"bert_tokenizer": "bert"}
    before = prepare.pending_artifact(config, store, inputs)
    assert set(before.inputs) == {"bert_tokenizer", "demo"}
    pairs["test"] = [("e", "g")]
    assert prepare.pending_artifact(config, store, inputs).fingerprint != before.fingerprint


def test_the_manifest_is_plain_json(corpus):
    manifest = json.loads(corpus.store.read(corpus.directory, "manifest.json"))
    assert manifest["stage"] == "corpus"
    assert manifest["metrics"]["train/pairs"] == 242
    assert np.isfinite(list(manifest["metrics"].values())).all()
