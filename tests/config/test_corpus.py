"""The configuration of the corpus: what is inferred, paths, columns, held-out shares."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from bertkd_ray.config.corpus import SPLITS, CorpusConfig, SplitFiles
from bertkd_ray.core.errors import UserError
from tests.config.conftest import DEMO, FILES, TEXT


@pytest.mark.parametrize(
    ("corpus", "source"),
    [
        (dict.fromkeys(SPLITS, FILES), "text"),
        ({split: {"tsv": "x"} for split in SPLITS}, "tsv"),
        ({split: {"dataset": "x"} for split in SPLITS}, "datasets"),
        ({"train": [{"jsonl": "x"}], "valid": {"held_out": 0.1}, "test": {"jsonl": "y"}}, "jsonl"),
        ({"train": [FILES, {"parquet": "x"}], "valid": FILES, "test": FILES}, "mixed"),
        ({"train": {"tsv": "x"}, "valid": FILES, "test": FILES}, "mixed"),
        ({"archive": "x.tgz"}, "iwslt14"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_source_is_inferred(load, corpus, source):
    tree = {**DEMO, "corpus": corpus}
    assert load(tree).corpus.source == source
    for given in (source, "null"):
        assert load(tree, f"corpus.source={given}").corpus == load(tree).corpus


def test_paths_of_a_split_are_relative_to_the_directory(load):
    files = {"src": "/abs/x.de", "tgt": "x.en"}
    config = load({**DEMO, "corpus": {**TEXT, "directory": "s3://bucket/d/", "train": files}})
    (train,) = config.corpus.sources("train")
    assert train.paths() == [("src", "/abs/x.de"), ("tgt", "s3://bucket/d/x.en")]
    (test,) = load({**DEMO, "corpus": TEXT}).corpus.sources("test")
    assert test.paths() == [("src", "a.de"), ("tgt", "a.en")]
    assert load(DEMO).corpus.sources("train") == []


def test_one_source_or_several_on_the_command_line(load):
    tree = {**DEMO, "corpus": TEXT}
    assert load(tree, "corpus.train.src=b.de", "corpus.train.weight=2").corpus.sources("train")[0].src == "b.de"
    several = load(tree, "corpus.train=[{src: a, tgt: b}, {src: c, tgt: d, weight: 0.5}]").corpus.sources("train")
    assert [(files.src, files.weight) for files in several] == [("a", 1.0), ("c", 0.5)]
    with pytest.raises(UserError, match=r"corpus\.train\.src: corpus\.train is a value, not a section"):
        load({**DEMO, "corpus": {**TEXT, "train": [FILES]}}, "corpus.train.src=x")
    # Arms are made from the dumped configuration.
    assert load({**DEMO, "corpus": {**TEXT, "train": [FILES]}}).arm_configs()["control"].corpus.train == [
        SplitFiles(**FILES)
    ]


def test_held_out_splits_have_no_sources(load):
    corpus = load({**DEMO, "corpus": {**TEXT, "valid": {"held_out": 0.02}}}).corpus
    assert corpus.held_out() == {"valid": 0.02}
    assert corpus.sources("valid") == []


def test_default_columns_are_those_of_the_form(load):
    forms = {"tsv": "x", "jsonl": "x", "parquet": "x", "dataset": "x"}
    columns = {form: SplitFiles.model_validate({form: path}).columns("de", "zh") for form, path in forms.items()}
    assert columns == {
        "tsv": (0, 1),
        "jsonl": ("src", "tgt"),
        "parquet": ("src", "tgt"),
        "dataset": ("translation.de", "translation.zh"),
    }
    assert SplitFiles(jsonl="x", tgt_column="en").columns("de", "zh") == ("src", "en")


def test_a_dataset_keeps_the_codes_of_its_columns():
    files = {"src": "a", "tgt": "b"}
    corpus = CorpusConfig(train=files, valid=files, test=files, src_lang="zho", tgt_lang="eng")  # type: ignore[arg-type]
    assert corpus.languages() == {"src_lang": "zh", "tgt_lang": "en"}
    columns = SplitFiles(dataset="x").columns(corpus.src_lang, corpus.tgt_lang)
    assert columns == ("translation.zho", "translation.eng")


def test_the_embedded_corpus_has_its_own_languages():
    assert CorpusConfig(source="demo", src_lang="deu").languages() == {"src_lang": "de", "tgt_lang": "en"}
    with pytest.raises(ValidationError, match="source: demo is German to English; remove src_lang and tgt_lang"):
        CorpusConfig(source="demo", src_lang="en", tgt_lang="de")


def test_one_column_is_not_both_sides():
    with pytest.raises(ValidationError, match="src_column and tgt_column are the same, 1; name both sides"):
        SplitFiles(tsv="x", src_column=1, tgt_column=1)
    with pytest.raises(ValidationError, match="src_column and tgt_column are the same, 1; name both sides"):
        SplitFiles(tsv="x", src_column=1)  # beside the default of the other side
