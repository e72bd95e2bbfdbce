"""Source and target in each other's place."""

from __future__ import annotations

import pyarrow as pa
import pytest

from bertkd_ray.config.corpus import CorpusConfig
from bertkd_ray.corpus.swapped_sides import repeated_text, swapped_names, swapped_splits
from tools.demo_corpus import demo_corpus


def table(pairs: list[tuple[str, str]]) -> pa.Table:
    return pa.table({"src": [pair[0] for pair in pairs], "tgt": [pair[1] for pair in pairs]})


def turned(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(tgt, src) for src, tgt in pairs]


PAIRS = demo_corpus(seed=5, train=200, valid=30, test=3)
SAMPLES = {split: table(pairs) for split, pairs in PAIRS.items()}


@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_split_the_other_way_round_is_told(split):
    (told,) = swapped_splits({**SAMPLES, split: table(turned(PAIRS[split]))})
    assert (
        told == f"corpus.{split}: its source reads like the target of train, and its target like the source; swap them"
    )


@pytest.mark.parametrize(
    "samples",
    [
        SAMPLES,
        {split: table(turned(pairs)) for split, pairs in PAIRS.items()},  # nothing tells what is what
        {split: table([(src, src) for src, _ in pairs]) for split, pairs in PAIRS.items()},
        {split: table([("", "a"), ("b", "")]) for split in PAIRS},
        {"train": SAMPLES["train"], "valid": table([("zzz", "qqq")]), "test": SAMPLES["test"]},
        {"train": SAMPLES["train"]},
        {"valid": SAMPLES["valid"]},
        # Both sides of a split in one language: not swapped, whatever it is.
        {**SAMPLES, "valid": table([(tgt, tgt) for _, tgt in PAIRS["valid"]])},
    ],
)
def test_what_is_not_told(samples):
    assert list(swapped_splits(samples)) == []


def test_the_same_text_twice_is_told():
    assert list(repeated_text(SAMPLES)) == []
    # The valid source is on both its sides, and the test set's source is train's, under another name perhaps.
    samples = {**SAMPLES, "valid": table([(src, src) for src, _ in PAIRS["valid"]]), "test": SAMPLES["train"]}
    assert list(repeated_text(samples)) == [
        "corpus.train.src and corpus.test.src begin with the same lines; give each text of its own",
        "corpus.valid.src and corpus.valid.tgt begin with the same lines; give each text of its own",
    ]
    # A file's first lines, held out by hand and left in train, too.
    first = {**SAMPLES, "valid": SAMPLES["train"][:20], "test": table([("a", "b"), *PAIRS["train"]])}
    assert list(repeated_text(first)) == [
        "corpus.train.src and corpus.valid.src begin with the same lines; give each text of its own"
    ]
    assert list(repeated_text({**SAMPLES, "valid": SAMPLES["valid"][:0]})) == []


def corpus(src: str, tgt: str, **keys: str) -> CorpusConfig:
    files = {"src": src, "tgt": tgt}
    return CorpusConfig.model_validate({"train": files, "valid": {"held_out": 0.1}, "test": files, **keys})


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst", "?region=x"])
def test_names_of_the_other_side_are_told(suffix):
    src, tgt = f"s3://b/train.en{suffix}", f"s3://b/train.de{suffix}"
    told = list(swapped_names(corpus(src, tgt)))
    assert [line.partition(":")[0] for line in told] == ["corpus.train", "corpus.test"]
    assert told[0] == (
        f"corpus.train: {src} is the source, in de, and {tgt} the target, in en; "
        "swap the files, or src_lang and tgt_lang"
    )


def test_names_of_three_letters_are_the_same_languages():
    assert len(list(swapped_names(corpus("train.eng", "train.de", src_lang="ger")))) == 2


def test_other_names_tell_nothing():
    for src, tgt in (("a.de", "a.en"), ("a.txt", "b.txt"), ("de", "en"), ("a.en", "a.fr"), ("x.en", "x.en")):
        assert list(swapped_names(corpus(src, tgt))) == []
    assert list(swapped_names(corpus("a.en", "a.de", src_lang="en", tgt_lang="de"))) == []
    assert list(swapped_names(CorpusConfig(source="demo"))) == []


def test_one_language_on_both_sides_is_not_swapped():
    """As in simplification."""
    files = {"src": "complex.en", "tgt": "simple.en"}
    corpus = CorpusConfig(source="text", train=files, valid=files, test=files, src_lang="en", tgt_lang="en")
    assert list(swapped_names(corpus)) == []
