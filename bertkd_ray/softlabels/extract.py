"""Stage 2, extract: maps the teacher over the corpus on an actor pool, one shard of soft labels a fragment.

A shard appears under its name in one step, so a run that was cut off goes on with the fragments that have none. The
bytes of a shard depend on its fragment, the teacher and the settings alone. Pairs that cannot be scored are not in it,
so that the distilled arms, which train on the shards, see fewer pairs than the control, which trains on the corpus.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact, fingerprint, load
from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config
from bertkd_ray.core.console import Progress
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.corpus.prepare import TOKENIZER
from bertkd_ray.execution.attempts import STATS, Attempt, dead_letters_of, finished
from bertkd_ray.execution.dead_letters import DeadLetters, ErrorBudget
from bertkd_ray.execution.fault_isolation import FaultIsolation
from bertkd_ray.softlabels.fidelity import Fidelity, fidelity
from bertkd_ray.softlabels.shards import encode_shard, parquet_bytes, shard_schema
from bertkd_ray.teacher.finetune import MODEL, SPECIALS
from bertkd_ray.teacher.masking import BertSpecials

if TYPE_CHECKING:
    from bertkd_ray.execution.interface import Runtime


@dataclass(frozen=True)
class ExtractSettings:
    """What the soft labels depend on besides corpus and teacher."""

    topk: int
    """Logits stored a position."""
    passes: int
    """Times each pair is seen."""
    forward_tokens: int
    """Padded tokens a forward pass; it shapes the batches, and with them the last bits of bf16 sums."""
    precision: Literal["auto", "bf16", "float32"]

    @classmethod
    def from_config(cls, config: Config) -> ExtractSettings:
        """The settings of a configuration."""
        return cls(config.stored_topk(), config.extract.passes, config.extract.forward_tokens, config.precision)

    def fingerprinted(self) -> dict[str, Any]:
        """What enters the fingerprint: all of it, under the names of the first artifacts."""
        settings = asdict(self)
        return {"batch_tokens": settings.pop("forward_tokens"), **settings}


@dataclass(frozen=True)
class ExtractJob:
    """What an actor needs: the store and directories in it, the settings, and the pairs that may be left out."""

    storage: str
    artifact: str
    staging: str
    corpus: str
    teacher: str
    settings: ExtractSettings
    budget: ErrorBudget


@dataclass(frozen=True)
class Fragment:
    """A file of the corpus that becomes one shard."""

    path: str
    """Below the corpus's directory."""

    @property
    def shard(self) -> str:
        """The name of its file of soft labels: `train/fragment-000007.parquet` becomes `shard-000007.parquet`."""
        return f"shard-{Path(self.path).name.removeprefix('part-').removeprefix('fragment-')}"


@dataclass(frozen=True)
class ShardStats:
    """What a finished shard says of itself."""

    rows: int
    """Pairs in it."""
    rejects: int
    """Pairs of its fragment that could not be scored."""
    fidelity: Fidelity

    @classmethod
    def from_json(cls, stats: dict[str, Any]) -> ShardStats:
        """Out of the metadata of a shard's schema (`STATS`)."""
        return cls(stats["rows"], stats["rejects"], Fidelity(**stats["fidelity"]))


@dataclass(frozen=True)
class Shard:
    """A finished file of soft labels."""

    name: str
    stats: ShardStats


def pending_artifact(config: Config, store: Store, corpus: str, teacher: str) -> PendingArtifact:
    """The soft-label artifact; corpus and teacher are the fingerprints of its inputs."""
    settings = ExtractSettings.from_config(config).fingerprinted()
    inputs = {"corpus": corpus, "teacher": teacher}
    return PendingArtifact(store, "softlabels", fingerprint("softlabels", settings, inputs), settings, inputs)


def extract(
    pending: PendingArtifact, config: Config, runtime: Runtime, corpus: Artifact, teacher: Artifact
) -> Artifact:
    """Makes the soft-label artifact and measures its fidelity to the references.

    Raises UserError when scoring more than `max_rejects` of the pairs raises or kills its process; what is scored is
    kept, and a greater share finishes it.
    """
    settings = ExtractSettings.from_config(config)
    pairs = int(corpus.metrics["train/pairs"])
    dead_letters = DeadLetters(pending, ErrorBudget("extract", config.max_rejects, pairs))
    job = ExtractJob(
        storage=pending.store.uri,
        artifact=pending.directory,
        staging=pending.staging,
        corpus=corpus.directory,
        teacher=teacher.directory,
        settings=settings,
        budget=dead_letters.budget,
    )
    stats = _write_shards(pending, job, runtime, corpus, dead_letters)
    return pending.commit(
        made=[*stats, *dead_letters.keep()],
        metrics={**_metrics(pending, stats), "rejects": len(dead_letters)},
        info={
            "k": settings.topk,
            "mask_scheme": f"strided, {settings.passes} passes",
            "vocabulary": corpus.info["vocabulary"],
            "topk_ids": str(_schema_of(pending, min(stats)).field("topk_ids").type),
            "topk_logits": "float16",
            "logsumexp": "float32",
        },
    )


def _write_shards(
    pending: PendingArtifact, job: ExtractJob, runtime: Runtime, corpus: Artifact, dead_letters: DeadLetters
) -> dict[str, ShardStats]:
    """Leaves a shard of every fragment in the artifact's directory; what each says of itself, by its name."""
    stats: dict[str, ShardStats] = {}

    def add(shard: Shard) -> None:
        stats[shard.name] = shard.stats
        if shard.stats.rejects:
            dead_letters.add(dead_letters_of(pending.store, pending.staging, shard.name))

    missing = []
    for fragment in (Fragment(entry.path) for entry in corpus.files_below("train/")):
        if shard := _finished(pending.store, job, fragment.shard):
            add(shard)
        else:
            missing.append(fragment)
    if missing:
        runtime.start()
        with Progress(job.budget.pairs, "extract", "pairs", initial=_pairs(stats)) as progress:
            for shard in runtime.map(missing, ShardWriter, job):
                add(shard)
                progress.update(_pairs(stats))
    return stats


class ShardWriter:
    """An actor that holds the teacher and turns fragments into shards."""

    def __init__(self, job: ExtractJob) -> None:
        from bertkd_ray.core.devices import best_device, resolve_attention, resolve_precision
        from bertkd_ray.corpus.tokenizer import load_bert_ids
        from bertkd_ray.softlabels.scoring import Scorer
        from bertkd_ray.teacher.model import load_teacher

        self._store, self._job = Store(job.storage), job
        self._corpus = load(self._store, job.corpus)
        device, settings = best_device(), job.settings
        with scratch_directory("teacher-") as scratch:
            directory = load(self._store, job.teacher).local(MODEL, scratch)
            model = load_teacher(directory, attention=resolve_attention("auto", device, training=False))
            specials = BertSpecials(**json.loads((directory / SPECIALS).read_text(encoding="utf-8")))
            bert_ids = load_bert_ids(self._corpus.local(TOKENIZER, scratch))
        self._scorer = Scorer(
            model,
            bert_ids,
            specials,
            topk=settings.topk,
            passes=settings.passes,
            batch_tokens=settings.forward_tokens,
            precision=resolve_precision(settings.precision, device),
            device=device,
        )
        self._schema = shard_schema(len(bert_ids), settings.topk, {"passes": str(settings.passes)})

    def __call__(self, fragment: Fragment) -> Shard:
        """Writes one shard unless it is there; its row groups are those of the fragment, less the rejected pairs."""
        return _finished(self._store, self._job, fragment.shard) or self._write(fragment)

    def _write(self, fragment: Fragment) -> Shard:
        from bertkd_ray.core.devices import synchronise

        job = self._job
        attempt = Attempt(self._store, job.staging, fragment.shard)
        table, groups = self._read(fragment)
        src, tgt, ids = Ragged.from_arrow(table["src_ids"]), Ragged.from_arrow(table["tgt_ids"]), table["id"].to_numpy()
        isolation = FaultIsolation(
            ids,
            attempt,
            fragment.path,
            require=lambda dead_letters: job.budget.require(dead_letters, self._store, job.staging),
            synchronise=lambda: synchronise(self._scorer.device),
        )
        labels = self._scorer.score(src, tgt, ids, isolation)
        if isolation.dead_letters:
            kept = np.flatnonzero(isolation.kept)
            ids, src, tgt, labels = ids[kept], src.take(kept), tgt.take(kept), labels.take(kept)
            groups = _kept_groups(groups, isolation.kept)
        stats = ShardStats(len(ids), len(isolation.dead_letters), fidelity(labels, tgt))
        shard = encode_shard(ids, src, tgt, labels, self._schema)
        metadata = {**(shard.schema.metadata or {}), STATS: json.dumps(asdict(stats))}
        attempt.finish(isolation.dead_letters)
        data = parquet_bytes(shard.replace_schema_metadata(metadata), groups)
        self._store.write(data, job.artifact, fragment.shard)
        return Shard(fragment.shard, stats)

    def _read(self, fragment: Fragment) -> tuple[pa.Table, list[int]]:
        """The pairs of a fragment and the rows of its row groups."""
        columns = ["id", "src_ids", "tgt_ids"]
        with self._corpus.open_input(fragment.path) as source:
            file = pq.ParquetFile(source)
            groups = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
            return file.read(columns=columns).combine_chunks(), groups


def _finished(store: Store, job: ExtractJob, name: str) -> Shard | None:
    """The shard, or None when it has to be made."""
    stats = finished(store, job.staging, name, job.artifact, name)
    return Shard(name, ShardStats.from_json(stats)) if stats else None


def _pairs(stats: dict[str, ShardStats]) -> int:
    """Pairs of finished fragments, rejected ones too."""
    return sum(of_shard.rows + of_shard.rejects for of_shard in stats.values())


def _metrics(pending: PendingArtifact, stats: dict[str, ShardStats]) -> dict[str, float]:
    """The metrics of all shards."""
    report = sum((stats[shard].fidelity for shard in sorted(stats)), Fidelity()).report()
    size = sum(size for name, size in pending.store.files(pending.directory) if name in stats)
    return {
        **{f"fidelity/{name}": value for name, value in report.items() if name != "positions"},
        "positions": report["positions"],
        "pairs": sum(of_shard.rows for of_shard in stats.values()),
        "bytes_per_position": size / report["positions"],
    }


def _kept_groups(groups: list[int], kept: NDArray[np.bool_]) -> list[int]:
    """Pairs that are left of each row group, of groups of which any is left."""
    left = [int(of_group.sum()) for of_group in np.split(kept, np.cumsum(groups)[:-1])]
    return [pairs for pairs in left if pairs]


def _schema_of(pending: PendingArtifact, shard: str) -> pa.Schema:
    with pending.store.open_input(pending.directory, shard) as source:
        return pq.read_schema(source)
