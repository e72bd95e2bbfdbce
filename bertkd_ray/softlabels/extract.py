"""Stage 2, extract: maps the teacher over the corpus on an actor pool, one shard of soft labels a fragment.

A shard appears under its name in one step, so a run that was cut off goes on with the fragments that have none.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from bertkd_ray.config import Config
from bertkd_ray.core.artifact import Artifact, Draft, Store, fingerprint, load
from bertkd_ray.core.console import Progress
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.corpus.prepare import TOKENIZER
from bertkd_ray.teacher.finetune import MODEL, SPECIALS

if TYPE_CHECKING:
    from bertkd_ray.core.runtime import Runtime

_STATS_KEY = b"stats"


def draft(config: Config, store: Store, corpus: str, teacher: str) -> Draft:
    """The soft-label artifact; corpus and teacher are the fingerprints of its inputs."""
    settings = {"topk": config.stored_topk(), "passes": config.extract.passes, "precision": config.precision}
    # The budget shapes the batches, and with them the last bits of bf16 sums.
    settings["batch_tokens"] = config.extract.batch_tokens
    inputs = {"corpus": corpus, "teacher": teacher}
    return Draft(store, "softlabels", fingerprint("softlabels", settings, inputs), settings, inputs)


def extract(work: Draft, runtime: Runtime, corpus: Artifact, teacher: Artifact) -> Artifact:
    """Makes the soft-label artifact and measures its fidelity to the references."""
    from bertkd_ray.softlabels.scoring import Fidelity

    stats = {}
    missing = []
    for entry in corpus.files("train/"):
        shard = Path(entry["path"]).name
        if work.store.exists(work.directory, shard):
            stats[shard] = _shard_stats(work.store, work.store.path(work.directory, shard))
        else:
            missing.append({"fragment": entry["path"], "shard": shard, "pairs": sum(entry["row_groups"])})
    if missing:
        runtime.start()
        arguments = {
            "storage": work.store.uri,
            "artifact": work.directory,
            "corpus": corpus.directory,
            "teacher": teacher.directory,
            "settings": work.config,
        }
        done = int(corpus.metrics["train/pairs"]) - sum(item["pairs"] for item in missing)
        with Progress(int(corpus.metrics["train/pairs"]), "extract", "pairs", initial=done) as progress:
            for result in runtime.map(missing, ShardWriter, arguments):
                stats[result["shard"]] = json.loads(result["stats"])
                done += stats[result["shard"]]["pairs"]
                progress.update(done)
    totals = [stats[shard] for shard in sorted(stats)]
    fidelity = sum((Fidelity(**item["fidelity"]) for item in totals), Fidelity())
    size = sum(size for _, size in work.store.files(work.directory))
    report = fidelity.report()
    metrics = {
        **{f"fidelity/{name}": value for name, value in report.items() if name != "positions"},
        "positions": report["positions"],
        "pairs": sum(item["pairs"] for item in totals),
        "bytes_per_position": size / report["positions"],
        "compute_seconds": sum(item["seconds"] for item in totals),
    }
    return work.commit(
        metrics=metrics,
        info={
            "k": work.config["topk"],
            "mask_scheme": f"strided, {work.config['passes']} passes",
            "vocabulary": corpus.info["vocabulary"],
            "topk_ids": str(_schema_of(work).field("topk_ids").type),
            "topk_logits": "float16",
            "logsumexp": "float32",
        },
    )


class ShardWriter:
    """An actor that holds the teacher and turns fragments into shards."""

    def __init__(self, storage: str, artifact: str, corpus: str, teacher: str, settings: dict[str, Any]) -> None:
        from bertkd_ray.core.devices import best_device, resolve_attention, resolve_precision
        from bertkd_ray.corpus.tokenizer import load_bert_ids
        from bertkd_ray.softlabels.scoring import Scorer
        from bertkd_ray.softlabels.shards import shard_schema
        from bertkd_ray.teacher.masking import BertSpecials
        from bertkd_ray.teacher.model import load_teacher

        self._store, self._artifact = Store(storage), artifact
        self._corpus = load(self._store, corpus)
        device = best_device()
        with tempfile.TemporaryDirectory(prefix="teacher-") as scratch:
            directory = load(self._store, teacher).local(MODEL, Path(scratch))
            model = load_teacher(directory, attention=resolve_attention("auto", device))
            specials = BertSpecials(**json.loads((directory / SPECIALS).read_text(encoding="utf-8")))
            bert_ids = load_bert_ids(self._corpus.local(TOKENIZER, Path(scratch)))
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
        """Writes one shard, its row groups those of the fragment."""
        from bertkd_ray.softlabels.scoring import fidelity
        from bertkd_ray.softlabels.shards import encode_shard, parquet_bytes

        started = time.perf_counter()
        columns = ["id", "src_ids", "tgt_ids"]
        with self._store.fs.open_input_file(self._corpus.path(item["fragment"])) as source:
            file = pq.ParquetFile(source)
            groups = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
            table = file.read(columns=columns).combine_chunks()
        src, tgt, ids = Ragged.from_arrow(table["src_ids"]), Ragged.from_arrow(table["tgt_ids"]), table["id"].to_numpy()
        labels = self._scorer.score(src, tgt, ids)
        shard = encode_shard(ids, src, tgt, labels, self._schema)
        stats = {
            "pairs": len(ids),
            "fidelity": asdict(fidelity(labels, tgt)),
            "seconds": time.perf_counter() - started,
        }
        shard = shard.replace_schema_metadata({**(shard.schema.metadata or {}), _STATS_KEY: json.dumps(stats)})
        self._store.write(parquet_bytes(shard, groups), self._artifact, item["shard"])
        return {"shard": item["shard"], "stats": json.dumps(stats)}


def _shard_stats(store: Store, path: str) -> dict[str, Any]:
    """What an earlier run measured of a finished shard."""
    with store.fs.open_input_file(path) as source:
        metadata = pq.read_schema(source).metadata
    return dict(json.loads(metadata[_STATS_KEY]))


def _schema_of(work: Draft) -> pa.Schema:
    name = next(name for name, _ in work.store.files(work.directory))
    with work.store.fs.open_input_file(work.store.path(work.directory, name)) as source:
        return pq.read_schema(source)
