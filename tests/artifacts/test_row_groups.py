"""Row groups by number, over all files of an artifact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertkd_ray.artifacts.artifact import PendingArtifact, fingerprint, load
from bertkd_ray.artifacts.row_groups import RowGroups, parquet_bytes
from bertkd_ray.artifacts.store import Store
from bertkd_ray.core.errors import StorageError
from tests.helpers.failing_storage import FaultyStorage


def test_row_groups_are_found_in_the_files_that_hold_them(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    work = PendingArtifact(store, "corpus", fingerprint("corpus", {}, {}), {}, {})
    first = 0
    for number, sizes in enumerate([[3, 3, 1], [2], [3, 2]]):
        sink = pa.BufferOutputStream()
        schema = pa.schema([("id", pa.int64())])
        with pq.ParquetWriter(sink, schema) as writer:
            for size in sizes:
                writer.write_table(pa.table({"id": np.arange(first, first + size)}, schema=schema))
                first += size
        store.write(bytes(sink.getvalue()), work.directory, f"train/fragment-{number}.parquet")
    store.write(b"{}", work.directory, "train/notes.json")
    groups = RowGroups(work.commit(made=["train"], metrics={}, info={}), "train/", ["id"])
    assert groups.rows.tolist() == [3, 3, 1, 2, 3, 2]
    assert groups.read(np.array([3, 0, 5, 2]))["id"].to_pylist() == [7, 8, 0, 1, 2, 12, 13, 6]
    assert groups.read(np.array([1, 0, 2, 4]))["id"].to_pylist() == [3, 4, 5, 0, 1, 2, 6, 9, 10, 11]


def test_row_groups_of_two_artifacts_are_numbered_one_after_another(tmp_path: Path) -> None:
    store, parts, first = Store(str(tmp_path)), [], 0
    for number, files in enumerate([[[3, 1], [2]], [[2, 2]]]):
        work = PendingArtifact(store, "corpus", str(number) * 16, {}, {})
        for index, groups in enumerate(files):
            ids = pa.table({"id": np.arange(first, first + sum(groups))})
            first += sum(groups)
            store.write(parquet_bytes(ids, groups), work.directory, f"train/fragment-{index}.parquet")
        parts.append(RowGroups(work.commit(made=["train"], metrics={}, info={}), "train/", ["id"]))
    both = parts[0] + parts[1]
    assert both.rows.tolist() == [3, 1, 2, 2, 2]
    assert both.read(np.array([3, 1, 4, 0]))["id"].to_pylist() == [6, 7, 3, 8, 9, 0, 1, 2]
    assert parts[0].rows.tolist() == [3, 1, 2]


@pytest.mark.parametrize("prefix", ["shard", "part"])  # of today and of earlier versions
def test_another_table_among_them_is_left_out_whatever_they_are_called(tmp_path: Path, prefix: str) -> None:
    pending = PendingArtifact(Store(str(tmp_path)), "softlabels", "0" * 16, {}, {})
    names = [f"{prefix}-000001.parquet", "rejects.parquet", f"{prefix}-000000.parquet", f"{prefix}-000000-01.parquet"]
    for number, name in enumerate(names):
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"id": [number]}), sink)
        pending.store.write(bytes(sink.getvalue()), pending.directory, name)
    groups = RowGroups(pending.commit(made=names, metrics={}, info={}), "", ["id"], exclude=("rejects.parquet",))
    assert groups.read(np.arange(3))["id"].to_pylist() == [3, 2, 0]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Whoever reads a table: a storage that fails, and a file that is no Parquet file any more."""
    pending = PendingArtifact(Store(str(tmp_path)), "corpus", "0" * 16, {}, {})
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": [1, 2]}), sink)
    pending.store.write(bytes(sink.getvalue()), pending.directory, "train", "a.parquet")
    directory = pending.commit(made=["train"], metrics={}, info={}).directory
    with FaultyStorage(error=OSError("AWS Error ACCESS_DENIED during GetObject operation")) as storage:
        corpus = load(Store(FaultyStorage.uri(tmp_path)), directory)
        assert corpus.read_table("train/")["id"].to_pylist() == [1, 2]
        place = f"storage: faulty://{tmp_path}/{directory}/train/a.parquet cannot be read"
        storage.reads = False
        for read in (
            lambda: corpus.read_table("train/"),
            lambda: RowGroups(corpus, "train/", ["id"]).read(np.array([0])),
            lambda: corpus.store.sha256(directory, "train", "a.parquet"),
        ):
            with pytest.raises(StorageError) as error:
                read()
            assert str(error.value).startswith(
                f"{place} (AWS Error ACCESS_DENIED during GetObject operation); allow it"
            )
        storage.reads = True
        (tmp_path / directory / "train" / "a.parquet").write_bytes(b"PAR1")
        with pytest.raises(StorageError, match="Parquet file size is 4 bytes") as error:
            corpus.read_table("train/")
        assert str(error.value).startswith(place)
