"""What a worker does with some of the text. Each pass writes its files in one step and may be run again.

clean: normalises the chunks of a group, drops what one pair alone tells, and sorts the rest into the splits.
find duplicates, then apply drops, where a rule needs all of the text: of a bucket of hashes, of a group of chunks.
count tokens, where the vocabulary is trimmed: of training text, as the smaller vocabulary cuts it.
encode: turns neighbouring chunks into one fragment of token ids.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bertkd_ray.artifacts.row_groups import write_parquet
from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config.corpus import SPLITS, CorpusConfig
from bertkd_ray.corpus import cleaning, deduplication
from bertkd_ray.corpus.bert_tokenizer import load_bert_tokenizer
from bertkd_ray.corpus.chunks import Chunk, read_table, write_tables
from bertkd_ray.corpus.cleaning import KEPT, copies, count_reasons
from bertkd_ray.corpus.moses import unescape_moses
from bertkd_ray.corpus.readers import PAIRS
from bertkd_ray.corpus.segmentation import Segmenter, is_plain, lowercased, normalise
from bertkd_ray.corpus.sources import weights
from bertkd_ray.corpus.statistics import PrepareStats
from bertkd_ray.corpus.tokenizer import BERT_IDS_FILE, UNK_ID, PieceCounter, WordEncoder, load_tokenizer
from bertkd_ray.corpus.words import words_of

TOKENIZER = "tokenizer"
"""The student's tokenizer: `tokenizer.json` and `tokenizer_config.json`, which `AutoTokenizer` loads without this
package, and a table of what stands behind its tokens."""
BERT = "bert"

TEXT_SCHEMA = pa.schema([("id", pa.int64()), ("src", pa.string()), ("tgt", pa.string())])
CORPUS_SCHEMA = pa.schema([*TEXT_SCHEMA, ("src_ids", pa.list_(pa.int32())), ("tgt_ids", pa.list_(pa.int32()))])
"""A row is a sentence pair.

id: unique and stable: `copy << 56 | source << 40 | line`, each from 0; with one source of weight 1 the line's number.
src, tgt: text, normalised.
src_ids, tgt_ids: its tokens, without BOS and EOS.
"""

_POSITION_BITS = 32  # a pair's position is its chunk's number and its row in it
_COUNTS_KEY = b"counts"
_COPIES_KEY = b"copies"

ChunkGroup = tuple[int, list[Chunk]]
"""Neighbouring chunks that are cleaned together, and the number of this group."""


@dataclass(frozen=True)
class PrepareJob:
    """What the passes are given: the store and directories in it, the settings, and how duplicates are found."""

    storage: str
    staging: str
    artifact: str
    corpus: CorpusConfig
    buckets: int = 0
    """Number of buckets of hashes; 0 where no rule needs all of the text."""
    group_starts: tuple[int, ...] = ()
    """Number of the first chunk of every group."""


class PendingFragment(NamedTuple):
    """A fragment that is made of neighbouring chunks."""

    split: str
    name: str
    """The file's path in the artifact."""
    chunks: list[str]
    """Names of the chunks' files."""


def clean_group(group: ChunkGroup, job: PrepareJob) -> PrepareStats:
    """The clean pass over a group of chunks; with buckets, it is left to `apply_drops` to drop and to count."""
    store, stats, hashes = Store(job.storage), PrepareStats(), []
    number, chunks = group
    for chunk in chunks:
        raw = read_table(store, job.staging, "raw", chunk.name)
        for split, table in _cleaned(raw, chunk, job.corpus, stats):
            if job.buckets:
                hashes += _hashes(chunk, split, table, job.corpus)
                write_tables(store, [table], job.staging, "clean", split, chunk.name)
            else:
                _keep(store, job, chunk, split, table, stats)
    if job.buckets:
        buckets = deduplication.split_into_buckets(hashes, job.buckets)
        write_tables(store, buckets, job.staging, "hashes", f"{number:06d}.arrow")
    return stats


def find_duplicates_in_bucket(bucket: int, job: PrepareJob) -> PrepareStats:
    """Finds what is dropped of a bucket of hashes, and writes it in one row group for every group of chunks.

    Nothing is counted: `apply_drops` does.
    """
    store = Store(job.storage)
    names = [f"{group:06d}.arrow" for group in range(len(job.group_starts))]
    drops = deduplication.find_duplicates(
        pa.concat_tables([read_table(store, job.staging, "hashes", name, index=bucket) for name in names])
    )
    starts = np.asarray(job.group_starts, np.int64) << _POSITION_BITS
    ends = [*np.searchsorted(drops["place"].to_numpy(), starts).tolist(), len(drops)]
    by_group = [drops[start:end] for start, end in pairwise(ends)]
    write_tables(store, by_group, job.staging, "drops", f"{bucket:06d}.arrow")
    return PrepareStats()


def hash_other_test(src: Sequence[str], group: int, job: PrepareJob) -> None:
    """Writes the hashes of normalised source sentences of another corpus's test split, as those of a group of chunks.

    group: one more than there are, with its place in `group_starts`; nothing is dropped of it.
    """
    positions = (job.group_starts[group] << _POSITION_BITS) + np.arange(len(src), dtype=np.int64)
    hashes = [deduplication.hash_sentences(src, positions, is_test=True)]
    buckets = deduplication.split_into_buckets(hashes, job.buckets)
    write_tables(Store(job.storage), buckets, job.staging, "hashes", f"{group:06d}.arrow")


def apply_drops(group: ChunkGroup, job: PrepareJob) -> PrepareStats:
    """Drops what `find_duplicates_in_bucket` found of a group of chunks, and counts the rest."""
    store, stats = Store(job.storage), PrepareStats()
    number, chunks = group
    names = [f"{bucket:06d}.arrow" for bucket in range(job.buckets)]
    drops = pa.concat_tables([read_table(store, job.staging, "drops", name, index=number) for name in names])
    positions, reasons = drops["place"].to_numpy(), drops["reason"].to_numpy()
    for chunk in chunks:
        for split in SPLITS:
            if not store.exists(job.staging, "clean", split, chunk.name):
                continue
            table = read_table(store, job.staging, "clean", split, chunk.name)
            own = _positions(chunk, table)
            overlaps = np.isin(own, positions[reasons == deduplication.OVERLAP])
            duplicates = np.isin(own, positions[reasons == deduplication.DUPLICATE])
            stats.counts[split]["test_overlap"] += int(overlaps.sum())
            stats.counts[split]["duplicate"] += int((duplicates & ~overlaps).sum())
            _keep(store, job, chunk, split, table.filter(pa.array(~overlaps & ~duplicates)), stats)
    return stats


def count_tokens(group: list[str], job: PrepareJob) -> PrepareStats:
    """Counts the tokens of training text, given as names of chunks, by the tokenizer in the staging directory."""
    store, stats = Store(job.storage), PrepareStats()
    with store.open_input(job.staging, TOKENIZER, BERT_IDS_FILE) as source:
        tokens = pq.read_table(source)
    for name in group:
        table = read_table(store, job.staging, "kept", "train", name)
        ids = _encoder(store.uri, job.staging).encode(_both_sides(table))
        times = np.tile(copies(table["id"].to_numpy(), weights(job.corpus)), 2)
        counts = np.bincount(ids.values, np.repeat(times, ids.lengths), len(tokens)).astype(np.int64)
        stats.pieces.add(tokens.set_column(2, "count", pa.array(counts)).filter(pa.array(counts > 0)))
    return stats


def encode_group(group: list[PendingFragment], job: PrepareJob) -> PrepareStats:
    """Makes neighbouring fragments; one that is there is not made again: its counts stand in it, written last."""
    store, stats = Store(job.storage), PrepareStats()
    for fragment in group:
        counts, files = _finished(store, job, fragment) or _encoded(store, job, fragment)
        stats.counts[fragment.split].update(counts)
        stats.files += files
    return stats


def _finished(store: Store, job: PrepareJob, fragment: PendingFragment) -> tuple[Counter[str], list[str]] | None:
    """The counts and files of a fragment that an earlier run made."""
    if not store.exists(job.artifact, fragment.name):
        return None
    with store.open_input(job.artifact, fragment.name) as source:
        metadata = pq.read_schema(source).metadata
    files = _fragment_files(fragment.name, int(metadata[_COPIES_KEY]))
    return Counter(json.loads(metadata[_COUNTS_KEY])), files


def _encoded(store: Store, job: PrepareJob, fragment: PendingFragment) -> tuple[Counter[str], list[str]]:
    """Tokenises neighbouring chunks, drops pairs that are too long, and writes the fragment with its repetitions."""
    split, corpus = fragment.split, job.corpus
    text = pa.concat_tables([read_table(store, job.staging, "kept", split, chunk) for chunk in fragment.chunks])
    encoder = _encoder(store.uri, job.artifact)
    # Both sides at once, since they share words.
    both = encoder.encode(_both_sides(text))
    ids = {"src": both.rows(0, len(text)), "tgt": both.rows(len(text), len(both))}
    counts: Counter[str] = Counter()
    keep = np.ones(len(text), dtype=bool)
    if not corpus.is_given_test(split):
        lengths = ids["src"].lengths, ids["tgt"].lengths
        reasons = cleaning.filter_by_length(*lengths, corpus.max_side_tokens, corpus.max_pair_tokens)
        keep = reasons == KEPT
        counts.update(count_reasons(reasons, cleaning.TOKEN_REASONS))
    times = copies(text["id"].to_numpy(), weights(corpus)) if split == "train" else np.ones(len(text), np.int64)
    times *= keep
    counts["pairs"] = int(times.sum())
    if repeated := int((times - keep).sum()):
        counts["repeated"] = repeated
    for side in ("src", "tgt"):
        tokens = ids[side].take(np.repeat(np.arange(len(text)), times)).values
        counts[f"{side}_tokens"] = len(tokens)
        counts[f"{side}_unknown"] = int(np.count_nonzero(tokens == UNK_ID))
        text = text.append_column(f"{side}_ids", ids[side].to_arrow(pa.int32()))
    files = _fragment_files(fragment.name, int(times.max(initial=0)))
    metadata = {_COUNTS_KEY: json.dumps(counts), _COPIES_KEY: str(len(files))}
    table = text.cast(CORPUS_SCHEMA).replace_schema_metadata(metadata)
    for copy, file in reversed(list(enumerate(files))):
        taken = table.filter(pa.array(times > copy))
        moved = pc.add(taken["id"], pa.scalar(copy << cleaning.ID_COPY_BITS, pa.int64()))
        taken = taken.set_column(0, "id", moved)
        groups = {"compression": "zstd", "row_group_size": corpus.group_pairs}
        write_parquet(store, taken, job.artifact, file, **groups)
    return counts, files


def _fragment_files(name: str, copied: int) -> list[str]:
    """The files of a fragment of which some pair is repeated so many times."""
    return [name.replace(".parquet", f"-{copy:02d}.parquet") if copy else name for copy in range(copied)]


def _cleaned(raw: pa.Table, chunk: Chunk, corpus: CorpusConfig, stats: PrepareStats) -> Iterator[tuple[str, pa.Table]]:
    """The normalised pairs of a chunk that no rule for one pair drops, by the split they belong to."""
    table = normalised_pairs(raw, corpus)
    reasons = cleaning.filter_by_text(table["src"], table["tgt"], corpus.clean)
    shares = corpus.held_out() if chunk.split == "train" else {}
    drawn = cleaning.held_out_splits(table["src"].to_pylist(), shares)
    table = table.add_column(0, "id", pa.array(np.arange(chunk.first_id, chunk.first_id + chunk.rows)))
    for number, split in enumerate((chunk.split, *shares)):
        members = np.flatnonzero(drawn == number)
        counts = stats.counts[split]
        counts["read"] += len(members)
        for side in ("src", "tgt"):
            counts.update(cleaning.count_odd_lines(raw[side].take(pa.array(members)).to_pylist()))
        if not corpus.is_given_test(split):
            counts.update(count_reasons(reasons[members], cleaning.TEXT_REASONS))
            members = members[reasons[members] == KEPT]
        if len(members):
            yield split, table if len(members) == len(table) else table.take(pa.array(members))


def normalised_pairs(raw: pa.Table, corpus: CorpusConfig) -> pa.Table:
    """Raw pairs as every later stage sees them (`normalise`), with the schema `PAIRS`."""
    sides = []
    for side in ("src", "tgt"):
        normal = partial(normalise, lowercase=corpus.lowercase, dotted_i=corpus.dotted_i(side))
        normalise_plain = normal if corpus.dotted_i(side) else lowercased if corpus.lowercase else str
        lines = raw[side].to_pylist()
        if corpus.text != "raw":
            lines = [unescape_moses(line) for line in lines]
        sides.append([normalise_plain(line) if is_plain(line) else normal(line) for line in lines])
    return pa.table(sides, schema=PAIRS)


def _positions(chunk: Chunk, table: pa.Table) -> NDArray[np.int64]:
    return np.asarray(table["id"], np.int64) - chunk.first_id + (chunk.number << _POSITION_BITS)


def _hashes(chunk: Chunk, split: str, table: pa.Table, corpus: CorpusConfig) -> list[pa.Table]:
    positions = _positions(chunk, table)
    src, tgt = table["src"].to_pylist(), table["tgt"].to_pylist()
    hashes = []
    if corpus.clean.test_overlap:
        hashes.append(deduplication.hash_sentences(src, positions, is_test=split == "test"))
    if corpus.clean.duplicates and not corpus.is_given_test(split):
        hashes.append(deduplication.hash_pairs(src, tgt, positions, split))
    return hashes


def _keep(store: Store, job: PrepareJob, chunk: Chunk, split: str, table: pa.Table, stats: PrepareStats) -> None:
    """Writes what is left of a chunk for a split; of training text the pieces are counted."""
    if split == "train":
        times = copies(table["id"].to_numpy(), weights(job.corpus))
        if sampled_out := int((times == 0).sum()):
            stats.counts[split]["sampled_out"] += sampled_out
        table, times = table.filter(pa.array(times > 0)), times[times > 0]
        _count_text(_piece_counter(store.uri, job.staging), table, times, stats)
    if len(table):
        write_tables(store, [table], job.staging, "kept", split, chunk.name)
        stats.rows[split][chunk.number] = len(table)


def _count_text(counter: PieceCounter, table: pa.Table, times: NDArray[np.int64], stats: PrepareStats) -> None:
    words = words_of(_both_sides(table))
    stats.pieces.add(counter.table(words.distinct, words.counts(np.tile(times, 2))))
    stats.characters.update("".join(words.distinct))


def _both_sides(table: pa.Table) -> pa.StringArray:
    """The lines of the source, then those of the target."""
    return pa.chunked_array([*table["src"].chunks, *table["tgt"].chunks], pa.string()).combine_chunks()


@lru_cache(maxsize=1)
def _piece_counter(storage: str, staging: str) -> PieceCounter:
    with scratch_directory("bert-") as scratch:
        bert = Store(storage).local(scratch, staging, BERT)
        return PieceCounter(Segmenter(load_bert_tokenizer(bert)))


@lru_cache(maxsize=1)
def _encoder(storage: str, artifact: str) -> WordEncoder:
    # No pass that counts pieces comes after: what it remembers is of no more use.
    _piece_counter.cache_clear()
    with scratch_directory("tokenizer-") as scratch:
        return WordEncoder(load_tokenizer(Store(storage).local(scratch, artifact, TOKENIZER)))
