"""Stage 2, extract: maps the teacher over the corpus on an actor pool, one shard of soft labels a fragment.

A shard appears under its name in one step, so a run that was cut off goes on with the fragments that have none. The
bytes of a shard depend on its fragment, the teacher and the settings alone. Pairs that cannot be scored are not in it,
so that the distilled arms, which train on the shards, see fewer pairs than the control, which trains on the corpus.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from bertkd_ray.teacher.finetune import MODEL, SPECIALS

if TYPE_CHECKING:
    from bertkd_ray.execution.ray.session import Runtime


def pending_artifact(config: Config, store: Store, corpus: str, teacher: str) -> PendingArtifact:
    """The soft-label artifact; corpus and teacher are the fingerprints of its inputs."""
    settings = {"topk": config.stored_topk(), "passes": config.extract.passes, "precision": config.precision}
    # The budget shapes the batches, and with them the last bits of bf16 sums.
    settings["batch_tokens"] = config.extract.forward_tokens
    inputs = {"corpus": corpus, "teacher": teacher}
    return PendingArtifact(store, "softlabels", fingerprint("softlabels", settings, inputs), settings, inputs)


def extract(
    work: PendingArtifact, runtime: Runtime, corpus: Artifact, teacher: Artifact, *, max_rejects: float
) -> Artifact:
    """Makes the soft-label artifact and measures its fidelity to the references.

    max_rejects: the share of the pairs that may be left out because scoring them raises or kills its process. Raises
    UserError when there are more; what is scored is kept, and a greater share finishes it.
    """
    total = int(corpus.metrics["train/pairs"])
    rejects = DeadLetters(work, ErrorBudget("extract", max_rejects, total))
    stats: dict[str, dict[str, Any]] = {}
    missing = []

    def take(shard: str, found: dict[str, Any]) -> None:
        stats[shard] = found
        if found["rejects"]:
            rejects.add(dead_letters_of(work.store, work.staging, shard))

    for entry in corpus.files("train/"):
        shard = Path(entry.path).name
        if found := finished(work.store, work.staging, shard, work.directory, shard):
            take(shard, found)
        else:
            missing.append({"fragment": entry.path, "shard": shard})
    if missing:
        runtime.start()
        arguments = {
            "storage": work.store.uri,
            "artifact": work.directory,
            "work": work.staging,
            "corpus": corpus.directory,
            "teacher": teacher.directory,
            "settings": work.config,
            "limit": rejects.limit,
        }
        with Progress(total, "extract", "pairs", initial=_pairs(stats)) as progress:
            for result in runtime.map(missing, ShardWriter, arguments):
                take(result["shard"], json.loads(result["stats"]))
                progress.update(_pairs(stats))
    return work.commit(
        made=[*stats, *rejects.keep()],
        metrics={**_measured(work, stats), "rejects": len(rejects)},
        info={
            "k": work.config["topk"],
            "mask_scheme": f"strided, {work.config['passes']} passes",
            "vocabulary": corpus.info["vocabulary"],
            "topk_ids": str(_schema_of(work, min(stats)).field("topk_ids").type),
            "topk_logits": "float16",
            "logsumexp": "float32",
        },
    )


class ShardWriter:
    """An actor that holds the teacher and turns fragments into shards."""

    def __init__(
        self,
        storage: str,
        artifact: str,
        work: str,
        corpus: str,
        teacher: str,
        settings: dict[str, Any],
        limit: ErrorBudget,
    ) -> None:
        from bertkd_ray.core.devices import best_device, resolve_attention, resolve_precision
        from bertkd_ray.corpus.tokenizer import load_bert_ids
        from bertkd_ray.softlabels.scoring import Scorer
        from bertkd_ray.softlabels.shards import shard_schema
        from bertkd_ray.teacher.masking import BertSpecials
        from bertkd_ray.teacher.model import load_teacher

        self._store, self._artifact, self._work, self._limit = Store(storage), artifact, work, limit
        self._corpus = load(self._store, corpus)
        device = best_device()
        with scratch_directory("teacher-") as scratch:
            directory = load(self._store, teacher).local(MODEL, scratch)
            model = load_teacher(directory, attention=resolve_attention("auto", device, training=False))
            specials = BertSpecials(**json.loads((directory / SPECIALS).read_text(encoding="utf-8")))
            bert_ids = load_bert_ids(self._corpus.local(TOKENIZER, scratch))
        self._scorer = Scorer(
            model,
            bert_ids,
            specials,
            topk=settings["topk"],
            passes=settings["passes"],
            batch_tokens=settings["batch_tokens"],
            precision=resolve_precision(settings["precision"], device),
            device=device,
        )
        self._schema = shard_schema(len(bert_ids), settings["topk"], {"passes": str(settings["passes"])})

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        """Writes one shard unless it is there; its row groups are those of the fragment, less the rejected pairs."""
        shard = item["shard"]
        stats = finished(self._store, self._work, shard, self._artifact, shard) or self._write(item["fragment"], shard)
        return {"shard": shard, "stats": json.dumps(stats)}

    def _write(self, fragment: str, name: str) -> dict[str, Any]:
        from bertkd_ray.core.devices import synchronise
        from bertkd_ray.execution.fault_isolation import FaultIsolation
        from bertkd_ray.softlabels.fidelity import fidelity
        from bertkd_ray.softlabels.shards import encode_shard, parquet_bytes

        attempt = Attempt(self._store, self._work, name)
        table, groups = self._read(fragment)
        src, tgt, ids = Ragged.from_arrow(table["src_ids"]), Ragged.from_arrow(table["tgt_ids"]), table["id"].to_numpy()
        isolation = FaultIsolation(
            ids,
            attempt,
            fragment,
            require=lambda rejects: self._limit.require(rejects, self._store, self._work),
            synchronise=lambda: synchronise(self._scorer.device),
        )
        labels = self._scorer.score(src, tgt, ids, isolation)
        if isolation.rejects:
            kept = np.flatnonzero(isolation.kept)
            ids, src, tgt, labels = ids[kept], src.take(kept), tgt.take(kept), labels.take(kept)
            groups = _kept_groups(groups, isolation.kept)
        stats = {"rows": len(ids), "rejects": len(isolation.rejects), "fidelity": asdict(fidelity(labels, tgt))}
        shard = encode_shard(ids, src, tgt, labels, self._schema)
        shard = shard.replace_schema_metadata({**(shard.schema.metadata or {}), STATS: json.dumps(stats)})
        attempt.finish(isolation.rejects)
        self._store.write(parquet_bytes(shard, groups), self._artifact, name)
        return stats

    def _read(self, fragment: str) -> tuple[pa.Table, list[int]]:
        """The pairs of a fragment and the rows of its row groups."""
        columns = ["id", "src_ids", "tgt_ids"]
        with self._corpus.open_input(fragment) as source:
            file = pq.ParquetFile(source)
            groups = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
            return file.read(columns=columns).combine_chunks(), groups


def _pairs(stats: dict[str, dict[str, Any]]) -> int:
    """Pairs of finished fragments, rejected ones too."""
    return sum(item["rows"] + item["rejects"] for item in stats.values())


def _measured(work: PendingArtifact, stats: dict[str, dict[str, Any]]) -> dict[str, float]:
    """The metrics of all shards."""
    from bertkd_ray.softlabels.fidelity import Fidelity

    report = sum((Fidelity(**stats[shard]["fidelity"]) for shard in sorted(stats)), Fidelity()).report()
    size = sum(size for name, size in work.store.files(work.directory) if name in stats)
    return {
        **{f"fidelity/{name}": value for name, value in report.items() if name != "positions"},
        "positions": report["positions"],
        "pairs": sum(item["rows"] for item in stats.values()),
        "bytes_per_position": size / report["positions"],
    }


def _kept_groups(groups: list[int], kept: NDArray[np.bool_]) -> list[int]:
    """Pairs that are left of each row group, of groups of which any is left."""
    left = [int(part.sum()) for part in np.split(kept, np.cumsum(groups)[:-1])]
    return [pairs for pairs in left if pairs]


def _schema_of(work: PendingArtifact, shard: str) -> pa.Schema:
    with work.store.open_input(work.directory, shard) as source:
        return pq.read_schema(source)
