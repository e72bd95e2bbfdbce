"""The prepare stage: parallel text to token ids in Parquet, with the student's tokenizer beside them.

The driver cuts the text once into chunks of raw pairs (`corpus.chunks`); the cluster does everything else
(`corpus.passes`) and hands back counts. The driver holds the vocabulary and a few numbers a chunk, never the text's
words.
"""

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact
from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config
from bertkd_ray.config.corpus import SPLITS, CorpusConfig
from bertkd_ray.core.console import Progress, log
from bertkd_ray.core.errors import UserError
from bertkd_ray.corpus import passes
from bertkd_ray.corpus.bert_tokenizer import TOKENIZER_FILES, load_bert_tokenizer, tokenizer_hash
from bertkd_ray.corpus.chunks import Chunk, grouped, packed, read_table, split_into_chunks
from bertkd_ray.corpus.cleaning import REASONS
from bertkd_ray.corpus.deduplication import bucket_count
from bertkd_ray.corpus.iwslt14 import check_counts
from bertkd_ray.corpus.passes import BERT, TOKENIZER, PendingFragment, PrepareJob
from bertkd_ray.corpus.segmentation import Segmenter
from bertkd_ray.corpus.sources import MONOLINGUAL, source_hashes, source_settings
from bertkd_ray.corpus.statistics import PrepareStats
from bertkd_ray.corpus.swapped_sides import repeated_text, swapped_names, swapped_splits
from bertkd_ray.corpus.tokenizer import UNK_ID, Vocabulary, build_vocabulary, pieces_of, save_vocabulary, types_by_count
from bertkd_ray.corpus.trimming import trimmed
from bertkd_ray.execution.interface import Item, Runtime
from bertkd_ray.execution.stage import StageContext

_NOT_SETTINGS = frozenset({*SPLITS, MONOLINGUAL, "source", "directory", "archive", "archive_sha256", "cache"})
"""The text enters the fingerprint by its content, not by its paths; of monolingual text a corpus knows nothing."""


def pending_artifact(config: Config, store: Store, inputs: dict[str, str]) -> PendingArtifact:
    """The corpus artifact to be made; its text enters by content, the BERT by its tokenizer files."""
    corpus = config.corpus
    rule = {"dotted_i": True} if any(map(corpus.dotted_i, ("src", "tgt"))) else {}
    settings = corpus.fingerprinted(exclude=_NOT_SETTINGS) | rule | corpus.languages() | source_settings(corpus)
    return PendingArtifact.of(store, "corpus", settings, {**inputs, **source_hashes(corpus)})


def make(pending: PendingArtifact, context: StageContext) -> Artifact:
    """Makes the corpus artifact; the BERT's tokenizer segments the text.

    Raises UserError for text that cannot be read, when nothing is left of a split, and where text or tokenizer are no
    longer what the fingerprint says. After a kill, fragments that are finished are kept and the rest is done again.
    """
    config, runtime, bert = context.config, context.runtime, context.bert
    pending.store.delete(pending.staging)
    segmenter = _share_bert(pending, bert)
    left_out = {split: Counter[str]() for split in SPLITS}
    chunks = split_into_chunks(pending, config.corpus, left_out)
    require_unchanged(pending, source_hashes(config.corpus))
    first = {chunk.split: chunk for chunk in reversed(chunks)}
    samples = {split: read_table(pending.store, pending.staging, "raw", chunk.name) for split, chunk in first.items()}
    for warning in (*swapped_names(config.corpus), *swapped_splits(samples), *repeated_text(samples)):
        log(f"warning: {warning}", stage="prepare")
    runtime.start()
    job = PrepareJob(pending.store.uri, pending.staging, pending.directory, config.corpus)
    stats = _clean(job, runtime, chunks)
    for split in SPLITS:
        stats.counts[split].update(left_out[split])
    vocabulary = _write_tokenizer(job, runtime, segmenter, chunks, stats)
    _encode(job, runtime, chunks, stats)
    splits = {split: _counts(config.corpus, split, stats.counts[split]) for split in SPLITS}
    read = {split: splits[split]["read"] for split in SPLITS}
    if config.corpus.source == "iwslt14" and (remark := check_counts(read)):
        log(f"warning: {remark}", stage="prepare")
    form = {"text": config.corpus.text, **config.corpus.languages()}
    info = {**vocabulary, "splits": splits, **form}
    return pending.commit(made=[TOKENIZER, *stats.files], metrics=_metrics(info), info=info)


def _clean(job: PrepareJob, runtime: Runtime, chunks: list[Chunk]) -> PrepareStats:
    """Leaves the pairs that are to be encoded below `kept` of the staging directory."""
    rules = job.corpus.clean
    hashes_per_pair = rules.duplicates + rules.test_overlap
    buckets = bucket_count(hashes_per_pair * sum(chunk.rows for chunk in chunks)) if hashes_per_pair else 0
    groups = list(enumerate(grouped(chunks)))
    job = replace(job, buckets=buckets, group_starts=tuple(group[0].number for _, group in groups))
    stats = run_pass("prepare, clean", passes.clean_group, groups, job, runtime)
    if buckets:
        stats.add(run_pass("prepare, duplicates", passes.find_duplicates_in_bucket, list(range(buckets)), job, runtime))
        stats.add(run_pass("prepare, drop", passes.apply_drops, groups, job, runtime))
    return stats


def _encode(job: PrepareJob, runtime: Runtime, chunks: list[Chunk], stats: PrepareStats) -> None:
    """Writes the fragments of all splits, and adds their files and counts."""
    fragments = []
    for split in SPLITS:
        rows = [(chunks[number].name, rows) for number, rows in sorted(stats.rows[split].items())]
        for number, names in enumerate(packed(rows, job.corpus.fragment_pairs)):
            fragments.append(PendingFragment(split, f"{split}/fragment-{number:06d}.parquet", names))
    stats.add(run_pass("prepare, encode", passes.encode_group, grouped(fragments), job, runtime))


def run_pass(
    name: str, worker: Callable[[Item, PrepareJob], PrepareStats], items: list[Item], job: PrepareJob, runtime: Runtime
) -> PrepareStats:
    """Runs a pass over the cluster; the sum of what it counts. name: of the pass on the progress line."""
    stats = PrepareStats()
    with Progress(len(items), name, "groups") as progress:
        for done, of_item in enumerate(runtime.map(items, worker, job) if items else (), start=1):
            stats.add(of_item)
            progress.update(done)
    return stats


def _share_bert(pending: PendingArtifact, bert: str) -> Segmenter:
    """Puts the BERT's tokenizer where every worker finds it; its segmenter."""
    with scratch_directory("bert-") as directory:
        for name in ("config.json", *TOKENIZER_FILES):
            if (Path(bert) / name).is_file():
                shutil.copy(Path(bert) / name, directory)
        require_unchanged(pending, {"bert_tokenizer": tokenizer_hash(directory)})
        pending.store.upload(directory, pending.staging, BERT)
        return Segmenter(load_bert_tokenizer(directory))


def require_unchanged(pending: PendingArtifact, hashes: dict[str, str]) -> None:
    """Raises UserError where what has been read is not what the fingerprint is of (a copy still goes on)."""
    for name, digest in hashes.items():
        if pending.inputs[name] != digest:
            key = "teacher.model: its tokenizer" if name == "bert_tokenizer" else f"corpus.{name}: the text"
            raise UserError(f"{key} changed while it was read; run the command again when nothing writes to it")


def _write_tokenizer(
    job: PrepareJob, runtime: Runtime, segmenter: Segmenter, chunks: list[Chunk], stats: PrepareStats
) -> dict[str, Any]:
    """Builds the vocabulary, trimmed if it is larger than it may be; what the manifest says of it."""
    # What a student reads is of the source; the target has been lower-cased before it is encoded.
    rules = {"lowercase": job.corpus.lowercase, "dotted_i": job.corpus.dotted_i("src")}
    vocabulary = build_vocabulary(pieces_of(stats.pieces.table()), stats.characters, segmenter, **rules)
    before = {}
    if (most := job.corpus.max_vocabulary) is not None and len(vocabulary) > most:
        before = {
            "untrimmed": {"vocabulary": len(vocabulary), "types": types_by_count(vocabulary.tokens, vocabulary.counts)}
        }
        _save_tokenizer(job, job.staging, trimmed(vocabulary, most, segmenter))
        names = [chunks[number].name for number in sorted(stats.rows["train"])]
        recounted = run_pass("prepare, count", passes.count_tokens, grouped(names), job, runtime)
        vocabulary = build_vocabulary(pieces_of(recounted.pieces.table()), stats.characters, segmenter, **rules)
    _save_tokenizer(job, job.artifact, vocabulary)
    unknown = (vocabulary.bert_ids == vocabulary.bert_ids[UNK_ID]) & (vocabulary.counts > 0)
    tokens_with_unk = int(np.count_nonzero(unknown))
    return {
        "vocabulary": len(vocabulary),
        "tokens_with_unk": tokens_with_unk,
        "types": types_by_count(vocabulary.tokens, vocabulary.counts),
        **before,
    }


def _save_tokenizer(job: PrepareJob, directory: str, vocabulary: Vocabulary) -> None:
    with scratch_directory("tokenizer-") as scratch:
        save_vocabulary(vocabulary, scratch)
        Store(job.storage).upload(scratch, directory, TOKENIZER)


def _counts(corpus: CorpusConfig, split: str, counts: Counter[str]) -> dict[str, int]:
    """What the manifest says of a split. Raises UserError if nothing is left of it."""
    dropped = {} if corpus.is_given_test(split) else {reason: counts[reason] for reason in REASONS}
    if counts["pairs"] == 0:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count)
        share = corpus.held_out().get(split)
        empty = f"held_out: {share} took none of train, raise it" if share else "the files are empty"
        raise UserError(f"corpus.{split}: no pair is left ({reasons or empty})")
    return {"read": counts["read"], "pairs": counts["pairs"], **dropped, **counts}


def _metrics(info: dict[str, Any]) -> dict[str, float]:
    figures: dict[str, float] = {"vocabulary": info["vocabulary"]}
    for split, counts in info["splits"].items():
        figures[f"{split}/dropped"] = sum(counts.get(reason, 0) for reason in REASONS)
        for name in ("pairs", "src_tokens", "src_unknown", "tgt_tokens", "tgt_unknown"):
            figures[f"{split}/{name}"] = counts.get(name, 0)
    return figures
