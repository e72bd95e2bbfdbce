"""What a worker does with one part of the text. Each pass writes its files in one step and may be run again.

clean: normalises the chunks of a group, drops what one pair alone tells, and sorts the rest into the splits.
resolve, then settle, where a rule needs all of the text: find a bucket's duplicates and overlaps, drop a group's.
encode: turns neighbouring chunks into one fragment of token ids.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config.corpus import SPLITS, CleanConfig
from bertkd_ray.corpus.chunks import Chunk, read_part, read_table, write_fragment, write_table, write_tables
from bertkd_ray.corpus.cleaning import (
    ADMITTED,
    ID_COPY_BITS,
    TEXT_REASONS,
    TOKEN_REASONS,
    copies,
    count_odd_lines,
    count_reasons,
    filter_by_length,
    filter_by_text,
    held_out_splits,
)
from bertkd_ray.corpus.deduplication import (
    DUPLICATE,
    OVERLAP,
    Hashes,
    cut_into_buckets,
    find_duplicates,
    hash_pairs,
    hash_sentences,
)
from bertkd_ray.corpus.moses import unescape_moses
from bertkd_ray.corpus.segmentation import Segmenter, is_plain, lowercased, normalise
from bertkd_ray.corpus.statistics import PrepareStats
from bertkd_ray.corpus.tokenizer import UNK_ID, PieceCounter, WordEncoder, load_tokenizer
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

_PLACE_BITS = 32  # a pair's place is its chunk's number and its row in it
_COUNTS_KEY = b"counts"
_COPIES_KEY = b"copies"


def is_given_test(split: str, settings: dict[str, Any]) -> bool:
    """Whether no rule may drop a pair of the split: a score is over every line of a test set with files of its own."""
    return split == "test" and "test" not in settings["held_out"]


def clean_group(
    item: dict[str, Any], storage: str, work: str, settings: dict[str, Any], buckets: int
) -> dict[str, str]:
    """The clean pass over a group of chunks; with `buckets`, it is left to `apply_drops` to drop and to count."""
    store, tally, hashes = Store(storage), PrepareStats(), []
    for chunk in _chunks(item):
        for split, table in _cleaned(read_table(store, work, "raw", chunk.name), chunk, settings, tally):
            if buckets:
                hashes += _hashes(chunk, split, table, settings)
                write_table(store, table, work, "clean", split, chunk.name)
            else:
                _keep(store, work, chunk, split, table, settings, tally)
    if buckets:
        write_tables(store, cut_into_buckets(hashes, buckets), work, "hashes", f"{item['group']:06d}.arrow")
    return tally.as_row()


def find_duplicates_in_bucket(item: dict[str, Any], storage: str, work: str, group_starts: list[int]) -> dict[str, Any]:
    """Finds what is dropped of a bucket, and writes it in one row group for every group of chunks."""
    store = Store(storage)
    names = [f"{group:06d}.arrow" for group in range(len(group_starts))]
    bucket = pa.concat_tables([read_part(store, item["bucket"], work, "hashes", name) for name in names])
    drops = find_duplicates(bucket)
    starts = np.asarray(group_starts, np.int64) << _PLACE_BITS
    ends = [*np.searchsorted(drops["place"].to_numpy(), starts).tolist(), len(drops)]
    parts = [drops[start:end] for start, end in pairwise(ends)]
    write_tables(store, parts, work, "drops", f"{item['bucket']:06d}.arrow")
    return {"drops": len(drops)}


def apply_drops(
    item: dict[str, Any], storage: str, work: str, settings: dict[str, Any], buckets: int
) -> dict[str, str]:
    """Drops what `find_duplicates_in_bucket` found of a group of chunks, and counts the rest."""
    store, tally = Store(storage), PrepareStats()
    names = [f"{bucket:06d}.arrow" for bucket in range(buckets)]
    drops = pa.concat_tables([read_part(store, item["group"], work, "drops", name) for name in names])
    places, reasons = drops["place"].to_numpy(), drops["reason"].to_numpy()
    for chunk in _chunks(item):
        for split in SPLITS:
            if not store.exists(work, "clean", split, chunk.name):
                continue
            table = read_table(store, work, "clean", split, chunk.name)
            own = _places(chunk, table)
            overlaps = np.isin(own, places[reasons == OVERLAP])
            duplicates = np.isin(own, places[reasons == DUPLICATE])
            tally.counts[split]["test_overlap"] += int(overlaps.sum())
            tally.counts[split]["duplicate"] += int((duplicates & ~overlaps).sum())
            _keep(store, work, chunk, split, table.filter(pa.array(~overlaps & ~duplicates)), settings, tally)
    return tally.as_row()


def encode_group(
    item: dict[str, Any], storage: str, work: str, artifact: str, settings: dict[str, Any]
) -> dict[str, Any]:
    """Makes neighbouring fragments; one that is there is not made again: its counts stand in it, written last."""
    store, counts, files = Store(storage), {split: Counter[str]() for split in SPLITS}, []
    for fragment in json.loads(item["fragments"]):
        made = _finished(store, artifact, fragment) or _encoded(store, work, artifact, fragment, settings)
        counts[fragment["split"]].update(made[0])
        files += made[1]
    return {"counts": json.dumps(counts), "files": files}


def _finished(store: Store, artifact: str, fragment: dict[str, Any]) -> tuple[dict[str, int], list[str]] | None:
    """The counts and files of a fragment that an earlier run made."""
    if not store.exists(artifact, name := _fragment_name(fragment)):
        return None
    with store.open_input(artifact, name) as source:
        said = pq.read_schema(source).metadata
    return json.loads(said[_COUNTS_KEY]), _fragment_files(name, int(said[_COPIES_KEY]))


def _encoded(
    store: Store, work: str, artifact: str, fragment: dict[str, Any], settings: dict[str, Any]
) -> tuple[Counter[str], list[str]]:
    """Tokenises neighbouring chunks, drops pairs that are too long, and writes the fragment with its repetitions."""
    split, name = fragment["split"], _fragment_name(fragment)
    text = pa.concat_tables([read_table(store, work, "kept", split, part) for part in fragment["parts"]])
    encoder = _encoder(store.uri, artifact)
    # Both sides at once, since they share words.
    both = encoder.encode(_both_sides(text))
    ids = {"src": both.rows(0, len(text)), "tgt": both.rows(len(text), len(both))}
    counts: Counter[str] = Counter()
    keep = np.ones(len(text), dtype=bool)
    if not is_given_test(split, settings):
        reasons = filter_by_length(
            ids["src"].lengths, ids["tgt"].lengths, settings["max_side_tokens"], settings["max_pair_tokens"]
        )
        keep = reasons == ADMITTED
        counts.update(count_reasons(reasons, TOKEN_REASONS))
    times = copies(text["id"].to_numpy(), settings["weights"]) if split == "train" else np.ones(len(text), np.int64)
    times *= keep
    counts["pairs"] = int(times.sum())
    if repeated := int((times - keep).sum()):
        counts["repeated"] = repeated
    for side in ("src", "tgt"):
        tokens = ids[side].take(np.repeat(np.arange(len(text)), times)).values
        counts[f"{side}_tokens"] = len(tokens)
        counts[f"{side}_unknown"] = int(np.count_nonzero(tokens == UNK_ID))
        text = text.append_column(f"{side}_ids", ids[side].to_arrow(pa.int32()))
    files = _fragment_files(name, int(times.max(initial=0)))
    metadata = {_COUNTS_KEY: json.dumps(counts), _COPIES_KEY: str(len(files))}
    table = text.cast(CORPUS_SCHEMA).replace_schema_metadata(metadata)
    for copy, file in reversed(list(enumerate(files))):
        taken = table.filter(pa.array(times > copy))
        moved = pc.add(taken["id"], pa.scalar(copy << ID_COPY_BITS, pa.int64()))
        taken = taken.set_column(0, "id", moved)
        write_fragment(store, taken, artifact, file, group_pairs=settings["group_pairs"])
    return counts, files


def _fragment_name(fragment: dict[str, Any]) -> str:
    return f"{fragment['split']}/part-{fragment['number']:06d}.parquet"


def _fragment_files(name: str, copied: int) -> list[str]:
    """The files of a fragment of which some pair is repeated so many times."""
    return [name.replace(".parquet", f"-{copy:02d}.parquet") if copy else name for copy in range(copied)]


def _chunks(item: dict[str, Any]) -> list[Chunk]:
    return [Chunk(**chunk) for chunk in json.loads(item["chunks"])]


def _cleaned(
    raw: pa.Table, chunk: Chunk, settings: dict[str, Any], tally: PrepareStats
) -> Iterator[tuple[str, pa.Table]]:
    """The normalised pairs of a chunk that no rule for one pair drops, by the split they belong to."""
    lines = {side: raw[side].to_pylist() for side in ("src", "tgt")}
    plain = {side: [is_plain(line) for line in lines[side]] for side in lines}
    form = {"text": settings["text"], "lowercase": settings["lowercase"]}
    texts = {side: normalised_lines(lines[side], plain[side], **form) for side in lines}
    ids = np.arange(chunk.first_id, chunk.first_id + chunk.rows)
    table = pa.table([ids, texts["src"], texts["tgt"]], schema=TEXT_SCHEMA)
    reasons = filter_by_text(
        table["src"].combine_chunks(), table["tgt"].combine_chunks(), CleanConfig(**settings["clean"])
    )
    for split, members in _members(chunk.split, texts["src"], settings["held_out"]):
        counts = tally.counts[split]
        counts["read"] += len(members)
        for side in ("src", "tgt"):
            counts.update(count_odd_lines([lines[side][row] for row in members.tolist() if not plain[side][row]]))
        if not is_given_test(split, settings):
            counts.update(count_reasons(reasons[members], TEXT_REASONS))
            members = members[reasons[members] == ADMITTED]
        if len(members):
            yield split, table if len(members) == len(table) else table.take(pa.array(members))


def normalised_lines(lines: list[str], plain: list[bool], *, text: str, lowercase: bool) -> list[str]:
    """Lines in a form of `corpus.text` as every later stage sees them (`normalise`); plain: `is_plain` of each."""
    if text != "raw":
        lines = [unescape_moses(line) for line in lines]
        plain = [is_plain(line) for line in lines]
    normalise_plain = lowercased if lowercase else str
    return [
        normalise_plain(line) if is_normal else normalise(line, lowercase=lowercase)
        for line, is_normal in zip(lines, plain, strict=True)
    ]


def _members(given: str, src: list[str], shares: dict[str, float]) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """The rows of a chunk that belong to each split."""
    if given != "train" or not shares:
        yield given, np.arange(len(src))
        return
    drawn = held_out_splits(src, shares)
    for number, split in enumerate(("train", *shares)):
        yield split, np.flatnonzero(drawn == number)


def _places(chunk: Chunk, table: pa.Table) -> NDArray[np.int64]:
    rows = table["id"].to_numpy() - chunk.first_id
    return rows + (chunk.number << _PLACE_BITS)


def _hashes(chunk: Chunk, split: str, table: pa.Table, settings: dict[str, Any]) -> list[Hashes]:
    places = _places(chunk, table)
    src, tgt = table["src"].to_pylist(), table["tgt"].to_pylist()
    hashes = []
    if settings["clean"]["test_overlap"]:
        hashes.append(hash_sentences(src, places, is_test=split == "test"))
    if settings["clean"]["duplicates"] and not is_given_test(split, settings):
        hashes.append(hash_pairs(src, tgt, places, split))
    return hashes


def _keep(
    store: Store, work: str, chunk: Chunk, split: str, table: pa.Table, settings: dict[str, Any], tally: PrepareStats
) -> None:
    """Writes what is left of a chunk for a split; of training text the pieces are counted."""
    if split == "train":
        times = copies(table["id"].to_numpy(), settings["weights"])
        if sampled_out := int((times == 0).sum()):
            tally.counts[split]["sampled_out"] += sampled_out
        table, times = table.filter(pa.array(times > 0)), times[times > 0]
        _count_text(_piece_counter(store.uri, work), table, times, tally)
    if len(table):
        write_table(store, table, work, "kept", split, chunk.name)
        tally.rows[split][chunk.number] = len(table)


def _count_text(counter: PieceCounter, table: pa.Table, times: NDArray[np.int64], tally: PrepareStats) -> None:
    words = words_of(_both_sides(table))
    tally.pieces.add(counter.table(words.distinct, words.counts(np.tile(times, 2))))
    tally.characters.update("".join(words.distinct))


def _both_sides(table: pa.Table) -> pa.StringArray:
    """The lines of the source, then those of the target."""
    return pa.chunked_array([*table["src"].chunks, *table["tgt"].chunks], pa.string()).combine_chunks()


@lru_cache(maxsize=1)
def _piece_counter(storage: str, work: str) -> PieceCounter:
    with scratch_directory("bert-") as scratch:
        bert = Store(storage).local(scratch, work, BERT)
        return PieceCounter(Segmenter.from_pretrained(str(bert)))


@lru_cache(maxsize=1)
def _encoder(storage: str, artifact: str) -> WordEncoder:
    # This pass comes last: what the others remember is of no more use.
    _piece_counter.cache_clear()
    with scratch_directory("tokenizer-") as scratch:
        return WordEncoder(load_tokenizer(Store(storage).local(scratch, artifact, TOKENIZER)))
