"""Soft labels as Arrow and Parquet: the schema, the round trip and the bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkd_ray.core.ragged import Ragged, offsets_of
from bertkd_ray.softlabels.shards import (
    SoftLabels,
    decode_labels,
    encode_shard,
    index_dtype,
    parquet_bytes,
    shard_schema,
)

VOCAB_SIZE = 14_136


def shard(lengths: np.ndarray, k: int = 8, vocab_size: int = VOCAB_SIZE, seed: int = 0) -> tuple:
    """Pairs and labels with what makes real ones compress: frequent tokens (Zipf), and logits that fall off."""
    rng = np.random.default_rng(seed)

    def tokens(count: int) -> np.ndarray:
        frequencies = 1.0 / np.arange(1, vocab_size - 3)
        return rng.choice(vocab_size - 4, count, p=frequencies / frequencies.sum()) + 4

    tgt = Ragged(tokens(int(lengths.sum())).astype(np.int32), offsets_of(lengths))
    src = Ragged(tokens(int(lengths.sum())).astype(np.int32), offsets_of(lengths[::-1]))
    positions = int((lengths + 1).sum())
    best = rng.normal(14.0, 2.5, positions)
    logits = best[:, None] - np.cumsum(rng.exponential(1.2, (positions, k)), axis=1)
    labels = SoftLabels(
        topk_ids=tokens(positions * k).reshape(positions, k).astype(index_dtype(vocab_size)),
        topk_logits=logits.astype(np.float16),
        logsumexp=(best + rng.exponential(0.5, positions)).astype(np.float32),
        offsets=offsets_of(lengths + 1),
    )
    return rng.permutation(len(lengths)).astype(np.int64), src, tgt, labels


def decode_shard(table: pa.Table) -> tuple:
    """The four arguments that `encode_shard` had."""
    src, tgt = Ragged.from_arrow(table["src_ids"]), Ragged.from_arrow(table["tgt_ids"])
    return table["id"].to_numpy(), src, tgt, decode_labels(table)


def metadata(schema: pa.Schema) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in schema.metadata.items() if key != b"ARROW:schema"}


def assert_same(mine: tuple, theirs: tuple) -> None:
    for left, right in zip(mine, theirs, strict=True):
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype
            assert np.array_equal(left, right)
            continue
        for name in vars(left):
            assert getattr(left, name).dtype == getattr(right, name).dtype, name
            assert np.array_equal(getattr(left, name), getattr(right, name)), name


@pytest.mark.parametrize(
    ("vocab_size", "dtype"),
    [(256, np.uint8), (257, np.uint16), (65_536, np.uint16), (65_537, np.uint32)],
)
def test_smallest_index_type(vocab_size: int, dtype: type) -> None:
    assert index_dtype(vocab_size) == dtype
    assert shard_schema(vocab_size, 8).field("topk_ids").type == pa.list_(pa.from_numpy_dtype(dtype))


def test_schema_and_metadata() -> None:
    schema = shard_schema(300, 4, {"teacher": "abc", "note": "né"})
    assert [(field.name, str(field.type)) for field in schema] == [
        ("id", "int64"),
        ("src_ids", "list<item: int32>"),
        ("tgt_ids", "list<item: int32>"),
        ("topk_ids", "list<item: uint16>"),
        ("topk_logits", "list<item: halffloat>"),
        ("logsumexp", "list<item: float>"),
    ]
    assert metadata(schema) == {
        "vocab_size": "300",
        "k": "4",
        "mask_scheme": "strided",
        "teacher": "abc",
        "note": "né",
    }


def test_rows_are_flattened_position_by_position() -> None:
    labels = SoftLabels(
        topk_ids=np.asarray([[5, 6], [3, 7], [3, 5]], np.uint8),
        topk_logits=np.asarray([[2.0, 1.0], [4.0, 3.0], [6.0, 5.0]], np.float16),
        logsumexp=np.asarray([2.5, 4.5, 6.5], np.float32),
        offsets=np.asarray([0, 2, 3]),
    )
    src, tgt = Ragged.from_lists([[8], [9, 10]]), Ragged.from_lists([[5], []])
    table = encode_shard(np.asarray([11, 3]), src, tgt, labels, shard_schema(256, 2))
    assert table.to_pylist() == [
        {
            "id": 11,
            "src_ids": [8],
            "tgt_ids": [5],
            "topk_ids": [5, 6, 3, 7],
            "topk_logits": [2.0, 1.0, 4.0, 3.0],
            "logsumexp": [2.5, 4.5],
        },
        {"id": 3, "src_ids": [9, 10], "tgt_ids": [], "topk_ids": [3, 5], "topk_logits": [6.0, 5.0], "logsumexp": [6.5]},
    ]
    assert_same(decode_shard(table), (np.asarray([11, 3]), src, tgt, labels))


@given(
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=8),
    k=st.integers(1, 5),
    vocab_size=st.sampled_from([16, 999, 70_000]),
)
@settings(max_examples=40, deadline=None)
def test_round_trip(lengths: list[int], k: int, vocab_size: int) -> None:
    fragment = shard(np.asarray(lengths, np.int64), k, vocab_size)
    table = encode_shard(*fragment, shard_schema(vocab_size, k))
    assert_same(decode_shard(table), fragment)
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert_same(decode_shard(chunked), fragment)


def test_slice_decodes_to_its_own_rows() -> None:
    ids, src, tgt, labels = shard(np.asarray([3, 0, 5, 2]))
    part = decode_shard(encode_shard(ids, src, tgt, labels, shard_schema(VOCAB_SIZE, 8)).slice(1, 2))
    assert part[0].tolist() == ids[1:3].tolist()
    assert part[2].values.tolist() == tgt.row(2).tolist()
    assert np.array_equal(part[3].topk_ids, labels.topk_ids[4:11])
    assert part[3].offsets.tolist() == [0, 1, 7]


def test_no_rows() -> None:
    fragment = shard(np.zeros(0, np.int64))
    table = encode_shard(*fragment, shard_schema(VOCAB_SIZE, 8))
    ids, _, _, labels = decode_shard(table)
    assert (len(ids), labels.topk_ids.shape, labels.offsets.tolist()) == (0, (0, 0), [0])


def test_labels_of_another_corpus_are_refused() -> None:
    ids, src, tgt, labels = shard(np.asarray([3, 4]))
    other = tgt.take(np.asarray([1, 0]))
    with pytest.raises(ValueError, match="one for the end of the sentence"):
        encode_shard(ids, src, other, labels, shard_schema(VOCAB_SIZE, 8))


@pytest.mark.parametrize("column", ["tgt_ids", "topk_ids", "topk_logits", "logsumexp"])
def test_columns_that_do_not_belong_together_are_refused(column: str) -> None:
    table, other = (
        encode_shard(*shard(np.asarray(lengths)), shard_schema(VOCAB_SIZE, 8)) for lengths in ([3, 4], [4, 3])
    )
    mixed = table.set_column(table.column_names.index(column), column, other[column])
    with pytest.raises(ValueError, match="not a soft-label table"):
        decode_shard(mixed)


def test_file_keeps_everything_in_few_bytes(tmp_path: Path) -> None:
    """28.9 bytes a position in row groups of 8,192 pairs; uncompressed 36, and the pair's own tokens."""
    lengths = np.random.default_rng(1).integers(5, 45, 4_096)
    fragment = shard(lengths)
    schema = shard_schema(VOCAB_SIZE, 8, {"teacher": "abc"})
    path = tmp_path / "part.parquet"
    path.write_bytes(parquet_bytes(encode_shard(*fragment, schema), [1_000, 1_000, 1_000, 1_000, 96]))
    positions = int((lengths + 1).sum())
    assert path.stat().st_size / positions < 32.0

    file = pq.ParquetFile(path)
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [1_000] * 4 + [96]
    assert file.schema_arrow.equals(schema)
    assert metadata(file.schema_arrow) == metadata(schema)
    assert_same(decode_shard(file.read()), fragment)
    encodings = {
        column.path_in_schema.split(".")[0]: (column.compression, "BYTE_STREAM_SPLIT" in column.encodings)
        for column in (file.metadata.row_group(0).column(index) for index in range(6))
    }
    assert encodings["topk_ids"] == encodings["topk_logits"] == encodings["logsumexp"] == ("ZSTD", True)
