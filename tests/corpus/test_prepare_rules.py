"""Prepare where it chooses among pairs: cleaning, duplicates across chunks, held-out splits, weights, and going on."""

from __future__ import annotations

import gzip
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config
from bertkd_ray.core.errors import UserError
from bertkd_ray.corpus import deduplication, prepare
from bertkd_ray.corpus.bert_tokenizer import tokenizer_hash
from bertkd_ray.corpus.cleaning import copies, held_out_splits
from bertkd_ray.corpus.moses import unescape_moses
from bertkd_ray.corpus.passes import TOKENIZER
from bertkd_ray.corpus.segmentation import normalise
from bertkd_ray.corpus.tokenizer import decode, load_tokenizer
from bertkd_ray.execution.stage import StageContext
from tests.helpers.local_project import InProcessRuntime
from tests.helpers.shared_files import data_path
from tests.helpers.small_config import write_corpus, write_small_bert

Pair = tuple[str, str]


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> str:
    directory = tmp_path_factory.mktemp("bert")
    return str(write_small_bert(directory / "bert", write_corpus(directory / "text")))


class OutOfOrder(InProcessRuntime):
    """Workers that take the work in another order, and some of it twice, as after a lost worker."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._draw = random.Random(seed)

    def map(self, items: Sequence[Any], worker: Any, job: Any) -> Any:
        order = self._draw.sample(items, len(items))
        for item in order[::3]:
            worker(item, job)
        return super().map(order, worker, job)


class DriverKilledError(Exception):
    """Stands for the end of the driver."""


class DiesAt(InProcessRuntime):
    """A run that ends before the given pass, or after some of its items."""

    def __init__(self, worker: str, items: int) -> None:
        super().__init__()
        self._worker, self._items = worker, items

    def map(self, items: Sequence[Any], worker: Any, job: Any) -> Any:
        if worker.__name__ != self._worker:
            yield from super().map(items, worker, job)
            return
        yield from super().map(items[: self._items], worker, job)
        raise DriverKilledError


class Files:
    """Text in TSV files of a directory, and the corpora made of it."""

    def __init__(self, directory: Path, bert: str) -> None:
        self.directory, self.bert = directory, bert
        self.write("valid", [("Gilt das?", "Is it valid?")])
        self.write("test", [("Ein Test.", "A test."), ("Noch ein Test.", "Another test.")])

    def write(self, name: str, pairs: list[Pair]) -> dict[str, Any]:
        (self.directory / f"{name}.tsv").write_text("".join(f"{src}\t{tgt}\n" for src, tgt in pairs))
        return {"tsv": f"{name}.tsv"}

    def config(self, train: Any, **changes: Any) -> Config:
        corpus = {
            "source": "tsv",
            "directory": str(self.directory),
            "train": train,
            "valid": {"tsv": "valid.tsv"},
            "test": {"tsv": "test.tsv"},
            "fragment_pairs": 8,
            "group_pairs": 4,
            **changes,
        }
        return Config.model_validate({"name": "t", "corpus": corpus})

    def make(self, train: Any, *, runtime: Any = None, store: str = "store", **changes: Any) -> Artifact:
        config = self.config(train, **changes)
        work = prepare.pending_artifact(
            config, Store(str(self.directory / store)), {"bert_tokenizer": tokenizer_hash(self.bert)}
        )
        return prepare.make(work, StageContext(config, runtime or InProcessRuntime(), {}, self.bert))


@pytest.fixture
def files(tmp_path, bert) -> Files:
    return Files(tmp_path, bert)


def rows(corpus: Artifact, split: str) -> list[dict[str, Any]]:
    table = pa.concat_tables([pq.read_table(corpus.path(entry.path)) for entry in corpus.files_below(f"{split}/")])
    return sorted(table.to_pylist(), key=lambda row: row["id"])


def pairs(corpus: Artifact, split: str) -> list[Pair]:
    return [(row["src"], row["tgt"]) for row in rows(corpus, split)]


MIXED: list[Pair] = [
    ("Ein Hund läuft.", "A dog runs."),
    ("Ein Hund läuft.", "A dog is running."),
    ("  Ein Hund\u2028läuft. ", "A dog runs."),  # the first, once normalised
    ("EIN TEST.", "An unlike test."),
    ("Same here", "Same here"),
    ("kurz", "short"),
    ("eins zwei drei vier fünf sechs", "one"),
    ("", "empty"),
    ("cafe\u0301 im Wald", "a cafe\u0301 in\x07 the forest"),
    ("Ein Hund läuft.", "A dog runs."),
]


def test_every_rule_is_counted_and_nothing_else_is_dropped(files):
    filler = [(f"Satz Nummer {n} hier", f"sentence number {n} here") for n in range(20)]
    rules = {
        "duplicates": True,
        "test_overlap": True,
        "identical_sides": True,
        "min_words": 2,
        "max_ratio": 3,
        "max_words": 9,
    }
    corpus = files.make(files.write("train", MIXED + filler + MIXED[:2] + [("a " * 10, "b " * 10)]), clean=rules)
    kept = [MIXED[0], MIXED[1], ("café im Wald", "a café in the forest"), *filler]
    assert pairs(corpus, "train") == kept
    assert [row["id"] for row in rows(corpus, "train")] == [0, 1, 8, *range(10, 30)]
    counts = corpus.info["splits"]["train"]
    tokens = {f"{side}_{name}" for side in ("src", "tgt") for name in ("tokens", "unknown")}
    assert {name: count for name, count in counts.items() if name not in tokens} == {
        "read": 33,
        "pairs": 23,
        "empty": 1,
        "identical_sides": 1,
        "too_few_words": 2,
        "too_many_words": 1,
        "length_ratio": 0,
        "test_overlap": 1,
        "duplicate": 4,
        "side_too_long": 0,
        "pair_too_long": 0,
        "not_nfc": 2,
        "control_characters": 1,
        "zero_width": 0,
        "invisible": 0,
    }
    assert corpus.metrics["train/dropped"] == 10
    assert pairs(corpus, "test") == [("Ein Test.", "A test."), ("Noch ein Test.", "Another test.")]


def test_nothing_is_dropped_by_default_but_what_cannot_be_used(files):
    corpus = files.make(files.write("train", MIXED))
    assert len(pairs(corpus, "train")) == 9
    dropped = {"empty": 1, "side_too_long": 0, "pair_too_long": 0, "test_overlap": 0, "duplicate": 0}
    assert {name: corpus.info["splits"]["train"][name] for name in dropped} == dropped
    assert "duplicate" not in corpus.info["splits"]["test"]


def test_words_of_dropped_pairs_are_no_tokens(files):
    odd = [("Ωμέγα Ωμέγα", "Ωμέγα Ωμέγα"), ("Noch ein Test.", "Ж Ж Ж")]
    train = files.write("train", [*MIXED[:2], *odd])
    clean = {"identical_sides": True, "test_overlap": True}
    tokens = pq.read_table(files.make(train, clean=clean).path(TOKENIZER, "bert_ids.parquet"))["token"].to_pylist()
    assert not {"▁Ω", "▁Ж"} & {token[:2] for token in tokens}
    tokens = pq.read_table(files.make(train).path(TOKENIZER, "bert_ids.parquet"))["token"].to_pylist()
    assert {"▁Ω", "▁Ж"} <= {token[:2] for token in tokens}


def many(count: int, seed: int = 0) -> list[Pair]:
    """Pairs of few words, so that many are equal and many sentences are too."""
    draw = random.Random(seed)
    animals, places = ("Hund", "Kater", "Vogel", "Esel"), ("hier", "dort", "daheim")
    numbers = [(draw.randrange(12), draw.randrange(4), draw.randrange(3), draw.randrange(3)) for _ in range(count)]
    return [(f"{n} {animals[a]} {places[p]}", f"{n} {animals[a]} {places[q]}") for n, a, p, q in numbers]


@pytest.mark.parametrize("bucket_hashes", [1 << 20, 50])
def test_duplicates_across_chunks_and_sources_are_found_whatever_the_buckets(files, monkeypatch, bucket_hashes):
    monkeypatch.setattr(deduplication, "BUCKET_HASHES", bucket_hashes)
    first, second = many(100), many(120, seed=1)
    files.write("test", second[:10])
    train = [files.write("a", first), files.write("b", second)]
    corpus = files.make(train, clean={"duplicates": True, "test_overlap": True})
    of_test = {src.casefold() for src, _ in second[:10]}
    seen: set[Pair] = set()
    expected = [
        pair
        for pair in first + second
        if pair[0].casefold() not in of_test and not (pair in seen or seen.add(pair))  # type: ignore[func-returns-value]
    ]
    assert pairs(corpus, "train") == expected
    counts = corpus.info["splits"]["train"]
    overlaps = sum(src.casefold() in of_test for src, _ in first + second)
    assert (counts["test_overlap"], counts["duplicate"]) == (overlaps, 220 - overlaps - len(expected))
    assert pairs(corpus, "test") == second[:10]


def test_the_files_do_not_depend_on_who_does_the_work(files):
    train = [files.write("a", many(100)), {**files.write("b", many(90, seed=1)), "weight": 1.5}]
    changes = {"clean": {"duplicates": True, "test_overlap": True}, "valid": {"held_out": 0.1}}
    made = [
        files.make(train, runtime=runtime, store=f"store{number}", **changes)
        for number, runtime in enumerate((InProcessRuntime(), OutOfOrder(1), OutOfOrder(2)))
    ]
    assert made[0].files == made[1].files == made[2].files
    assert made[0].info == made[1].info == made[2].info


def test_neighbouring_chunks_share_a_fragment_when_much_was_dropped(files):
    alike = [("Ein Hund", "A dog")] * 6
    train = [pair for n in range(5) for pair in [*alike, (f"Hund {n}", f"dog {n}"), (f"Katze {n}", f"cat {n}")]]
    corpus = files.make(files.write("train", train), clean={"duplicates": True})
    assert {entry.path: entry.row_groups for entry in corpus.files_below("train/")} == {
        "train/fragment-000000.parquet": [4, 3],
        "train/fragment-000001.parquet": [4],
    }


def test_equal_sentences_never_straddle_a_held_out_split(files):
    text = many(200)
    shouted = [(src.upper(), tgt) for src, tgt in text[:50]]
    changes = {"valid": {"held_out": 0.2}, "test": {"held_out": 0.1}}
    corpus = files.make([files.write("a", text), files.write("b", shouted)], **changes)
    sides = {split: {src.casefold() for src, _ in pairs(corpus, split)} for split in ("train", "valid", "test")}
    assert sum(map(len, sides.values())) == len(set.union(*sides.values()))
    everything = Counter(pair for split in sides for pair in pairs(corpus, split))
    assert everything == Counter(text + shouted)
    chosen = held_out_splits([src for src, _ in text], {"valid": 0.2, "test": 0.1})
    assert [row["id"] for row in rows(corpus, "valid") if row["id"] < 200] == np.flatnonzero(chosen == 1).tolist()
    assert [row["id"] for row in rows(corpus, "test") if row["id"] < 200] == np.flatnonzero(chosen == 2).tolist()
    reads = {split: counts["read"] for split, counts in corpus.info["splits"].items()}
    assert reads == {split: len(pairs(corpus, split)) for split in reads}
    # Fragments are as full as those of train.
    assert all(entry.rows > 2 for entry in corpus.files_below("valid/")[:-1])


def test_held_out_pairs_are_cleaned_as_those_of_train(files):
    text = [*many(200), *[(f"gleich {n}", f"gleich {n}") for n in range(100)]]
    changes = {"valid": {"held_out": 0.2}, "test": {"held_out": 0.2}, "clean": {"identical_sides": True}}
    corpus = files.make(files.write("train", text), **changes)
    assert all(
        src != tgt for split in ("train", "valid", "test") for src, tgt in pairs(corpus, split) if "gleich" in src
    )
    dropped = {split: counts["identical_sides"] for split, counts in corpus.info["splits"].items()}
    same = sum(src == tgt for src, tgt in text)
    assert sum(dropped.values()) == same
    assert min(dropped.values()) > 0


def test_a_share_that_takes_nothing_is_told(files):
    with pytest.raises(
        UserError, match=r"^corpus\.valid: no pair is left \(held_out: 1e-06 took none of train, raise it"
    ):
        files.make(files.write("train", many(5)), valid={"held_out": 1e-6})


def test_weights_repeat_pairs_with_ids_of_their_own(files):
    train = [
        {**files.write("a", [(f"a {n}", "x") for n in range(40)]), "weight": 2.5},
        files.write("b", [(f"b {n}", "y") for n in range(10)]),
        {**files.write("c", [(f"c {n}", "z") for n in range(40)]), "weight": 0.25},
    ]
    corpus = files.make(train)
    found = Counter(src for src, _ in pairs(corpus, "train"))
    for source, (letter, size) in enumerate((("a", 40), ("b", 10), ("c", 40))):
        times = copies((source << 40) + np.arange(size), [2.5, 1.0, 0.25])
        assert [found[f"{letter} {n}"] for n in range(size)] == times.tolist()
    ids = [row["id"] for row in rows(corpus, "train")]
    assert len(ids) == len(set(ids))
    for row in rows(corpus, "train"):
        source, line = row["id"] >> 40 & 0xFFFF, row["id"] & ((1 << 40) - 1)
        assert row["src"] == f"{'abc'[source]} {line}"
    counts = corpus.info["splits"]["train"]
    assert counts["pairs"] == sum(found.values()) == counts["read"] + counts["repeated"] - counts["sampled_out"]
    # Repetitions stand in fragments of their own, far from the pair itself.
    for entry in corpus.files_below("train/"):
        table = pq.read_table(corpus.path(entry.path))
        assert len(set(table["src"].to_pylist())) == len(table)


def test_ids_stay_when_another_source_is_added_or_weighted(files):
    a, b = files.write("a", many(20)), files.write("b", many(20, seed=1))
    alone = {row["id"]: row["src"] for row in rows(files.make(a), "train")}
    both = {row["id"]: row["src"] for row in rows(files.make([a, {**b, "weight": 3}]), "train")}
    assert alone.items() <= both.items()


def test_moses_text_is_unescaped_and_its_form_recorded(files):
    train = files.write("train", [("it &apos;s R &amp; D", "well @-@ known"), ("&lt;b&gt;", "x")])
    corpus = files.make(train, text="moses", tgt_lang="fr")
    assert pairs(corpus, "train") == [("it 's R & D", "well - known"), ("<b>", "x")]
    recorded = {key: corpus.info[key] for key in ("text", "src_lang", "tgt_lang")}
    assert recorded == {"text": "moses", "src_lang": "de", "tgt_lang": "fr"}
    assert pairs(files.make(train), "train")[0] == ("it &apos;s R &amp; D", "well @-@ known")


@pytest.mark.parametrize(
    ("function", "items"),
    [("clean_group", 1), ("find_duplicates_in_bucket", 0), ("apply_drops", 2), ("encode_group", 3)],
)
def test_a_killed_run_leaves_nothing_finished_and_the_next_one_the_same_files(files, tmp_path, function, items):
    train = [{**files.write("a", many(60)), "weight": 1.5}, files.write("b", many(30, seed=1))]
    changes = {"clean": {"duplicates": True}, "valid": {"held_out": 0.2}}
    with pytest.raises(DriverKilledError):
        files.make(train, runtime=DiesAt(function, items), **changes)
    store = Store(str(tmp_path / "store"))
    assert not [name for name, _ in store.files() if name.endswith("manifest.json")]
    config = files.config(train, **changes)
    work = prepare.pending_artifact(config, store, {"bert_tokenizer": tokenizer_hash(files.bert)})
    assert work.resumed
    before = dict(store.files(work.directory))
    again = prepare.make(work, StageContext(config, InProcessRuntime(), {}, files.bert))
    whole = files.make(train, store="other", **changes)
    assert again.files == whole.files
    assert again.info == whole.info
    assert store.files("work") == []
    if function == "encode_group":
        assert sum(name.startswith("train/") for name in before) >= 3


def test_finished_fragments_are_not_made_again(files, tmp_path, monkeypatch):
    train = files.write("train", many(60))
    with pytest.raises(DriverKilledError):
        files.make(train, runtime=DiesAt("encode_group", 3))
    encoded = []
    inner = prepare.passes.encode_group.__globals__
    real = inner["_encoded"]
    monkeypatch.setitem(inner, "_encoded", lambda *arguments: encoded.append(arguments[2]) or real(*arguments))
    corpus = files.make(train)
    assert len(corpus.files_below("train/")) == 8
    expected = [*[("train", number) for number in range(3, 8)], ("valid", 0), ("test", 0)]
    assert [fragment.name for fragment in encoded] == [f"{split}/fragment-{n:06d}.parquet" for split, n in expected]


def test_real_text_is_cleaned_as_a_set_of_texts_would(files, bert):
    """The small IWSLT14 setting: seven pairs of valid also stand in train_sample."""
    whole = {
        name: {side: str(data_path(f"iwslt14/{name}.{lang}.gz")) for side, lang in (("src", "de"), ("tgt", "en"))}
        for name in ("train_sample", "valid", "test")
    }
    changes = {"source": "text", "text": "moses", "directory": None, "fragment_pairs": 1024, "group_pairs": 1024}
    corpus = files.make(
        [whole["train_sample"], whole["valid"]],
        **changes,
        valid={"held_out": 0.05},
        test=whole["test"],
        clean={"duplicates": True, "test_overlap": True},
        max_side_tokens=5000,
        max_pair_tokens=10_000,
    )
    found = {split: pairs(corpus, split) for split in ("train", "valid", "test")}
    texts = [pair for name in ("train_sample", "valid") for pair in real_pairs(whole[name])]
    of_test = {src.casefold() for src, _ in real_pairs(whole["test"])}
    own = [pair for pair in texts if pair[0].casefold() not in of_test]
    assert found["train"] + found["valid"] != own
    assert Counter(found["train"] + found["valid"]) == Counter(dict.fromkeys(own, 1))
    assert found["test"] == real_pairs(whole["test"])
    counts = {
        name: sum(corpus.info["splits"][split][name] for split in ("train", "valid"))
        for name in ("read", "test_overlap", "duplicate", "empty", "side_too_long")
    }
    assert counts == {
        "read": 4600 + 7283,
        "test_overlap": len(texts) - len(own),
        "duplicate": len(own) - len(set(own)),
        "empty": 0,
        "side_too_long": 0,
    }
    assert counts["duplicate"] > 0
    sentences = {split: {src.casefold() for src, _ in found[split]} for split in found}
    assert not sentences["train"] & sentences["valid"]
    assert not sentences["train"] & sentences["test"]


def real_pairs(files: dict[str, str]) -> list[Pair]:
    """The pairs of Moses-tokenised files as they are expected in the corpus."""
    sides = [gzip.decompress(Path(files[side]).read_bytes()).decode().split("\n")[:-1] for side in ("src", "tgt")]
    src, tgt = ([normalise(unescape_moses(line)) for line in lines] for lines in sides)
    return list(zip(src, tgt, strict=True))


def test_text_that_changes_between_its_hash_and_its_reading_is_refused(files):
    """A copy that still goes on would give an artifact under the wrong fingerprint, cached for ever."""
    config = files.config(files.write("train", many(20)))
    store = Store(str(files.directory / "store"))
    work = prepare.pending_artifact(config, store, {"bert_tokenizer": tokenizer_hash(files.bert)})
    files.write("train", many(30))
    with pytest.raises(
        UserError, match=r"^corpus\.train\.tsv: the text changed while it was read; run the command again"
    ):
        prepare.make(work, StageContext(config, InProcessRuntime(), {}, files.bert))
    assert not store.exists(work.directory, "manifest.json")


def test_a_tokenizer_that_changes_between_its_hash_and_its_reading_is_refused(files, tmp_path):
    bert = Path(shutil.copytree(files.bert, tmp_path / "copied"))
    config = files.config(files.write("train", many(20)))
    store = Store(str(files.directory / "store"))
    work = prepare.pending_artifact(config, store, {"bert_tokenizer": tokenizer_hash(bert)})
    with (bert / "vocab.txt").open("a") as vocabulary:
        vocabulary.write("more\n")
    with pytest.raises(UserError, match=r"^teacher\.model: its tokenizer changed while it was read"):
        prepare.make(work, StageContext(config, InProcessRuntime(), {}, str(bert)))


def test_each_side_is_lower_cased_as_its_language_is(files):
    train = files.write("train", [("IĞDIR ILE", "IN"), *many(20)])
    languages = {"src_lang": "tur", "tgt_lang": "en", "lowercase": True}
    corpus = files.make(train, **languages)
    assert pairs(corpus, "train")[0] == ("ığdır ıle", "in")
    tokenizer = load_tokenizer(corpus.path(TOKENIZER))
    assert decode(tokenizer, [tokenizer.encode("IĞDIR").ids]) == ["ığdır"]
    plain = files.make(train, **{**languages, "src_lang": "de"})
    assert pairs(plain, "train")[0] == ("iğdir ile", "in")
    assert plain.config.keys() ^ corpus.config.keys() == {"dotted_i"}
