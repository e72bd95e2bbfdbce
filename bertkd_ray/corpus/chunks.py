"""The raw text, cut once into chunks that the cluster shares.

The driver alone reads the sources, so only it must reach them; what it does to a pair is to pass it on. A chunk holds
pairs of one source in the order of the input.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bertkd_ray.config.corpus import SPLITS, CorpusConfig
from bertkd_ray.core.artifact import Draft
from bertkd_ray.core.store import Store
from bertkd_ray.corpus.cleaning import ID_SOURCE_BITS
from bertkd_ray.corpus.sources import read_sources

_MOST_GROUPS = 256  # groups of chunks: enough to share, few enough that every bucket of hashes is read from all


@dataclass(frozen=True)
class Chunk:
    """Some pairs of one source, in one file of the work directory."""

    number: int
    """Position among all chunks, train first."""
    split: str
    """Where the pairs were given; some of train may be held out of it."""
    first_id: int
    """Id of the first pair; the others follow."""
    rows: int
    """Pairs."""

    @property
    def name(self) -> str:
        """The file's name, the same in every pass."""
        return self.file_name(self.number)

    @staticmethod
    def file_name(number: int) -> str:
        """The name of the file with a number."""
        return f"part-{number:06d}.parquet"

    def as_json(self) -> dict[str, Any]:
        """The chunk as a worker gets it."""
        return asdict(self)


def cut(work: Draft, corpus: CorpusConfig) -> list[Chunk]:
    """Writes the chunks of all splits below `raw` of the work directory, each of `fragment_pairs` pairs but a last."""
    chunks: list[Chunk] = []
    for split in SPLITS:
        for source, tables in enumerate(read_sources(corpus, split)):
            first_id = source << ID_SOURCE_BITS
            for table in _resized(tables, corpus.fragment_pairs):
                chunk = Chunk(len(chunks), split, first_id, len(table))
                write_table(work.store, table, work.work, "raw", chunk.name)
                chunks.append(chunk)
                first_id += len(table)
    return chunks


def grouped(chunks: list[Chunk]) -> list[list[Chunk]]:
    """The chunks in order, in at most 256 groups of equal size."""
    size = max(1, -(-len(chunks) // _MOST_GROUPS))
    return [chunks[start : start + size] for start in range(0, len(chunks), size)]


def packed(rows: Iterable[tuple[str, int]], size: int) -> list[list[str]]:
    """Files, given with their rows, in order: neighbours are put together while they have no more than `size` rows."""
    packs: list[list[str]] = []
    room = 0
    for name, count in rows:
        if count > room:
            packs.append([])
            room = size
        packs[-1].append(name)
        room -= count
    return packs


def write_table(store: Store, table: pa.Table, *parts: str, group_pairs: int = 1 << 20) -> None:
    """Writes a Parquet file in one step."""
    write_row_groups(store, [table[start : start + group_pairs] for start in range(0, len(table), group_pairs)], *parts)


def write_row_groups(store: Store, groups: list[pa.Table], *parts: str) -> None:
    """Writes a Parquet file in one step, with these tables as its row groups."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, groups[0].schema, compression="zstd") as writer:
        for group in groups:
            writer.write_table(group, row_group_size=max(1, len(group)))
    store.write(sink.getvalue().to_pybytes(), *parts)


def read_table(store: Store, *parts: str) -> pa.Table:
    """A whole Parquet file."""
    with store.fs.open_input_file(store.path(*parts)) as source:
        return pq.read_table(source)


def read_row_group(store: Store, index: int, *parts: str) -> pa.Table:
    """One row group of a Parquet file."""
    with store.fs.open_input_file(store.path(*parts)) as source:
        return pq.ParquetFile(source).read_row_group(index)


def _resized(tables: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """The same rows in tables of `size` rows, the last perhaps shorter."""
    waiting: list[pa.Table] = []
    rows = 0
    for table in tables:
        waiting.append(table)
        rows += len(table)
        if rows >= size:
            joined = pa.concat_tables(waiting)
            whole = rows - rows % size
            yield from (joined[start : start + size] for start in range(0, whole, size))
            waiting, rows = [joined[whole:]], rows - whole
    if rows:
        yield pa.concat_tables(waiting)
