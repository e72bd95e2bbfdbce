"""The figures of a corpus, counted by hand on a small one, and by numpy on a larger one."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from bertkd_ray.artifacts.artifact import PendingArtifact
from bertkd_ray.artifacts.manifest import MANIFEST
from bertkd_ray.artifacts.store import Store, store_above
from bertkd_ray.core.errors import UserError
from bertkd_ray.corpus import inspect
from bertkd_ray.corpus.inspect import LengthCounts, corpus_figures, open_corpus
from tests.helpers.hand_made_corpus import Pair, write_corpus_artifact


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    counts = {"train": {"read": 8, "empty": 2, "side_too_long": 3, "pair_too_long": 0, "normalised": 4}}
    return write_corpus_artifact(tmp_path_factory.mktemp("store"), counts=counts, config={"src_lang": "he"})


@pytest.fixture(scope="module")
def figures(corpus):
    return corpus_figures(corpus, seed=1)


def test_train_counted_by_hand(figures):
    assert figures.as_json()["splits"]["train"] == {
        "pairs": 3,
        "read": 8,
        "dropped": {"empty": 2, "side_too_long": 3, "pair_too_long": 0},
        "counted": {"normalised": 4},
        "with_empty_side": 0,
        "src": {
            "tokens": 7,
            "words": 5,
            "tokens_per_word": 7 / 5,
            "characters_per_token": 12 / 7,
            "length": {"mean": 7 / 3, "median": 2, "p95": 4, "max": 4},
            "unknown": 0,
            "unknown_rate": 0,
        },
        "tgt": {
            "tokens": 5,
            "words": 4,
            "tokens_per_word": 5 / 4,
            "characters_per_token": 6 / 5,
            "length": {"mean": 5 / 3, "median": 2, "p95": 2, "max": 2},
            "unknown": 0,
            "unknown_rate": 0,
        },
        "ratio": {"p1": 0.5, "p5": 0.5, "median": 1, "p95": 4, "p99": 4},
        "unknown_characters": {},
    }


def test_unknown_tokens_and_the_characters_behind_them(figures):
    valid, test = figures.splits["valid"], figures.splits["test"]
    assert (valid.src.unknown, valid.tgt.unknown, valid.unknown_characters) == (0, 1, {"x": 1})
    assert (test.tgt.unknown, test.unknown_characters) == (2, {"ž": 2})
    assert test.tgt.unknown_rate == 2 / 3


def test_an_empty_side_has_a_length_but_no_ratio(figures):
    test = figures.splits["test"]
    assert test.with_empty_side == 1
    assert (test.src.tokens, test.src.words) == (3, 3)
    assert test.src.length == {"mean": 1.5, "median": 0, "p95": 3, "max": 3}
    assert set(test.ratio.values()) == {1.5}


def test_a_side_without_any_token(tmp_path):
    figures = corpus_figures(write_corpus_artifact(tmp_path, test=[("", [], "b", ["▁b"])]), seed=1)
    test = figures.as_json()["splits"]["test"]
    assert (test["src"]["tokens_per_word"], test["src"]["unknown_rate"], test["ratio"]) == (None, None, {})
    assert "test/src/unknown_rate" not in figures.metrics()
    assert figures.metrics()["test/tgt/unknown_rate"] == 0


def test_the_vocabulary_and_what_bert_lacks(figures):
    # 4 special tokens; ▁a ##b ▁b . ▁שלום; the letters that are not among these: . ו ל ם ש
    assert figures.as_json()["vocabulary"] == {
        "tokens": 14,
        "without_piece": 1,
        "without_piece_rate": 1 / 12,
        "examples": ["▁שלום"],
        # ▁a five times, ▁b three, ##b twice, . and ▁שלום once; the letters by themselves never.
        "types": {"0": 5, "1": 2, "2": 1, "3-10": 2, "11-100": 0, "101-1000": 0, "over_1000": 0},
        "untrimmed": {},
    }
    assert figures.languages == {"src": "he"}


def test_metrics_are_the_numbers_of_the_json(figures):
    metrics = figures.metrics()
    assert metrics["vocabulary/tokens"] == 14
    assert metrics["train/dropped/side_too_long"] == 3
    assert metrics["valid/tgt/unknown_rate"] == 0.5
    assert metrics["train/src/length/p95"] == 4
    assert all(type(value) in (int, float) for value in metrics.values())
    assert json.loads(json.dumps(figures.as_json())) == figures.as_json()


def many(count: int) -> list[Pair]:
    lengths = np.random.default_rng(0).integers(1, 30, (count, 2))
    return [(" ".join("a" * n), ["▁a"] * n, " ".join("b" * m), ["▁b"] * m) for n, m in lengths.tolist()]


def test_row_group_by_row_group_is_all_at_once(tmp_path):
    pairs = many(41)
    split = corpus_figures(write_corpus_artifact(tmp_path, train=pairs), seed=1).splits["train"]
    src, tgt = (np.array([len(pair[side]) for pair in pairs]) for side in (1, 3))
    assert split.lengths.pairs.sum() == 41
    assert split.lengths.histogram("src").tolist() == np.bincount(src).tolist()
    assert split.lengths.histogram("tgt").tolist() == np.bincount(tgt).tolist()
    assert list(split.ratio.values()) == pytest.approx(
        np.quantile(src / tgt, [0.01, 0.05, 0.5, 0.95, 0.99], method="inverted_cdf")
    )
    assert split.src.length["p95"] == np.quantile(src, 0.95, method="inverted_cdf")
    assert split.src.length["median"] == np.quantile(src, 0.5, method="inverted_cdf")


def test_equal_length_pairs_are_kept_once(tmp_path):
    split = corpus_figures(write_corpus_artifact(tmp_path, train=[("a", ["▁a"], "b", ["▁b"])] * 9), seed=1).splits[
        "train"
    ]
    assert [counts.tolist() for counts in (split.lengths.src, split.lengths.tgt, split.lengths.pairs)] == [
        [1],
        [1],
        [9],
    ]


def test_lengths_of_31_bits_do_not_touch_each_other():
    counts = LengthCounts.of(Counter([(3, 2**31), (3, 1)]))
    assert sorted(zip(counts.src.tolist(), counts.tgt.tolist(), strict=True)) == [(3, 1), (3, 2**31)]


def test_samples_are_training_pairs_with_their_tokens(tmp_path):
    pairs = many(41)
    corpus = write_corpus_artifact(tmp_path, train=pairs)
    samples = corpus_figures(corpus, seed=1).samples
    assert len({sample.id for sample in samples}) == 10
    assert [sample.id for sample in samples] == sorted(sample.id for sample in samples)
    for sample in samples:
        assert (sample.src, sample.src_tokens, sample.tgt, sample.tgt_tokens) == pairs[sample.id // 10]
    assert corpus_figures(corpus, seed=1).samples == samples
    assert corpus_figures(corpus, seed=2).samples != samples


def test_a_corpus_of_fewer_pairs_is_shown_whole(figures):
    assert [sample.id for sample in figures.samples] == [0, 10, 20]
    assert figures.samples[2].src_tokens == ["▁שלום", "▁a"]


def test_every_place_is_drawn_equally_often():
    hits = np.bincount(np.concatenate([inspect._draw(20, 5, seed) for seed in range(400)]), minlength=20)
    # 100 expected; a standard deviation is under 9.
    assert hits.min() > 60
    assert hits.max() < 140


def test_ratios_leave_out_empty_sides():
    lengths = LengthCounts(np.array([0, 2, 4]), np.array([3, 0, 2]), np.array([1, 2, 5]))
    ratios, pairs = lengths.ratios()
    assert (ratios.tolist(), pairs.tolist(), lengths.with_empty_side) == ([2.0], [5], 3)


def test_a_corpus_is_opened_by_path_or_uri(corpus, tmp_path, monkeypatch):
    assert open_corpus(corpus.uri) == corpus
    assert open_corpus(f"file://{corpus.uri}/") == corpus
    monkeypatch.chdir(corpus.uri)
    assert open_corpus(".").fingerprint == corpus.fingerprint


def test_what_is_no_sound_corpus_is_told_in_one_line(tmp_path):
    corpus = write_corpus_artifact(tmp_path)
    store, name = corpus.store, corpus.directory
    teacher = PendingArtifact(store, "teacher", "0" * 16, {}, {})
    store.write(b"x", teacher.directory, "a.txt")
    teacher.commit(made=["a.txt"], metrics={}, info={})

    def said(path: str) -> str:
        with pytest.raises(UserError) as caught:
            open_corpus(path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert (
        said("/no/such")
        == "/no/such: no finished corpus is here; give a CONFIG.yaml or the directory of a corpus artifact"
    )
    assert said(str(tmp_path)) == f"{tmp_path}: no finished corpus is here; give one of {tmp_path.name}/{name}"
    assert said(f"{tmp_path}/{teacher.directory}").endswith(
        "is a teacher, not a corpus; give the directory of a corpus artifact"
    )
    part = f"{name}/valid/fragment-000000.parquet"
    data = store.read(part)
    store.write(data[:-1] + bytes([data[-1] ^ 1]), part)
    assert said(corpus.uri).startswith(
        f"{part}: its content differs from the manifest's checksum; copy the corpus again"
    )
    store.write(b"not json", name, MANIFEST)
    assert "not JSON" in said(corpus.uri)


def test_a_remote_store_is_the_one_above(tmp_path):
    store, name = store_above(f"file://{tmp_path}/store/corpus-0/")
    assert (store.root, name) == (Store(f"{tmp_path}/store").root, "corpus-0")
