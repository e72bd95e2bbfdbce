"""Stage 4, translate: beam search over the test split on an actor pool, then the scores.

Parts that an earlier run has finished are kept. A sentence that cannot be translated has an empty translation, since a
score is over every line.
"""

from __future__ import annotations

import json
from dataclasses import asdict
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
from bertkd_ray.execution.attempts import STATS, Attempt, dead_letters_of, finished
from bertkd_ray.execution.dead_letters import DeadLetter, DeadLetters, ErrorBudget
from bertkd_ray.student.distill import MODEL

if TYPE_CHECKING:
    from bertkd_ray.decoding.seq2seq import Translation
    from bertkd_ray.execution.ray.session import Runtime

TRANSLATIONS = "translations.parquet"
"""Sources, references and hypotheses side by side."""
_PART_ROWS = 256
"""Sentences an actor translates at a time, at the least: enough for length batches, few enough to share a test set."""
_MANY_PARTS, _MOST_PART_ROWS = 8, 2048
"""With more parts than this they grow instead, up to so many sentences: larger batches are faster."""


def pending_artifact(config: Config, store: Store, corpus: str, student: str) -> PendingArtifact:
    """The translation artifact of one student; corpus and student are the fingerprints of its inputs."""
    settings = {
        "translate": config.translate.fingerprinted(exclude=frozenset({"bootstrap_samples"})),
        "precision": config.precision,
    }
    inputs = {"corpus": corpus, "student": student}
    return PendingArtifact(store, "translation", fingerprint("translation", settings, inputs), settings, inputs)


def translate(
    work: PendingArtifact, runtime: Runtime, corpus: Artifact, student: Artifact, *, max_rejects: float
) -> Artifact:
    """Translates the test split and scores it; sources, references and hypotheses stand side by side in one table.

    max_rejects: the share of the sentences whose translation may be empty because translating them raises or kills its
    process. Raises UserError when there are more; what is translated is kept, and a greater share finishes it.
    """
    from bertkd_ray.evaluation.metrics import score, tokenizer_for

    tokenize = tokenizer_for(corpus.info.get("tgt_lang", "en"))
    parts = _parts(corpus)
    rejects = DeadLetters(work, ErrorBudget("translate", max_rejects, sum(part["rows"] for part in parts)))
    _translate_parts(work, runtime, parts, rejects, {"corpus": corpus.directory, "student": student.directory})
    tables = [_read_part(work, part["name"]) for part in parts]
    table = pa.concat_tables(tables).combine_chunks().replace_schema_metadata(None)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    work.store.write(bytes(sink.getvalue()), work.directory, TRANSLATIONS)
    scores = asdict(
        score(best_hypotheses(table), table["reference"].to_pylist(), tokenize=tokenize, tokens=_tokens(table))
    )
    metrics = {f"test/{name}": value for name, value in scores.items() if isinstance(value, int | float)}
    metrics["rejects"] = len(rejects)
    signatures = {name: value for name, value in scores.items() if isinstance(value, str)}
    info = {"signatures": signatures, "tokenize": tokenize}
    return work.commit(made=[TRANSLATIONS, *rejects.keep()], metrics=metrics, info=info)


def _translate_parts(
    work: PendingArtifact, runtime: Runtime, parts: list[dict[str, Any]], rejects: DeadLetters, inputs: dict[str, str]
) -> None:
    """Leaves a file for every part in the directory of unfinished work."""
    done, missing = 0, []

    def take(found: dict[str, Any]) -> None:
        nonlocal done
        done += found["rows"]
        if found["rejects"]:
            rejects.add(dead_letters_of(work.store, work.staging, found["part"]["name"]))

    for part in parts:
        if found := _finished(work.store, work.staging, part):
            take(found)
        else:
            missing.append(part)
    if not missing:
        return
    runtime.start()
    place = {"storage": work.store.uri, "work": work.staging}
    arguments = {**inputs, **place, "settings": work.config, "limit": rejects.limit}
    with Progress(rejects.limit.pairs, "translate", "sentences", initial=done) as progress:
        for result in runtime.map(missing, PartTranslator, arguments):
            take(json.loads(result["stats"]))
            progress.update(done)


def best_hypotheses(table: pa.Table, column: str = "hypotheses") -> list[str]:
    """The first hypothesis of every sentence of a translation table; column: or `hypotheses_tokens`."""
    return [hypotheses[0] for hypotheses in table[column].to_pylist()]


def translation_schema(text: str) -> pa.Schema:
    """The schema of a table of translations, a row a sentence; longer unless text, the corpus's `corpus.text`, is raw.

    id: the pair's id in the corpus.
    source, reference: raw text.
    hypotheses: raw text, best first, `translate.n_best` of them.
    scores: of the hypotheses, by which they are ranked: log probability over the length penalty.
    source_tokens, reference_tokens: unless `corpus.text` is raw: what the student read, and should have written.
    hypotheses_tokens: unless `corpus.text` is raw: what it wrote.
    """
    fields = [
        ("id", pa.int64()),
        ("source", pa.string()),
        ("reference", pa.string()),
        ("hypotheses", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float32())),
    ]
    if text != "raw":
        fields += [
            ("source_tokens", pa.string()),
            ("reference_tokens", pa.string()),
            ("hypotheses_tokens", pa.list_(pa.string())),
        ]
    return pa.schema(fields)


def read_translations(artifact: Artifact) -> pa.Table:
    """The table of a translation artifact (`translation_schema`)."""
    return artifact.read_table(TRANSLATIONS)


class PartTranslator:
    """An actor that holds the student and translates parts of the test split."""

    def __init__(
        self, storage: str, corpus: str, student: str, work: str, settings: dict[str, Any], limit: ErrorBudget
    ) -> None:
        from transformers import AutoModelForSeq2SeqLM

        from bertkd_ray.core.devices import best_device, resolve_precision
        from bertkd_ray.corpus.tokenizer import load_tokenizer

        self._store, self._work, self._limit = Store(storage), work, limit
        self._corpus = load(self._store, corpus)
        self._device = best_device()
        with scratch_directory("student-") as scratch:
            directory = load(self._store, student).local(MODEL, scratch)
            model = AutoModelForSeq2SeqLM.from_pretrained(directory)
            self._tokenizer = load_tokenizer(directory)
        self._model = model.eval().to(self._device)
        self._settings = settings["translate"]
        self._precision = resolve_precision(settings["precision"], self._device)

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        """Writes the translations of one part, unless they are there."""
        stats = _finished(self._store, self._work, part) or self._write(part)
        return {"stats": json.dumps(stats)}

    def _write(self, part: dict[str, Any]) -> dict[str, Any]:
        from bertkd_ray.corpus.moses import to_raw
        from bertkd_ray.corpus.tokenizer import decode

        attempt = Attempt(self._store, self._work, part["name"])
        info = self._corpus.info
        text, src_lang, tgt_lang = info.get("text", "raw"), info.get("src_lang", "de"), info.get("tgt_lang", "en")
        rows = self._corpus.read_table(part["file"]).slice(part["start"], part["rows"])
        found, rejects = self._translate(rows, attempt, part["file"])
        texts = decode(self._tokenizer, [one.ids for hypotheses in found for one in hypotheses])
        counts = np.asarray([0, *(len(hypotheses) for hypotheses in found)]).cumsum()
        scores = [one.score for hypotheses in found for one in hypotheses]
        offsets = pa.array(counts, pa.int32())

        def by_sentence(values: list[Any], of: pa.DataType) -> pa.ListArray:
            return pa.ListArray.from_arrays(offsets, pa.array(values, of))

        columns = {
            "id": rows["id"],
            "source": to_raw(rows["src"].to_pylist(), text, src_lang),
            "reference": to_raw(rows["tgt"].to_pylist(), text, tgt_lang),
            "hypotheses": by_sentence(to_raw(texts, text, tgt_lang), pa.string()),
            "scores": by_sentence(scores, pa.float32()),
        }
        if text != "raw":
            columns["source_tokens"], columns["reference_tokens"] = rows["src"], rows["tgt"]
            columns["hypotheses_tokens"] = by_sentence(texts, pa.string())
        stats = {"rows": part["rows"], "rejects": len(rejects), "part": part}
        table = pa.table(columns, schema=translation_schema(text)).replace_schema_metadata({STATS: json.dumps(stats)})
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        attempt.finish(rejects)
        self._store.write(bytes(sink.getvalue()), self._work, part["name"])
        return stats

    def _translate(
        self, rows: pa.Table, attempt: Attempt, fragment: str
    ) -> tuple[list[list[Translation]], list[DeadLetter]]:
        """The translations of every row, and the rows that cannot be translated, whose translations are empty."""
        from bertkd_ray.core.devices import synchronise
        from bertkd_ray.decoding.seq2seq import Translation, translate_ids
        from bertkd_ray.execution.fault_isolation import FaultIsolation

        src = Ragged.from_arrow(rows["src_ids"])
        found = [[Translation([], 0.0)] for _ in range(len(src))]

        def compute(chosen: NDArray[np.int64]) -> None:
            translations = translate_ids(
                self._model,
                src.take(chosen),
                beam=self._settings["beam"],
                alpha=self._settings["length_penalty"],
                n_best=self._settings["n_best"],
                batch_tokens=self._settings["batch_tokens"],
                precision=self._precision,
                device=self._device,
            )
            for row, of_row in zip(chosen.tolist(), translations, strict=True):
                found[row] = of_row

        isolation = FaultIsolation(
            rows["id"].to_numpy(),
            attempt,
            fragment,
            require=lambda rejects: self._limit.require(rejects, self._store, self._work),
            synchronise=lambda: synchronise(self._device),
        )
        everything = np.arange(len(src))
        isolation.run([everything], everything, compute)
        return found, isolation.rejects


def _finished(store: Store, work: str, part: dict[str, Any]) -> dict[str, Any] | None:
    """What the file of a part says of itself, or None when it has to be made."""
    stats = finished(store, work, part["name"], work, part["name"])
    return stats if stats and stats.get("part") == part else None


def _tokens(table: pa.Table) -> tuple[list[str], list[str]] | None:
    """Best hypotheses and references as tokens, where the corpus is tokenised."""
    if "reference_tokens" not in table.column_names:
        return None
    return best_hypotheses(table, "hypotheses_tokens"), table["reference_tokens"].to_pylist()


def _parts(corpus: Artifact) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    files = {entry.path: entry.rows for entry in corpus.files("test/")}
    part_rows = max(_PART_ROWS, min(-(-sum(files.values()) // _MANY_PARTS), _MOST_PART_ROWS))
    for file, rows in files.items():
        for start in range(0, rows, part_rows):
            size = min(part_rows, rows - start)
            parts.append({"file": file, "start": start, "rows": size, "name": f"part-{len(parts):06d}.parquet"})
    return parts


def _read_part(work: PendingArtifact, name: str) -> pa.Table:
    with work.store.open_input(work.staging, name) as source:
        return pq.read_table(source)
