"""The augment stage: the teacher translates monolingual text and labels what it wrote, one shard a fragment of it.

Students that learn from the teacher train on these pairs beside their own, under `kd.monolingual_weight`; those without
soft labels read the sides alone. Shards are those of soft labels, and a run that was cut off goes on with the fragments
that have none. Text that cannot be translated or scored is not in it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.core.stages import AUGMENT
from bertkd_ray.corpus.monolingual import encode_monolingual
from bertkd_ray.corpus.sources import monolingual_hashes, monolingual_settings
from bertkd_ray.execution.attempts import Attempt
from bertkd_ray.execution.dead_letters import ErrorBudget
from bertkd_ray.execution.resumable_map import resumable_map
from bertkd_ray.execution.stage import StageContext
from bertkd_ray.softlabels import extract
from bertkd_ray.softlabels.decode import SourceTranslator, translation_counts, warn_of_many
from bertkd_ray.softlabels.extract import ExtractJob, Pairs, Shard, ShardWriter, finished_shard, shard_name
from bertkd_ray.softlabels.fragments import kept_groups, read_fragment


@dataclass(frozen=True)
class AugmentJob(ExtractJob):
    """What an actor needs."""

    text: str
    """Directory in the store with the fragments of monolingual text."""


def pending_artifact(config: Config, store: Store, inputs: dict[str, str]) -> PendingArtifact:
    """The artifact of translated monolingual text, which enters by content."""
    settings = {
        "decode": config.decode.fingerprinted(),
        "extract": extract.settings_of(config),
        "corpus": monolingual_settings(config.corpus),
    }
    return PendingArtifact.of(store, AUGMENT.artifact, settings, {**inputs, **monolingual_hashes(config.corpus)})


def make(pending: PendingArtifact, context: StageContext) -> Artifact:
    """Makes the artifact of translated monolingual text.

    Raises UserError for text that cannot be read, when none of it is left, and as extract and decode.
    """
    config, corpus, runtime = context.config, context.inputs["corpus"], context.runtime
    text = encode_monolingual(pending, runtime, config.corpus, corpus, AUGMENT.name)
    job = AugmentJob(
        storage=pending.store.uri,
        artifact=pending.directory,
        staging=pending.staging,
        corpus=corpus.directory,
        teacher=context.inputs["teacher"].directory,
        config=config,
        budget=ErrorBudget(AUGMENT.name, config.max_rejects, text.counts["sentences"]),
        text=text.directory,
    )
    shards, dead_letters = resumable_map(
        pending,
        runtime,
        text.fragments,
        AugmentWriter,
        job,
        finished=lambda fragment: finished_shard(pending.store, job, shard_name(fragment)),
        unit="sentences",
    )
    shards.sort(key=lambda shard: shard.name)
    metrics = extract.metrics_of(pending, shards)
    counts: Counter[str] = sum((Counter(shard.counts) for shard in shards), Counter())
    shares = {name: counts[name] / max(1, metrics["pairs"]) for name in ("empty", "unended")}
    warn_of_many(shares, AUGMENT.name)
    tokens = {name: counts[name] for name in ("src_tokens", "tgt_tokens")}
    return pending.commit(
        made=[*(shard.name for shard in shards), *dead_letters.keep()],
        metrics={**metrics, **tokens, **shares, "rejects": len(dead_letters)},
        info={
            "k": config.stored_topk(),
            "vocabulary": corpus.info["vocabulary"],
            "sentences": text.counts,
            "precision": ", ".join(sorted({shard.precision for shard in shards} - {""})),
        },
    )


class AugmentWriter(ShardWriter):
    """An actor that holds the teacher, translates fragments of monolingual text, given by name, and labels them."""

    def __init__(self, job: AugmentJob) -> None:
        super().__init__(job)
        self._text, scorer = job.text, self._scorer
        self._translator = SourceTranslator(
            scorer.model, scorer.bert_ids, scorer.specials, job.config, scorer.precision
        )

    def __call__(self, fragment: str) -> Shard:
        """Writes one shard unless it is there."""
        name = shard_name(fragment)
        if shard := finished_shard(self._store, self._job, name):
            return shard
        attempt = Attempt(self._store, self._job.staging, name)
        table, groups = read_fragment(self._store, self._text, fragment, ["id", "src_ids"])
        src, ids = Ragged.from_arrow(table["src_ids"]), table["id"].to_numpy()
        isolation = self._job.isolation(self._store, ids, attempt, fragment, self._scorer.device)
        tgt, _, unended = self._translator.translate(src, isolation)
        rows = np.flatnonzero(isolation.kept)
        src, tgt = src.take(rows), tgt.take(rows)
        counts = translation_counts(src, tgt, unended[rows])
        pairs = Pairs(ids[rows], src, tgt, kept_groups(groups, isolation.kept), counts)
        return self._write(attempt, fragment, pairs, isolation.dead_letters)
