"""Sentence pairs from Parquet files and from data sets of the `datasets` library."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertkd_ray.core.errors import UserError
from bertkd_ray.corpus import columnar
from bertkd_ray.corpus.columnar import dataset_hash, parquet_hash, read_dataset, read_parquet
from bertkd_ray.corpus.readers import MAX_LINE_BYTES
from tests.corpus.test_readers import error_message, pairs_of

ROWS = [
    {"id": number, "src": f"s{number}", "tgt": f"t{number}", "translation": {"de": f"d{number}", "en": f"e{number}"}}
    for number in range(5)
]
PAIRS = [("s0", "t0"), ("s1", "t1"), ("s2", "t2"), ("s3", "t3"), ("s4", "t4")]


def write(path: Path, rows: list[dict[str, Any]] | pa.Table, **options: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows), path, **options)
    return str(path)


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_file_a_directory_and_a_pattern(tmp_path: Path, scheme: str) -> None:
    first = write(tmp_path / "b" / "part-0.parquet", ROWS[:3], row_group_size=2)
    write(tmp_path / "b" / "more" / "part-1.parquet", ROWS[3:])
    write(tmp_path / "b" / "_temporary" / "part-2.parquet", ROWS)
    (tmp_path / "b" / "_SUCCESS").write_text("")
    (tmp_path / "b" / "README.md").write_text("no data")
    assert pairs_of(read_parquet(scheme + first)) == PAIRS[:3]
    # In the order of the names: `more/…` stands before `part-0`.
    assert pairs_of(read_parquet(f"{scheme}{tmp_path}/b")) == PAIRS[3:] + PAIRS[:3]
    assert pairs_of(read_parquet(f"{scheme}{tmp_path}/b/part-*.parquet")) == PAIRS[:3]
    assert pairs_of(read_parquet(f"{scheme}{tmp_path}/*/mo*/part-*")) == PAIRS[3:]
    assert error_message(read_parquet(f"{scheme}{tmp_path}/*/x-*")).endswith(
        "no Parquet file is here; correct the path or the pattern"
    )


def test_of_a_pattern_only_the_star_means_others(tmp_path: Path) -> None:
    for number, name in enumerate(("p[1]-0.parquet", "p1-0.parquet", "p?-0.parquet")):
        write(tmp_path / name, ROWS[number : number + 1])
    assert pairs_of(read_parquet(f"{tmp_path}/p[1]-*.parquet")) == PAIRS[:1]
    assert pairs_of(read_parquet(f"{tmp_path}/p?-*.parquet")) == PAIRS[2:3]


def test_a_pattern_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.parquet", ROWS)
    monkeypatch.chdir(tmp_path)
    assert pairs_of(read_parquet("*.parquet")) == pairs_of(read_parquet("a.parquet")) == PAIRS


def test_columns_in_structs_and_types_of_text(tmp_path: Path) -> None:
    assert pairs_of(read_parquet(write(tmp_path / "a", ROWS), "translation.de", "tgt"))[0] == ("d0", "t0")
    large = pa.table({"src": pa.array(["ü"], pa.large_string()), "tgt": pa.array(["b"]).dictionary_encode()})
    assert pairs_of(read_parquet(write(tmp_path / "b", large))) == [("ü", "b")]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (("de", "tgt"), "no column de, only id, src, tgt, translation; name a column of text"),
        (("src", "translation.fr"), "no column fr in translation, only de, en; name a column of text"),
        (("src.x", "tgt"), "no column x in src, which is of type string; name a column of text"),
        (("id", "tgt"), "column id is of type int64, not text; name a text column"),
        (("src", "translation"), "column translation is of type struct"),
    ],
)
def test_columns_that_are_not_there_or_not_text(tmp_path: Path, columns: tuple[str, str], said: str) -> None:
    path = write(tmp_path / "a.parquet", ROWS)
    assert error_message(read_parquet(path, *columns)).startswith(f"{path}: {said}")


@pytest.mark.parametrize("at", [0, 4999])
def test_a_null_is_named_by_its_row(tmp_path: Path, at: int) -> None:
    path = write(tmp_path / "a", [{"src": None if row == at else "x", "tgt": {"en": "y"}} for row in range(5000)])
    assert error_message(read_parquet(path, "src", "tgt.en")).startswith(
        f"{path}: row {at + 1}: column src is null; remove"
    )
    path = write(tmp_path / "b", [{"src": "x", "tgt": None if row == at else {"en": "y"}} for row in range(5000)])
    assert error_message(read_parquet(path, "src", "tgt.en")).startswith(f"{path}: row {at + 1}: column tgt.en is null")


def test_what_is_no_parquet_file(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.parquet")
    assert error_message(read_parquet(missing)).startswith(f"{missing}: no such file")
    text = tmp_path / "text.parquet"
    text.write_text("no table\n" * 10)
    assert error_message(read_parquet(str(text))).startswith(f"{text}: damaged, or no Parquet file (")
    whole = Path(
        write(tmp_path / "whole.parquet", [{"src": "x" * 50, "tgt": str(n)} for n in range(2000)])
    ).read_bytes()
    text.write_bytes(whole[: len(whole) // 2])
    assert error_message(read_parquet(str(text))).startswith(f"{text}: damaged, or no Parquet file (")
    assert "nosuchscheme://a/b: cannot be read" in error_message(read_parquet("nosuchscheme://a/b"))


def test_the_hash_is_of_the_contents_in_their_order(tmp_path: Path) -> None:
    write(tmp_path / "a" / "0.parquet", ROWS[:2])
    write(tmp_path / "a" / "1.parquet", ROWS[2:])
    write(tmp_path / "b" / "x.parquet", ROWS[:2])
    write(tmp_path / "b" / "y.parquet", ROWS[2:])
    write(tmp_path / "c" / "0.parquet", ROWS[2:])
    write(tmp_path / "c" / "1.parquet", ROWS[:2])
    one = parquet_hash(str(tmp_path / "a"))
    assert one == parquet_hash(str(tmp_path / "b")) == parquet_hash(f"{tmp_path}/a/*.parquet")
    assert one != parquet_hash(str(tmp_path / "c"))
    digest = hashlib.sha256((tmp_path / "a" / "0.parquet").read_bytes()).digest()
    assert parquet_hash(str(tmp_path / "a" / "0.parquet")) == hashlib.sha256(digest).hexdigest()


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    """A directory of data files, as `datasets` finds them by their names."""
    for split, rows in {"train": ROWS[:3], "test": ROWS[3:]}.items():
        lines = (json.dumps({"translation": row["translation"]}) + "\n" for row in rows)
        (tmp_path / f"{split}.jsonl").write_text("".join(lines))
    return str(tmp_path)


def read(name: str, *, subset: str | None = None, split: str = "train", column: str = "de") -> Iterable[pa.Table]:
    return read_dataset(name, subset, split, None, f"translation.{column}", "translation.en")


def test_a_dataset_with_the_translation_feature(dataset: str) -> None:
    pytest.importorskip("datasets")
    assert pairs_of(read(dataset)) == [("d0", "e0"), ("d1", "e1"), ("d2", "e2")]
    assert pairs_of(read(dataset, split="test")) == [("d3", "e3"), ("d4", "e4")]


def test_mistakes_with_a_dataset(dataset: str, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    where = f"dataset {dataset}, split"
    assert error_message(read(dataset, split="validation")).startswith(
        f"{where} validation: cannot be loaded (Bad split"
    )
    assert error_message(read(dataset, subset="de-en")).startswith(
        f"{where} train: cannot be loaded (BuilderConfig 'de-en'"
    )
    assert error_message(read(dataset, column="fr")).startswith(
        f"{where} train: no column fr in translation, only de, en"
    )
    missing = str(tmp_path / "none")
    assert error_message(read(missing)).startswith(f"dataset {missing}, split train: cannot be loaded (")
    (tmp_path / "train.jsonl").write_text('{"translation": {"de": "x", "en": "y"}}\nno JSON\n')
    assert error_message(read(dataset)).startswith(f"{where} train: cannot be ")


def test_datasets_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    said = "the datasets library is not installed; in the checkout: pip install '.[datasets]'"
    assert error_message(read("wmt14")) == f"dataset wmt14, split train: {said}"


def test_a_directory_enters_by_its_files(dataset: str) -> None:
    before = dataset_hash(dataset, None)
    (Path(dataset) / "test.jsonl").rename(Path(dataset) / "validation.jsonl")
    renamed = dataset_hash(dataset, None)
    (Path(dataset) / "validation.jsonl").write_text("{}\n")
    assert len({before, renamed, dataset_hash(dataset, None)}) == 3


def test_a_hub_dataset_enters_by_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Hub:
        def dataset_info(self, name: str, revision: str | None) -> SimpleNamespace:
            asked.append((name, revision))
            return SimpleNamespace(sha=None if revision == "odd" else "abc123")

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    assert dataset_hash("wmt/wmt14", "v1") == "abc123"
    assert asked == [("wmt/wmt14", "v1")]
    with pytest.raises(UserError, match=r"^dataset wmt/wmt14: the hub names no commit"):
        dataset_hash("wmt/wmt14", "odd")


def test_a_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hub:
        def dataset_info(self, name: str, revision: str | None) -> None:
            raise ConnectionError("no\nroute")

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = r"^dataset a/b: neither a directory nor a data set on the hub \(HF_HUB_OFFLINE is set; no route\); correct"
    with pytest.raises(UserError, match=said):
        dataset_hash("a/b", None)


def test_names_with_dots_and_names_that_stand_twice(tmp_path: Path) -> None:
    rows = [{"text.de": "a", "x": {"text.en": "b"}, "y": {"z": "c"}}]
    path = write(tmp_path / "a", rows)
    assert pairs_of(read_parquet(path, "text.de", "y.z")) == [("a", "c")]
    assert pairs_of(read_parquet(path, "x.text.en", "y.z")) == [("b", "c")]
    twice = pa.table([["a"], ["b"], ["c"]], names=["src", "src", "tgt"])
    path = write(tmp_path / "b", twice)
    assert error_message(read_parquet(path)) == f"{path}: 2 columns are called src; rename all but one"


def test_text_that_is_not_utf8_and_text_that_is_too_long(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = pa.array([b"good", b"b\xffd"], pa.binary())
    wrong = pa.StringArray.from_buffers(2, *values.buffers()[1:])
    path = write(tmp_path / "a", pa.table({"src": wrong, "tgt": ["x", "y"]}))
    message = "column src is not UTF-8 in one of rows 1 to 2; write it again"
    assert error_message(read_parquet(path)) == f"{path}: {message}"
    longest = "x" * MAX_LINE_BYTES
    path = write(tmp_path / "b", [{"src": longest, "tgt": longest + "x"}])
    assert pairs_of(read_parquet(path)) == [(longest, "")]
    assert f"warning: {path}: values over 262,144 bytes are read as empty: 1" in capsys.readouterr().err


def test_hidden_files_of_a_directory_do_not_enter(dataset: str) -> None:
    before = dataset_hash(dataset, None)
    for name in (".git/HEAD", ".cache/huggingface/a.lock", ".DS_Store", "__pycache__/a.pyc", "data/.part"):
        (Path(dataset) / name).parent.mkdir(parents=True, exist_ok=True)
        (Path(dataset) / name).write_text("x")
    assert dataset_hash(dataset, None) == before
    (Path(dataset) / "data" / "more.jsonl").write_text("{}")
    assert dataset_hash(dataset, None) != before


_FOREIGN = ["../other/a.jsonl", "{outside}/a.jsonl", ".hidden/a.jsonl", "linked/a.jsonl"]
_FOREIGN += ["moved/a.jsonl"]
_FOREIGN += ["../oth*/*.jsonl", "a.jsonl\n  data_dir: ../other"]
_FOREIGN += ["[data/*.jsonl, 'https://example.org/a.jsonl']", "'zip://a.jsonl::https://example.org/a.zip'"]
_FOREIGN += ["[{{split: train, path: ['hf://datasets/a/b/a.jsonl']}}]"]


@pytest.mark.parametrize("named", _FOREIGN)
def test_a_card_that_names_files_without_a_fingerprint_is_refused(
    tmp_path: Path, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    inside, outside = tmp_path / "set", tmp_path / "other"
    for directory in (inside / "data", inside / ".hidden", outside):
        directory.mkdir(parents=True)
        (directory / "a.jsonl").write_text('{"translation": {"de": "d", "en": "e"}}\n')
    (inside / "linked").symlink_to(outside)
    (inside / "moved").symlink_to("data")  # exchanged with another, it would be other text of the same fingerprint
    (inside / "data" / "b.jsonl").symlink_to(outside / "a.jsonl")

    def name_files(path: str, card: str = "README.md") -> None:
        rule = "" if card.endswith("yaml") else "---\n"
        configs = f"configs:\n- config_name: default\n  data_files: {path.format(outside=outside)}\n"
        (inside / card).write_text(f"{rule}{configs}{rule}")

    name_files(named)
    not_asked, not_foreseen = (datasets, "load_dataset_builder"), (columnar, "_files_of_cards")
    for absent in (not_asked, not_foreseen) if named == "linked/a.jsonl" else (not_asked,):
        with monkeypatch.context() as patch:
            patch.setattr(*absent, lambda _: ())
            message = error_message(read(str(inside)))
        assert message.startswith(f"dataset {inside}, split train: ")
        assert message.endswith("is hidden, behind a link, or outside of the directory; move it into the directory")
    name_files("data/*.jsonl")
    assert pairs_of(read(str(inside))) == [("d", "e")] * 2  # of a linked file the content enters
    before = dataset_hash(str(inside), None)
    name_files("data/b.jsonl", card=".huggingface.yaml")
    assert pairs_of(read(str(inside))) == [("d", "e")]
    assert dataset_hash(str(inside), None) != before
