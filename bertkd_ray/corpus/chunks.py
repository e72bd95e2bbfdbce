"""The raw text, cut once into chunks that the cluster shares.

The driver alone reads the sources, so only it must reach them; what it does to a pair is to pass it on. A chunk holds
pairs of one source in the order of the input.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa

from bertkd_ray.artifacts.artifact import PendingArtifact
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config.corpus import SPLITS, CorpusConfig
from bertkd_ray.corpus.cleaning import ID_SOURCE_BITS
from bertkd_ray.corpus.readers import PAIRS
from bertkd_ray.corpus.sources import read_sources

# Groups of chunks: enough to share, few enough that every bucket of hashes is read from all; of what is handed out with
# too little to do, the handing out takes longer than the work (25 ms of CPU time a group).
_MOST_GROUPS, _FEW_GROUPS, _GROUP_CHUNKS = 256, 16, 8

Item = TypeVar("Item")


@dataclass(frozen=True)
class Chunk:
    """Some pairs of one source, in one file of the staging directory."""

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
        return f"chunk-{self.number:06d}.arrow"


def split_into_chunks(
    pending: PendingArtifact, corpus: CorpusConfig, left_out: Mapping[str, Counter[str]] | None = None
) -> list[Chunk]:
    """Writes the chunks of all splits below `raw` of the staging directory, of `fragment_pairs` pairs but the last.

    left_out: gains what the readers leave out, by split and reason.
    """
    chunks: list[Chunk] = []
    for split in SPLITS:
        of_split = None if left_out is None else left_out[split]
        for source, tables in enumerate(read_sources(corpus, split, of_split)):
            first_id = source << ID_SOURCE_BITS
            chunks += chunks_of_source(pending, split, tables, corpus.fragment_pairs, len(chunks), first_id)
    return chunks


def chunks_of_source(
    pending: PendingArtifact, split: str, tables: Iterable[pa.Table], size: int, number: int, first_id: int
) -> Iterator[Chunk]:
    """Writes the chunks of one source, numbered from `number`, and names each."""
    for table in _resized(tables, size):
        chunk = Chunk(number, split, first_id, len(table))
        write_tables(pending.store, [table], pending.staging, "raw", chunk.name)
        yield chunk
        number, first_id = number + 1, first_id + len(table)


def grouped(chunks: list[Item]) -> list[list[Item]]:
    """Chunks or fragments in order, in at most 256 groups of equal size: of 8 or more where there are 128 of them."""
    size = max(1, min(_GROUP_CHUNKS, len(chunks) // _FEW_GROUPS), -(-len(chunks) // _MOST_GROUPS))
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


def write_tables(store: Store, tables: list[pa.Table], *path: str) -> None:
    """Writes what a pass leaves for the next, tables with one schema, in one step; `read_table` reads one or all.

    After a crash of the machine all passes begin anew, so nothing waits for the disk.
    """
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, tables[0].schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        for table in tables:
            columns = [pa.concat_arrays(column.chunks) if len(table) else [] for column in table.columns]
            writer.write_batch(pa.record_batch(columns, schema=table.schema))
    store.write(sink.getvalue(), *path, lasting=False)


def read_table(store: Store, *path: str, index: int | None = None) -> pa.Table:
    """What `write_tables` wrote: all of it, or the table of this index alone."""
    with store.open_input(*path) as source:
        file = pa.ipc.open_file(source)
        return file.read_all() if index is None else pa.Table.from_batches([file.get_batch(index)])


def _resized(tables: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """The rows in tables of `size` rows, the last perhaps shorter."""
    waiting = PAIRS.empty_table()
    for table in tables:
        waiting = pa.concat_tables([waiting, table])
        while len(waiting) >= size:
            yield waiting[:size]
            waiting = waiting[size:]
    if len(waiting):
        yield waiting
