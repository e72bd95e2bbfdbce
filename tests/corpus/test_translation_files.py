"""Translation files as sources: their keys, lists and mixtures, and what enters the fingerprint."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bertkd_ray.config.corpus import CorpusConfig, MonolingualFiles, SplitFiles
from bertkd_ray.corpus.sources import read_sources, source_hashes, source_settings
from tests.corpus.test_sources import corpus
from tests.helpers.raw_pairs import raw_pairs
from tests.helpers.translation_files import WRITERS, write_tmx, write_xliff

PAIRS = [("Ein Hund & eine <Katze>.", "A dog\u2028and a cat."), ("Zwei Hunde.", "Ünïcode 😀")]


@pytest.mark.parametrize("form", sorted(WRITERS))
def test_lists_and_mixtures_and_weights(tmp_path: Path, form: str) -> None:
    files = WRITERS[form](tmp_path / "a", PAIRS)
    config = corpus(tmp_path, [{**files, "weight": 2}, {"tsv": "other.tsv"}])
    assert raw_pairs(config, "train") == [*PAIRS, ("a", "b")]
    assert config.sources("train")[0].form == form
    same = dict.fromkeys(("train", "valid", "test"), files)
    assert CorpusConfig.model_validate(same).source == form


def test_tmx_enters_by_its_content_tags_and_variants(tmp_path: Path) -> None:
    path = write_tmx(tmp_path / "a.tmx", PAIRS, tgt="en-GB")
    (tmp_path / "b").write_bytes(gzip.compress(path.read_bytes()))

    def print_of(**keys: Any) -> str:
        config = corpus(tmp_path, {"tmx": "a.tmx", **keys})
        return json.dumps([source_hashes(config), source_settings(config)], sort_keys=True)

    one = print_of()
    assert one == print_of(tmx="b") == print_of(src_column="deu") == print_of(variants="all")
    assert len({one, print_of(tgt_column="en-GB"), print_of(variants="first")}) == 3
    assert print_of(tgt_column="en_gb") == print_of(tgt_column="en-GB")


def test_approved_targets_are_another_corpus(tmp_path: Path) -> None:
    write_xliff(tmp_path / "a.xlf", PAIRS)
    every, approved = (corpus(tmp_path, {"xliff": "a.xlf", "approved": given}) for given in (False, True))
    assert source_settings(every) != source_settings(approved)
    assert raw_pairs(every, "train") == PAIRS
    left_out: Counter[str] = Counter()
    assert [table for tables in read_sources(approved, "train", left_out) for table in tables] == []
    assert left_out == {"not_approved": 2}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"tmx": "a", "src": "b", "tgt": "c"},
            "or one of tsv, jsonl, parquet, tmx, moses_zip, ",
        ),
        ({"tmx": "a", "tsv": "b"}, "give both src and tgt, or one of"),
        ({"tmx": "a", "src_column": 1}, "src_column: the columns of tmx have names, got 1"),
        ({"tmx": "a", "src_column": "Deutsch"}, "src_column: the columns of tmx are tags of languages, as en-GB, got"),
        ({"tmx": "a", "src_column": "en", "tgt_column": "en"}, "are the same, 'en'; name both sides"),
        ({"tmx": "a", "approved": True}, "approved belongs to xliff; remove it, or name an XLIFF file"),
        ({"tsv": "a", "variants": "first"}, "variants belongs to tmx; remove it, or name a TMX file"),
        ({"tmx": "a", "variants": "last"}, "Input should be 'all' or 'first'"),
    ],
)
def test_keys_that_do_not_fit(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SplitFiles.model_validate(keys)


def test_two_tags_of_one_language_and_monolingual_keys() -> None:
    files = {"tmx": "a", "tgt_column": "de-AT"}
    with pytest.raises(ValueError, match=r"corpus\.train: de and de-AT are one language; name tags in src_column"):
        CorpusConfig.model_validate({"train": files, "valid": files, "test": files})
    assert MonolingualFiles(tmx="a").columns("de", "en") == ("de", "de")
    with pytest.raises(ValueError, match="give one of src, tsv, jsonl, parquet, tmx"):
        MonolingualFiles.model_validate({"tmx": "a", "tsv": "b"})
