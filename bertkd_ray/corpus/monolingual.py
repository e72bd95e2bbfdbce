"""Monolingual text as token ids, for the teacher to translate: cleaned and encoded by the passes of prepare.

A sentence goes through them as a pair with itself, so that the rules for one side do to it what they do to pairs, and
those for two (equal sides, the ratio of their lengths) nothing. The tokenizer is the corpus's: monolingual text adds no
token to it, and a corpus, its teacher and the students without such text stay as they are.
"""

import json
from collections import Counter
from dataclasses import dataclass

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact
from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.config.corpus import CorpusConfig
from bertkd_ray.core.errors import UserError
from bertkd_ray.corpus import passes
from bertkd_ray.corpus.chunks import Chunk, chunks_of_source, grouped, packed
from bertkd_ray.corpus.cleaning import ID_MONOLINGUAL_BIT, ID_SOURCE_BITS
from bertkd_ray.corpus.deduplication import bucket_count
from bertkd_ray.corpus.passes import TOKENIZER, PendingFragment, PrepareJob
from bertkd_ray.corpus.prepare import require_unchanged, run_pass
from bertkd_ray.corpus.sources import MONOLINGUAL, monolingual_hashes, read_monolingual
from bertkd_ray.execution.interface import Runtime

REASONS = ("empty", "too_few_words", "too_many_words", "test_overlap", "duplicate", "side_too_long")
"""Why a sentence is dropped, in the order of the rules; it is counted under the first that applies."""
_SPLIT = "valid"  # for the passes: one whose pairs rules may drop, and of which no vocabulary is counted
_TEXT, _DONE = "text", "text.json"


@dataclass(frozen=True)
class EncodedText:
    """Fragments of token ids in the staging directory of an artifact."""

    directory: str
    """The directory in the store; it holds the tokenizer too."""
    fragments: list[str]
    """Names of the files in it, with the columns of a corpus; source and target are the same."""
    counts: dict[str, int]
    """Sentences that were read, that are left (`sentences`) and that were dropped, by reason; tokens of those left;
    what the readers left out."""


def encode_monolingual(
    pending: PendingArtifact, runtime: Runtime, corpus: CorpusConfig, prepared: Artifact, stage: str
) -> EncodedText:
    """Cleans and encodes `corpus.monolingual`, unless an earlier run of this artifact has done so.

    prepared: the corpus, whose tokenizer encodes the text and whose test sources are dropped from it, always and
    whatever their case. stage: what progress lines begin with. Raises UserError for text that cannot be read or has
    changed, and where nothing is left of it.
    """
    store, directory = pending.store, f"{pending.staging}/{_TEXT}"
    if store.exists(pending.staging, _DONE):
        done = json.loads(store.read(pending.staging, _DONE))
        return EncodedText(directory, done["fragments"], done["counts"])
    chunks: list[Chunk] = []
    left_out: Counter[str] = Counter()
    for source, tables in enumerate(read_monolingual(corpus, left_out)):
        first_id = 1 << ID_MONOLINGUAL_BIT | source << ID_SOURCE_BITS
        chunks += chunks_of_source(pending, _SPLIT, tables, corpus.fragment_pairs, len(chunks), first_id)
    require_unchanged(pending, monolingual_hashes(corpus))
    with scratch_directory("tokenizer-") as scratch:
        store.upload(prepared.local(TOKENIZER, scratch), directory, TOKENIZER)
    runtime.start()
    groups = list(enumerate(grouped(chunks)))
    test = prepared.read_table("test/", ["src"])["src"].to_pylist()
    job = PrepareJob(
        store.uri,
        pending.staging,
        directory,
        _as_pairs(corpus),
        bucket_count(2 * sum(chunk.rows for chunk in chunks) + len(test)),
        (*(of_group[0].number for _, of_group in groups), len(chunks)),
    )
    passes.hash_other_test(test, len(groups), job)
    stats = run_pass(f"{stage}, clean", passes.clean_group, groups, job, runtime)
    buckets = list(range(job.buckets))
    stats.add(run_pass(f"{stage}, duplicates", passes.find_duplicates_in_bucket, buckets, job, runtime))
    stats.add(run_pass(f"{stage}, drop", passes.apply_drops, groups, job, runtime))
    rows = [(chunks[number].name, left) for number, left in sorted(stats.rows[_SPLIT].items())]
    fragments = [
        PendingFragment(_SPLIT, f"fragment-{number:06d}.parquet", names)
        for number, names in enumerate(packed(rows, corpus.fragment_pairs))
    ]
    stats.add(run_pass(f"{stage}, encode", passes.encode_group, grouped(fragments), job, runtime))
    all_counts = stats.counts[_SPLIT]
    counts = {"read": all_counts["read"], "sentences": all_counts["pairs"], "src_tokens": all_counts["src_tokens"]}
    counts |= {reason: all_counts[reason] for reason in REASONS} | left_out
    if not counts["sentences"]:
        reasons = ", ".join(f"{counts[reason]} {reason}" for reason in REASONS if counts[reason])
        raise UserError(f"corpus.{MONOLINGUAL}: no sentence is left ({reasons or 'the files are empty'})")
    text = EncodedText(directory, sorted(stats.files), counts)
    done = {"fragments": text.fragments, "counts": text.counts}
    store.write(json.dumps(done).encode(), pending.staging, _DONE)
    return text


def _as_pairs(corpus: CorpusConfig) -> CorpusConfig:
    """The settings for pairs of a sentence with itself, none held out; a source must leave room for a target."""
    alone = {"identical_sides": False, "max_ratio": None, "test_overlap": True}
    longest = min(corpus.max_side_tokens, corpus.max_pair_tokens - 1)
    return corpus.model_copy(
        update={
            "clean": corpus.clean.model_copy(update=alone),
            "valid": None,
            "test": None,
            "max_side_tokens": longest,
            "max_pair_tokens": 2 * longest,
        }
    )
