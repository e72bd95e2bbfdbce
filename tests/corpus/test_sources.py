"""Every form of text by its configuration: the same pairs, whatever they come in, and what enters the fingerprint."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertkd_ray.config.corpus import CorpusConfig
from bertkd_ray.core.errors import UserError
from bertkd_ray.corpus import sources
from bertkd_ray.corpus.sources import read_sources, source_hashes, source_settings
from tests.helpers.iwslt14_archive import write_small_archive
from tests.helpers.raw_pairs import raw_pairs
from tests.helpers.shared_files import data_path

PAIRS = [("Ein Hund.", "A dog."), ("Zwei Hunde.", "Two dogs."), ("", "Ünïcode 😀")]


def write_every_form(directory: Path, split: str = "train") -> dict[str, dict[str, Any]]:
    """The pairs in every form of files, with the keys of a source that read them."""
    rows = [{"id": n, "translation": {"de": s, "en": t}} for n, (s, t) in enumerate(PAIRS)]
    src, tgt = ("".join(f"{pair[side]}\n" for pair in PAIRS).encode() for side in (0, 1))
    (directory / f"{split}.de").write_bytes(src)
    (directory / f"{split}.en.gz").write_bytes(gzip.compress(tgt))
    (directory / f"{split}.en.zst").write_bytes(pa.compress(tgt, codec="zstd", asbytes=True))
    (directory / f"{split}.tsv").write_text("".join(f"{t}\tx\t{s}\n" for s, t in PAIRS))
    (directory / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), directory / f"{split}.parquet")
    columns = {"src_column": "translation.de", "tgt_column": "translation.en"}
    return {
        "text": {"src": f"{split}.de", "tgt": f"{split}.en.gz"},
        "zst": {"src": f"{split}.de", "tgt": f"{split}.en.zst"},
        "tsv": {"tsv": f"{split}.tsv", "src_column": 2, "tgt_column": 0},
        "jsonl": {"jsonl": f"{split}.jsonl", **columns},
        "parquet": {"parquet": f"{split}.par*", **columns},
    }


def corpus(directory: Path, train: Any, **changes: Any) -> CorpusConfig:
    other = {"tsv": "other.tsv"}
    (directory / "other.tsv").write_text("a\tb\n")
    tree = {"source": "mixed", "directory": str(directory), "train": train, "valid": other, "test": other}
    return CorpusConfig.model_validate({**tree, **changes})


@pytest.mark.parametrize("form", ["text", "zst", "tsv", "jsonl", "parquet"])
def test_every_form_gives_the_same_pairs(tmp_path, form):
    assert raw_pairs(corpus(tmp_path, write_every_form(tmp_path)[form]), "train") == PAIRS


def test_a_list_of_sources_is_read_in_its_order(tmp_path):
    forms = write_every_form(tmp_path)
    train = [{**forms["jsonl"], "weight": 2}, forms["tsv"], forms["text"]]
    config = corpus(tmp_path, train)
    assert raw_pairs(config, "train") == PAIRS * 3
    assert [sum(map(len, tables)) for tables in read_sources(config, "train")] == [3, 3, 3]
    assert raw_pairs(config, "valid") == [("a", "b")]
    assert source_settings(config)["weights"] == [2.0, 1.0, 1.0]


def test_a_dataset_is_read_in_the_direction_of_the_languages(tmp_path):
    pytest.importorskip("datasets")
    (tmp_path / "set").mkdir()
    for split in ("train", "validation", "test"):
        rows = (json.dumps({"translation": {"de": f"{split} {s}", "en": t}}) + "\n" for s, t in PAIRS)
        (tmp_path / "set" / f"{split}.jsonl").write_text("".join(rows))
    files = {"dataset": str(tmp_path / "set")}
    forth = CorpusConfig.model_validate({"source": "datasets", "train": files, "valid": files, "test": files})
    assert raw_pairs(forth, "valid") == [(f"validation {s}", t) for s, t in PAIRS]
    back = forth.model_copy(update={"src_lang": "en", "tgt_lang": "de"})
    assert raw_pairs(back, "train") == [(t, f"train {s}") for s, t in PAIRS]
    assert set(source_hashes(forth)) == {"train.dataset", "valid.dataset", "test.dataset"}
    assert source_settings(forth) != source_settings(back)


def test_the_archive_is_read_in_both_directions_and_texts(tmp_path):
    archive = write_small_archive(tmp_path)
    tree = {"source": "iwslt14", "archive": str(archive)}
    raw = raw_pairs(CorpusConfig.model_validate(tree), "test")
    back = raw_pairs(CorpusConfig.model_validate({**tree, "src_lang": "en", "tgt_lang": "de"}), "test")
    assert raw == [(src, tgt) for tgt, src in back] != []
    paper = raw_pairs(CorpusConfig.model_validate({**tree, "text": "paper"}), "test")
    assert len(paper) == len(raw)
    assert all(text == text.lower() for pair in paper for text in pair)


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_the_checksum_of_an_archive_that_lies_here_is_compared(tmp_path, scheme):
    archive = write_small_archive(tmp_path)
    tree = {"source": "iwslt14", "archive": f"{scheme}{archive}"}
    digest = hashlib.sha256(Path(archive).read_bytes()).hexdigest()
    right, wrong = (CorpusConfig.model_validate({**tree, "archive_sha256": sha}) for sha in (digest, "0" * 64))
    assert source_hashes(right) == source_hashes(CorpusConfig.model_validate(tree))
    for use in (source_hashes, lambda config: raw_pairs(config, "test")):
        with pytest.raises(UserError, match=f"has SHA-256 {digest}, not 0{{64}}; correct archive"):
            use(wrong)
    folder = CorpusConfig.model_validate({**tree, "archive": str(tmp_path), "archive_sha256": digest})
    with pytest.raises(UserError, match=f"^{tmp_path}: is a directory; name a file in it"):
        source_hashes(folder)


def test_an_archive_on_the_web_is_fetched_into_the_cache(tmp_path, monkeypatch):
    archive, asked = write_small_archive(tmp_path), []

    def fetch(url: str, directory: str, *, sha256: str | None) -> Path:
        asked.append((url, directory, sha256))
        return Path(archive)

    monkeypatch.setattr("bertkd_ray.corpus.download.fetch", fetch)
    tree = {"source": "iwslt14", "directory": "ignored", "cache": "here", "archive_sha256": "0" * 64}
    web = CorpusConfig.model_validate({**tree, "archive": "https://example.org/de-en.tgz"})
    local = CorpusConfig.model_validate({"source": "iwslt14", "archive": str(archive)})
    assert source_hashes(web) == source_hashes(local)
    assert asked == [("https://example.org/de-en.tgz", "here", "0" * 64)]


def test_what_enters_the_fingerprint(tmp_path):
    forms = write_every_form(tmp_path)

    def print_of(train: Any, **changes: Any) -> str:
        config = corpus(tmp_path, train, **changes)
        return json.dumps([source_hashes(config), source_settings(config)], sort_keys=True)

    one = print_of(forms["text"])
    others = [
        print_of(forms["tsv"]),
        print_of({**forms["tsv"], "src_column": 1}),
        print_of({**forms["text"], "weight": 2}),
        print_of([forms["text"], forms["text"]]),
        print_of(forms["text"], valid={"held_out": 0.1}),
        print_of(forms["text"], valid={"held_out": 0.2}),
    ]
    assert len({one, *others}) == 7
    held_out = [{split: {"held_out": 0.1} for split in splits} for splits in (["valid"], ["test"], ["valid", "test"])]
    orders = [source_settings(corpus(tmp_path, forms["text"], **changes)).get("held_out_first") for changes in held_out]
    assert orders == [None, None, "test"]
    # Not the compression, not the names, not that a list has one element.
    (tmp_path / "moved.zst").write_bytes(pa.compress((tmp_path / "train.de").read_bytes(), codec="zstd", asbytes=True))
    assert print_of({"src": "moved.zst", "tgt": "train.en.zst"}) == one
    assert print_of([forms["text"]]) == one


def test_sources_that_are_not_there_are_told(tmp_path):
    with pytest.raises(UserError, match=r"none\.jsonl: no such file"):
        source_hashes(corpus(tmp_path, {"jsonl": "none.jsonl"}))
    with pytest.raises(UserError, match=r"de-en\.tgz: no such"):
        source_hashes(CorpusConfig(source="iwslt14", archive=str(tmp_path / "de-en.tgz")))


def test_the_demo_corpus_is_read_when_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(sources, "demo_pairs", lambda: {"valid": PAIRS})
    assert raw_pairs(CorpusConfig(source="demo"), "valid") == PAIRS


@pytest.mark.parametrize(
    "files", [("multi30k/val.de.gz", "multi30k/val.en.gz"), ("iwslt14/valid.de.gz", "iwslt14/valid.en.gz")]
)
def test_real_text_is_the_same_in_every_form(tmp_path, files):
    src, tgt = (gzip.decompress(data_path(name).read_bytes()).decode().split("\n")[:-1] for name in files)
    pairs = list(zip(src, tgt, strict=True))
    pq.write_table(pa.table({"src": src, "tgt": tgt}), tmp_path / "a.parquet", row_group_size=1000)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"src": s, "tgt": t}) + "\n" for s, t in pairs))
    (tmp_path / "a.tsv").write_text("".join(f"{s}\t{t}\n" for s, t in pairs))
    whole = {key: str(data_path(name)) for key, name in zip(("src", "tgt"), files, strict=True)}
    for train in ({"parquet": "a.parquet"}, {"jsonl": "a.jsonl"}, {"tsv": "a.tsv"}, whole):
        assert raw_pairs(corpus(tmp_path, train), "train") == pairs
