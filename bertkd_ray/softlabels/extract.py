"""The extract stage: maps the teacher over the corpus on an actor pool, one shard of soft labels a fragment.

A shard appears under its name in one step, so a run that was cut off goes on with the fragments that have none. The
bytes of a shard depend on its fragment, the teacher and the settings alone. Pairs that cannot be scored are not in it,
so that the distilled arms, which train on the shards, see fewer pairs than the control, which trains on the corpus.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
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
from bertkd_ray.execution.resumable_map import FileJob, FinishedFile, resumable_map
from bertkd_ray.execution.stage import StageContext
from bertkd_ray.softlabels.fidelity import PARTS, Fidelity, fidelity, fidelity_by_part
from bertkd_ray.softlabels.fragments import kept_groups, read_fragment
from bertkd_ray.softlabels.shards import encode_shard, parquet_bytes, shard_schema
from bertkd_ray.teacher.finetune import load_finished


@dataclass(frozen=True)
class ExtractJob(FileJob):
    """What an actor needs; artifact and teacher are directories in the store."""

    artifact: str
    teacher: str
    config: Config


def shard_name(fragment: str) -> str:
    """The file of soft labels of a fragment: `train/fragment-000007.parquet` becomes `shard-000007.parquet`."""
    return f"shard-{Path(fragment).name.removeprefix('part-').removeprefix('fragment-')}"


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
        """Pairs in it."""
        return self.pairs - self.dead_letters


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
    shards, dead_letters = resumable_map(
        pending,
        context.runtime,
        [entry.path for entry in corpus.files_below("train/")],
        ShardWriter,
        job,
        finished=lambda fragment: finished_shard(pending.store, job, shard_name(fragment)),
        unit="pairs",
    )
    shards.sort(key=lambda shard: shard.name)
    with pending.store.open_input(pending.directory, shards[0].name) as source:
        topk_ids = pq.read_schema(source).field("topk_ids").type
    both = config.teacher.direction == "both"
    return pending.commit(
        made=[*(shard.name for shard in shards), *dead_letters.keep()],
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
        from bertkd_ray.core.devices import best_device, resolve_precision
        from bertkd_ray.corpus.tokenizer import load_bert_ids
        from bertkd_ray.softlabels.scoring import Scorer

        self._store, self._job = Store(job.storage), job
        self._corpus = load(self._store, job.corpus)
        device, topk, passes = best_device(), job.config.stored_topk(), job.config.extract_passes()
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
        isolation = self._job.isolation(self._store, ids, attempt, fragment, self._scorer.device)
        labels = self._scorer.score(src, tgt, ids, isolation)
        if isolation.dead_letters:
            kept = np.flatnonzero(isolation.kept)
            ids, src, tgt, labels = ids[kept], src.take(kept), tgt.take(kept), labels.take(kept)
            groups = kept_groups(groups, isolation.kept)
        dead_letters = [*rejected, *isolation.dead_letters]
        measured, by_part = fidelity(labels, tgt), fidelity_by_part(labels, tgt)
        counted, precision = len(ids) + len(dead_letters), self._scorer.precision
        shard = Shard(attempt.name, counted, len(dead_letters), measured, precision, by_part, pairs.counts)
        encoded = encode_shard(ids, src, tgt, labels, self._schema)
        stats = {"rows": shard.rows, "rejects": shard.dead_letters, "fidelity": asdict(measured)}
        stats["fidelity_by_part"] = {part: asdict(of_part) for part, of_part in by_part.items()}
        stats |= {"precision": precision, **({"counts": pairs.counts} if pairs.counts else {})}
        metadata = {**encoded.schema.metadata, STATS: json.dumps(stats)}
        attempt.finish(dead_letters)
        data = parquet_bytes(encoded.replace_schema_metadata(metadata), groups)
        self._store.write(data, self._job.artifact, attempt.name)
        return shard


def finished_shard(store: Store, job: ExtractJob, name: str) -> Shard | None:
    """The shard, or None when it has to be made."""
    stats = finished(store, job.staging, name, job.artifact, name)
    if stats is None:
        return None
    pairs, precision = stats["rows"] + stats["rejects"], stats.get("precision", "")
    by_part = {part: Fidelity(**of_part) for part, of_part in stats.get("fidelity_by_part", {}).items()}
    fidelity = Fidelity(**stats["fidelity"])
    return Shard(name, pairs, stats["rejects"], fidelity, precision, by_part, stats.get("counts", {}))


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
