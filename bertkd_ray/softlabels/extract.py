"""The extract stage: maps the teacher over the corpus on an actor pool, one shard of soft labels a fragment.

A shard appears under its name in one step, so a run that was cut off goes on with the fragments that have none. The
bytes of a shard depend on its fragment, the teacher and the settings alone. Pairs that cannot be scored are not in it,
so that the distilled arms, which train on the shards, see fewer pairs than the control, which trains on the corpus.

The pairs of the valid split are labelled in the same way, into shards of their own, by which a student's divergence
from its teacher is followed; no figure of the artifact counts them, and those that cannot be scored are no fault.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact, load
from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.core.stages import BY_ARTIFACT
from bertkd_ray.corpus.passes import TOKENIZER
from bertkd_ray.execution.attempts import STATS, Attempt, finished
from bertkd_ray.execution.dead_letters import DeadLetter, ErrorBudget
from bertkd_ray.execution.device import open_device
from bertkd_ray.execution.resumable_map import FileJob, FinishedFile, resumable_map
from bertkd_ray.execution.stage import StageContext
from bertkd_ray.softlabels.fidelity import PARTS, Fidelity, fidelity, fidelity_by_part
from bertkd_ray.softlabels.fragments import kept_groups, read_fragment
from bertkd_ray.softlabels.shards import VALID_SHARDS, encode_shard, parquet_bytes, shard_schema
from bertkd_ray.teacher.finetune import load_finished


@dataclass(frozen=True)
class ExtractJob(FileJob):
    """What an actor needs; artifact and teacher are directories in the store."""

    artifact: str
    teacher: str
    config: Config

    def of_valid(self, pairs: int) -> ExtractJob:
        """The job of a fragment of the valid split: whatever cannot be scored is left out, and nothing is reported."""
        budget = replace(self.budget, share=1.0, pairs=pairs)
        return replace(self, budget=budget, report=lambda name, done: None)


def shard_name(fragment: str) -> str:
    """The file of soft labels of a fragment: `train/fragment-000007.parquet` becomes `shard-000007.parquet`.

    That of `valid/fragment-000000.parquet` is `valid-shard-000000.parquet`.
    """
    beginning = VALID_SHARDS if fragment.startswith("valid/") else "shard-"
    return beginning + Path(fragment).name.removeprefix("part-").removeprefix("fragment-")


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs that become a shard."""

    ids: NDArray[np.int64]
    src: Ragged
    tgt: Ragged
    groups: list[int]
    """Rows of the row groups."""
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Shard(FinishedFile):
    """A finished file of soft labels."""

    fidelity: Fidelity
    precision: str = ""
    by_part: dict[str, Fidelity] = field(default_factory=dict)
    """The fidelity of the parts of its positions; empty in a shard of an earlier version."""
    counts: dict[str, int] = field(default_factory=dict)
    """Of translations that were made for it."""

    @property
    def rows(self) -> int:
        """Pairs in it, 0 of the valid split."""
        return self.pairs - self.dead_letters

    @classmethod
    def of(cls, name: str, stats: dict[str, Any]) -> Shard:
        """The shard whose file says this of itself (`execution.attempts.STATS`); one of the valid split counts none."""
        rows, dead_letters = (0, 0) if name.startswith(VALID_SHARDS) else (stats["rows"], stats["rejects"])
        by_part = {part: Fidelity(**of_part) for part, of_part in stats.get("fidelity_by_part", {}).items()}
        measured, precision = Fidelity(**stats["fidelity"]), stats.get("precision", "")
        return cls(name, rows + dead_letters, dead_letters, measured, precision, by_part, stats.get("counts", {}))


def pending_artifact(config: Config, store: Store, inputs: dict[str, str]) -> PendingArtifact:
    """The soft-label artifact; the size of the batches shapes the last bits of bf16 sums."""
    return PendingArtifact.of(store, "softlabels", settings_of(config), inputs)


def settings_of(config: Config) -> dict[str, Any]:
    """What a pass of the teacher over some text depends on, beside that text and the teacher."""
    resolved = {"topk": config.stored_topk(), "passes": config.extract_passes(), "precision": config.precision}
    return config.extract.fingerprinted() | resolved


def make(pending: PendingArtifact, context: StageContext) -> Artifact:
    """Makes the soft-label artifact and measures its fidelity to the references.

    Raises UserError when scoring more than `max_rejects` of the pairs raises or kills its process; what is scored is
    kept, and a greater share finishes it.
    """
    config, corpus = context.config, context.inputs["corpus"]
    job = ExtractJob(
        storage=pending.store.uri,
        artifact=pending.directory,
        staging=pending.staging,
        corpus=corpus.directory,
        teacher=context.inputs["teacher"].directory,
        config=config,
        budget=ErrorBudget(BY_ARTIFACT[pending.stage].name, config.max_rejects, int(corpus.metrics["train/pairs"])),
    )
    made, dead_letters = resumable_map(
        pending,
        context.runtime,
        [entry.path for split in ("train", "valid") for entry in corpus.files_below(f"{split}/")],
        ShardWriter,
        job,
        finished=lambda fragment: finished_shard(pending.store, job, shard_name(fragment)),
        unit="pairs",
    )
    made.sort(key=lambda shard: shard.name)
    shards = [shard for shard in made if not shard.name.startswith(VALID_SHARDS)]
    with pending.store.open_input(pending.directory, shards[0].name) as source:
        topk_ids = pq.read_schema(source).field("topk_ids").type
    both = config.teacher.direction == "both"
    return pending.commit(
        made=[*(shard.name for shard in made), *dead_letters.keep()],
        metrics={**metrics_of(pending, shards), "rejects": len(dead_letters)},
        info={
            "k": config.stored_topk(),
            "mask_scheme": f"strided, {config.extract_passes()} passes" if both else "all positions at once",
            "vocabulary": corpus.info["vocabulary"],
            "topk_ids": str(topk_ids),
            "topk_logits": "float16",
            "logsumexp": "float32",
            "precision": ", ".join(sorted({shard.precision for shard in shards} - {""})),
        },
    )


class ShardWriter:
    """An actor that holds the teacher and turns fragments, given by their paths in the corpus, into shards."""

    def __init__(self, job: ExtractJob) -> None:
        from bertkd_ray.core.devices import resolve_precision
        from bertkd_ray.corpus.tokenizer import load_bert_ids
        from bertkd_ray.softlabels.scoring import Scorer

        self._store, self._job = Store(job.storage), job
        self._corpus = load(self._store, job.corpus)
        device, topk, passes = open_device(job.device), job.config.stored_topk(), job.config.extract_passes()
        with scratch_directory("teacher-") as scratch:
            model, specials = load_finished(load(self._store, job.teacher), scratch, device)
            bert_ids = load_bert_ids(self._corpus.local(TOKENIZER, scratch))
        self._scorer = Scorer(
            model,
            bert_ids,
            specials,
            topk=topk,
            passes=passes,
            batch_tokens=job.config.extract.forward_tokens,
            precision=resolve_precision(job.config.precision, device),
            device=device,
        )
        self._schema = shard_schema(len(bert_ids), topk, {"passes": str(passes)})

    def __call__(self, fragment: str) -> Shard:
        """Writes one shard unless it is there; its row groups are those of the fragment, less the rejected pairs."""
        name = shard_name(fragment)
        if shard := finished_shard(self._store, self._job, name):
            return shard
        attempt = Attempt(self._store, self._job.staging, name)
        table, groups = read_fragment(self._store, self._job.corpus, fragment, ["id", "src_ids", "tgt_ids"])
        src, tgt = (Ragged.from_arrow(table[side]) for side in ("src_ids", "tgt_ids"))
        return self._write(attempt, fragment, Pairs(table["id"].to_numpy(), src, tgt, groups))

    def _write(self, attempt: Attempt, fragment: str, pairs: Pairs, rejected: Sequence[DeadLetter] = ()) -> Shard:
        """Writes the shard of pairs, without those that cannot be scored; rejected: those that never came so far."""
        ids, src, tgt, groups = pairs.ids, pairs.src, pairs.tgt, pairs.groups
        job = self._job.of_valid(len(ids)) if attempt.name.startswith(VALID_SHARDS) else self._job
        isolation = job.isolation(self._store, ids, attempt, fragment, self._scorer.device)
        labels = self._scorer.score(src, tgt, ids, isolation)
        if isolation.dead_letters:
            kept = np.flatnonzero(isolation.kept)
            ids, src, tgt, labels = ids[kept], src.take(kept), tgt.take(kept), labels.take(kept)
            groups = kept_groups(groups, isolation.kept)
        dead_letters = [*rejected, *isolation.dead_letters]
        encoded = encode_shard(ids, src, tgt, labels, self._schema)
        stats = {
            "rows": len(ids),
            "rejects": len(dead_letters),
            "fidelity": asdict(fidelity(labels, tgt)),
            "fidelity_by_part": {part: asdict(of_part) for part, of_part in fidelity_by_part(labels, tgt).items()},
            "precision": self._scorer.precision,
            **({"counts": pairs.counts} if pairs.counts else {}),
        }
        metadata = {**encoded.schema.metadata, STATS: json.dumps(stats)}
        attempt.finish(dead_letters)
        data = parquet_bytes(encoded.replace_schema_metadata(metadata), groups)
        self._store.write(data, self._job.artifact, attempt.name)
        return Shard.of(attempt.name, stats)


def finished_shard(store: Store, job: ExtractJob, name: str) -> Shard | None:
    """The shard, or None when it has to be made."""
    stats = finished(store, job.staging, name, job.artifact, name)
    return None if stats is None else Shard.of(name, stats)


def metrics_of(pending: PendingArtifact, shards: list[Shard]) -> dict[str, float]:
    """The metrics of all shards."""
    report = sum((shard.fidelity for shard in shards), Fidelity()).report()
    by_part: dict[str, float] = {}
    if all(shard.by_part for shard in shards):
        for part in PARTS:
            of_part = sum((shard.by_part[part] for shard in shards), Fidelity()).report()
            by_part |= {f"fidelity/{part}/{name}": value for name, value in of_part.items() if math.isfinite(value)}
    if not by_part or math.isnan(report["gold_perplexity"]):
        # In shards of an earlier version the likelihood of the references is not counted either.
        del report["gold_perplexity"]
    sizes = dict(pending.store.files(pending.directory))
    return {
        **{f"fidelity/{name}": value for name, value in report.items() if name != "positions"},
        **by_part,
        "positions": report["positions"],
        "pairs": sum(shard.rows for shard in shards),
        "bytes_per_position": sum(sizes[shard.name] for shard in shards) / report["positions"],
    }
