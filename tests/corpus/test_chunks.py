from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertkd_ray.artifacts.artifact import PendingArtifact
from bertkd_ray.artifacts.row_groups import write_parquet
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config.corpus import CorpusConfig
from bertkd_ray.corpus.chunks import (
    Chunk,
    grouped,
    packed,
    read_table,
    split_into_chunks,
    write_tables,
)


@pytest.fixture
def work(tmp_path) -> PendingArtifact:
    return PendingArtifact(Store(str(tmp_path / "store")), "corpus", "0", {}, {})


def corpus(directory, *, fragment_pairs: int, **sizes: int) -> CorpusConfig:
    for name, lines in sizes.items():
        (directory / f"{name}.tsv").write_text("".join(f"{name} {n}\t{n}\n" for n in range(lines)))
    train = [{"tsv": f"{name}.tsv"} for name in sizes if name.startswith("t")]
    tree = {"source": "tsv", "directory": str(directory), "train": train, "fragment_pairs": fragment_pairs}
    return CorpusConfig.model_validate({**tree, "valid": {"tsv": "valid.tsv"}, "test": {"tsv": "valid.tsv"}})


def test_chunks_hold_pairs_of_one_source_in_order(tmp_path, work):
    chunks = split_into_chunks(work, corpus(tmp_path, fragment_pairs=3, t0=7, t1=2, valid=3))
    assert chunks == [
        Chunk(0, "train", 0, 3),
        Chunk(1, "train", 3, 3),
        Chunk(2, "train", 6, 1),
        Chunk(3, "train", 1 << 40, 2),
        Chunk(4, "valid", 0, 3),
        Chunk(5, "test", 0, 3),
    ]
    rows = [read_table(work.store, work.staging, "raw", chunk.name)["src"].to_pylist() for chunk in chunks]
    assert rows[:4] == [["t0 0", "t0 1", "t0 2"], ["t0 3", "t0 4", "t0 5"], ["t0 6"], ["t1 0", "t1 1"]]


@pytest.mark.parametrize("size", [1000, 4096, 5000, 20_000])
def test_chunks_have_their_size_whatever_the_readers_blocks(tmp_path, work, size):
    chunks = split_into_chunks(work, corpus(tmp_path, fragment_pairs=size, t=10_000, valid=1))
    train = [chunk for chunk in chunks if chunk.split == "train"]
    assert [chunk.rows for chunk in train[:-1]] == [size] * (-(-10_000 // size) - 1)
    lines = [
        line for chunk in train for line in read_table(work.store, work.staging, "raw", chunk.name)["tgt"].to_pylist()
    ]
    assert lines == [str(number) for number in range(10_000)]


def test_groups_are_at_most_256_of_8_chunks_where_there_are_many_and_keep_the_order():
    chunks = [Chunk(number, "train", number, 1) for number in range(5000)]
    found = {count: [len(group) for group in grouped(chunks[:count])] for count in (5000, 1000, 100, 31, 3, 0)}
    assert found == {5000: [20] * 250, 1000: [8] * 125, 100: [6] * 16 + [4], 31: [1] * 31, 3: [1] * 3, 0: []}
    assert [chunk for group in grouped(chunks) for chunk in group] == chunks


def test_neighbours_are_packed_while_they_have_room():
    rows = [("a", 10), ("b", 4), ("c", 6), ("d", 1), ("e", 9), ("f", 1), ("g", 12)]
    assert packed(rows, 10) == [["a"], ["b", "c"], ["d", "e"], ["f"], ["g"]]
    assert packed([], 10) == []


def test_a_fragment_has_its_row_groups(work):
    write_parquet(work.store, pa.table({"x": list(range(10))}), "a.parquet", row_group_size=4)
    footer = pq.read_metadata(work.store.path("a.parquet"))
    assert [footer.row_group(i).num_rows for i in range(footer.num_row_groups)] == [4, 4, 2]
    assert pq.read_table(work.store.path("a.parquet"))["x"].to_pylist() == list(range(10))


def test_tables_come_back_together_and_alone(work):
    table = pa.concat_tables([pa.table({"x": [str(x)], "y": [x]}) for x in range(10)])
    write_tables(work.store, [table[:0], table[3:5], table[:0]], "b.arrow")
    assert [read_table(work.store, "b.arrow", index=i)["x"].to_pylist() for i in range(3)] == [[], ["3", "4"], []]
    assert read_table(work.store, "b.arrow").equals(table[3:5])
    write_tables(work.store, [table[:0]], "c.arrow")
    assert read_table(work.store, "c.arrow").equals(table[:0])
