"""Stage 0, prepare: parallel text to token ids in Parquet, with the student's tokenizer beside them.

The driver cuts the text once into chunks of raw pairs (`corpus.chunks`); the cluster does everything else
(`corpus.passes`) and hands back counts. The driver holds the token space and a few numbers a chunk, never the text's
words.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact, fingerprint
from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config
from bertkd_ray.config.corpus import SPLITS
from bertkd_ray.core.console import Progress, log
from bertkd_ray.core.errors import UserError
from bertkd_ray.corpus.chunks import Chunk, grouped, packed, read_table, split_into_chunks
from bertkd_ray.corpus.cleaning import REASONS
from bertkd_ray.corpus.deduplication import bucket_count
from bertkd_ray.corpus.passes import (
    BERT,
    CORPUS_SCHEMA,
    TOKENIZER,
    apply_drops,
    clean_group,
    encode_group,
    find_duplicates_in_bucket,
    is_given_test,
)
from bertkd_ray.corpus.segmentation import Segmenter
from bertkd_ray.corpus.sources import source_hashes, source_settings
from bertkd_ray.corpus.statistics import PrepareStats
from bertkd_ray.corpus.swapped_sides import swapped_names, swapped_splits
from bertkd_ray.corpus.tokenizer import UNK_ID, build_vocabulary, pieces_of, save_vocabulary

if TYPE_CHECKING:
    from bertkd_ray.execution.ray.session import Runtime

__all__ = ["CORPUS_SCHEMA", "SPLITS", "TOKENIZER", "pending_artifact", "prepare"]

_NOT_SETTINGS = {*SPLITS, "source", "directory", "archive", "archive_sha256", "cache"}
_BERT_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")


def pending_artifact(config: Config, store: Store, tokenizer_hash: str) -> PendingArtifact:
    """The corpus artifact to be made; its text enters by content, the BERT by its tokenizer files."""
    settings = {**config.corpus.model_dump(exclude=_NOT_SETTINGS), **source_settings(config.corpus)}
    inputs = {"bert_tokenizer": tokenizer_hash, **source_hashes(config.corpus)}
    return PendingArtifact(store, "corpus", fingerprint("corpus", settings, inputs), settings, inputs)


def prepare(work: PendingArtifact, config: Config, runtime: Runtime, bert: str) -> Artifact:
    """Makes the corpus artifact.

    bert: directory of the BERT whose tokenizer segments the text. Raises UserError for text that cannot be read, or
    when nothing is left of a split. After a kill, fragments that are finished are kept and the rest is done again.
    """
    work.store.delete(work.staging)
    chunks = split_into_chunks(work, config.corpus)
    _warn_of_swapped_sides(work, config, chunks)
    _share_bert(work, bert)
    runtime.start()
    tally = _clean(work, runtime, chunks)
    vocabulary, tokens_with_unk = _write_tokenizer(work, Segmenter.from_pretrained(bert), tally)
    fragments = _encode(work, runtime, tally)
    splits = {split: _counts(work, split, tally.counts[split]) for split in SPLITS}
    _warn(config, splits)
    languages = {key: work.config[key] for key in ("text", "src_lang", "tgt_lang")}
    info = {"vocabulary": vocabulary, "splits": splits, "tokens_with_unk": tokens_with_unk, **languages}
    return work.commit(made=[TOKENIZER, *fragments], metrics=_metrics(info), info=info)


def _clean(work: PendingArtifact, runtime: Runtime, chunks: list[Chunk]) -> PrepareStats:
    """Leaves the pairs that are to be encoded below `kept` of the work directory."""
    rules = work.config["clean"]
    hashes_per_pair = rules["duplicates"] + rules["test_overlap"]
    buckets = bucket_count(hashes_per_pair * sum(chunk.rows for chunk in chunks)) if hashes_per_pair else 0
    groups = grouped(chunks)
    items = [
        {"group": number, "chunks": json.dumps([c.as_json() for c in group])} for number, group in enumerate(groups)
    ]
    place = {"storage": work.store.uri, "work": work.staging}
    arguments = {**place, "settings": work.config, "buckets": buckets}
    tally = PrepareStats()
    _each(runtime, items, clean_group, arguments, "clean", tally.add)
    if buckets:
        parts = [{"bucket": bucket} for bucket in range(buckets)]
        starts = {"group_starts": [group[0].number for group in groups]}
        _each(runtime, parts, find_duplicates_in_bucket, {**place, **starts}, "resolve", lambda row: None)
        _each(runtime, items, apply_drops, arguments, "settle", tally.add)
    return tally


def _encode(work: PendingArtifact, runtime: Runtime, tally: PrepareStats) -> list[str]:
    """Writes the fragments of all splits, whose files it returns, and adds what was found to the tally."""
    fragments, files = [], []
    for split in SPLITS:
        rows = [(Chunk.file_name(number), tally.rows[split][number]) for number in sorted(tally.rows[split])]
        for number, parts in enumerate(packed(rows, work.config["fragment_pairs"])):
            fragments.append({"split": split, "number": number, "parts": parts})
    items = [{"fragments": json.dumps(group)} for group in grouped(fragments)]
    arguments = {
        "storage": work.store.uri,
        "work": work.staging,
        "artifact": work.directory,
        "settings": work.config,
    }

    def take(row: dict[str, Any]) -> None:
        for split, counts in json.loads(row["counts"]).items():
            tally.counts[split].update(counts)
        files.extend(row["files"])

    _each(runtime, items, encode_group, arguments, "encode", take)
    return files


def _each(
    runtime: Runtime,
    items: list[dict[str, Any]],
    function: Callable[..., dict[str, Any]],
    arguments: dict[str, Any],
    what: str,
    take: Callable[[dict[str, Any]], None],
) -> None:
    """Maps a pass over the cluster and takes each result as it comes."""
    with Progress(len(items), f"prepare, {what}", "parts") as progress:
        for done, row in enumerate(runtime.map(items, function, arguments) if items else (), start=1):
            take(row)
            progress.update(done)


def _share_bert(work: PendingArtifact, bert: str) -> None:
    """Puts the BERT's tokenizer where every worker finds it."""
    with scratch_directory("bert-") as directory:
        for name in _BERT_FILES:
            if (Path(bert) / name).is_file():
                shutil.copy(Path(bert) / name, directory)
        work.store.upload(directory, work.staging, BERT)


def _write_tokenizer(work: PendingArtifact, segmenter: Segmenter, tally: PrepareStats) -> tuple[int, int]:
    """Builds the token space; returns V and the tokens without a piece."""
    space = build_vocabulary(
        pieces_of(tally.pieces.table()), tally.characters, segmenter, lowercase=work.config["lowercase"]
    )
    with scratch_directory("tokenizer-") as directory:
        save_vocabulary(space, directory)
        work.store.upload(directory, work.directory, TOKENIZER)
    unknown = space.bert_ids == space.bert_ids[UNK_ID]
    return len(space), int(np.count_nonzero(unknown & (space.counts > 0)))


def _counts(work: PendingArtifact, split: str, found: Counter[str]) -> dict[str, int]:
    """What the manifest says of a split. Raises UserError if nothing is left of it."""
    dropped = {} if is_given_test(split, work.config) else {reason: found[reason] for reason in REASONS}
    if found["pairs"] == 0:
        told = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count)
        share = work.config["held_out"].get(split)
        empty = f"held_out: {share} took none of train, raise it" if share else "the files are empty"
        raise UserError(f"corpus.{split}: no pair is left ({told or empty})")
    return {"read": found["read"], "pairs": found["pairs"], **dropped, **found}


def _warn_of_swapped_sides(work: PendingArtifact, config: Config, chunks: list[Chunk]) -> None:
    first = {chunk.split: chunk for chunk in reversed(chunks)}
    samples = {split: read_table(work.store, work.staging, "raw", chunk.name) for split, chunk in first.items()}
    for remark in (*swapped_names(config.corpus), *swapped_splits(samples)):
        log(f"warning: {remark}", stage="prepare")


def _warn(config: Config, splits: dict[str, dict[str, int]]) -> None:
    """Says so if IWSLT14 is not the one that others publish results on."""
    if config.corpus.source != "iwslt14":
        return
    from bertkd_ray.corpus.iwslt14 import check_counts

    if remark := check_counts({split: splits[split]["read"] for split in SPLITS}):
        log(f"warning: {remark}", stage="prepare")


def _metrics(info: dict[str, Any]) -> dict[str, float]:
    figures: dict[str, float] = {"vocabulary": info["vocabulary"]}
    for split, counts in info["splits"].items():
        figures[f"{split}/pairs"] = counts["pairs"]
        figures[f"{split}/dropped"] = sum(counts.get(reason, 0) for reason in REASONS)
        for side in ("src", "tgt"):
            figures[f"{split}/{side}_tokens"] = counts.get(f"{side}_tokens", 0)
            figures[f"{split}/{side}_unknown"] = counts.get(f"{side}_unknown", 0)
    return figures
