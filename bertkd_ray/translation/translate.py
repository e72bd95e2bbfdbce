"""Stage 4, translate: beam search over the test split on an actor pool, then the scores."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bertkd_ray.config import Config
from bertkd_ray.core.artifact import Artifact, Draft, Store, fingerprint, load
from bertkd_ray.core.console import Progress
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.student.distill import MODEL

if TYPE_CHECKING:
    from bertkd_ray.core.runtime import Runtime

TRANSLATIONS = "translations.parquet"
_PART_ROWS = 256
"""Sentences an actor translates at a time: enough for length batches, few enough to share a test set out."""


def draft(config: Config, store: Store, corpus: str, student: str) -> Draft:
    """The translation artifact of one student; corpus and student are the fingerprints of its inputs."""
    settings = {
        "translate": config.translate.model_dump(exclude={"bootstrap_samples"}),
        "precision": config.precision,
    }
    inputs = {"corpus": corpus, "student": student}
    return Draft(store, "translation", fingerprint("translation", settings, inputs), settings, inputs)


def translate(work: Draft, runtime: Runtime, corpus: Artifact, student: Artifact) -> Artifact:
    """Translates the test split and scores it; sources, references and hypotheses stand side by side in one table."""
    from bertkd_ray.translation.metrics import score, tokenizer_for

    tokenize = tokenizer_for(corpus.info.get("tgt_lang", "en"))
    runtime.start()
    parts = _parts(corpus)
    arguments = {
        "storage": work.store.uri,
        "corpus": corpus.directory,
        "student": student.directory,
        "work": work.work,
        "settings": work.config,
    }
    total, done = sum(part["rows"] for part in parts), 0
    with Progress(total, "translate", "sentences") as progress:
        for result in runtime.map(parts, PartTranslator, arguments):
            done += result["rows"]
            progress.update(done)
    tables = [_read(work.store, work.store.path(work.work, part["name"])) for part in parts]
    table = pa.concat_tables(tables).combine_chunks()
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    work.store.write(bytes(sink.getvalue()), work.directory, TRANSLATIONS)
    scores = asdict(
        score(best_hypotheses(table), table["reference"].to_pylist(), tokenize=tokenize, tokens=_tokens(table))
    )
    metrics = {f"test/{name}": value for name, value in scores.items() if isinstance(value, int | float)}
    signatures = {name: value for name, value in scores.items() if isinstance(value, str)}
    return work.commit(metrics=metrics, info={"signatures": signatures, "tokenize": tokenize})


def best_hypotheses(table: pa.Table, column: str = "hypotheses") -> list[str]:
    """The first hypothesis of every sentence of a translation table; column: or `hypotheses_tokens`."""
    return [hypotheses[0] for hypotheses in table[column].to_pylist()]


def read_translations(artifact: Artifact) -> pa.Table:
    """The table of a translation artifact: id, source, reference, hypotheses and their scores, best first.

    The text is raw. Of a corpus of Moses text, `source_tokens`, `reference_tokens` and `hypotheses_tokens` stand
    beside it: what the student read, what it should have written, and what it wrote.
    """
    return _read(artifact.store, artifact.path(TRANSLATIONS))


class PartTranslator:
    """An actor that holds the student and translates parts of the test split."""

    def __init__(self, storage: str, corpus: str, student: str, work: str, settings: dict[str, Any]) -> None:
        from transformers import AutoModelForSeq2SeqLM

        from bertkd_ray.core.devices import best_device, resolve_precision
        from bertkd_ray.corpus.tokenizer import load_tokenizer

        self._store, self._work = Store(storage), work
        self._corpus = load(self._store, corpus)
        self._device = best_device()
        with tempfile.TemporaryDirectory(prefix="student-") as scratch:
            directory = load(self._store, student).local(MODEL, Path(scratch))
            model = AutoModelForSeq2SeqLM.from_pretrained(directory, attn_implementation="eager")
            self._tokenizer = load_tokenizer(directory)
        self._model = model.eval().to(self._device)
        self._settings = settings["translate"]
        self._precision = resolve_precision(settings["precision"], self._device)

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        """Writes the translations of one part."""
        from bertkd_ray.corpus.moses import to_raw
        from bertkd_ray.corpus.tokenizer import decode
        from bertkd_ray.translation.decoding import translate_ids

        info = self._corpus.info
        text, src_lang, tgt_lang = info.get("text", "raw"), info.get("src_lang", "de"), info.get("tgt_lang", "en")
        rows = _read(self._store, self._corpus.path(part["file"])).slice(part["start"], part["rows"])
        found = translate_ids(
            self._model,
            Ragged.from_arrow(rows["src_ids"]),
            beam=self._settings["beam"],
            alpha=self._settings["length_penalty"],
            n_best=self._settings["n_best"],
            batch_tokens=self._settings["batch_tokens"],
            precision=self._precision,
            device=self._device,
        )
        texts = decode(self._tokenizer, [one.ids for hypotheses in found for one in hypotheses])
        counts = np.asarray([0, *(len(hypotheses) for hypotheses in found)]).cumsum()
        scores = [one.score for hypotheses in found for one in hypotheses]
        offsets = pa.array(counts, pa.int32())

        def by_sentence(values: list[Any], of: pa.DataType) -> pa.ListArray:
            return pa.ListArray.from_arrays(offsets, pa.array(values, of))

        columns = {
            "id": rows["id"],
            "source": pa.array(to_raw(rows["src"].to_pylist(), text, src_lang), pa.string()),
            "reference": pa.array(to_raw(rows["tgt"].to_pylist(), text, tgt_lang), pa.string()),
            "hypotheses": by_sentence(to_raw(texts, text, tgt_lang), pa.string()),
            "scores": by_sentence(scores, pa.float32()),
        }
        if text != "raw":
            columns["source_tokens"], columns["reference_tokens"] = rows["src"], rows["tgt"]
            columns["hypotheses_tokens"] = by_sentence(texts, pa.string())
        table = pa.table(columns)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        self._store.write(bytes(sink.getvalue()), self._work, part["name"])
        return {"rows": part["rows"]}


def _tokens(table: pa.Table) -> tuple[list[str], list[str]] | None:
    """Best hypotheses and references as tokens, where the corpus is tokenised."""
    if "reference_tokens" not in table.column_names:
        return None
    return best_hypotheses(table, "hypotheses_tokens"), table["reference_tokens"].to_pylist()


def _parts(corpus: Artifact) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for entry in corpus.files("test/"):
        rows = sum(entry["row_groups"])
        for start in range(0, rows, _PART_ROWS):
            size = min(_PART_ROWS, rows - start)
            parts.append(
                {"file": entry["path"], "start": start, "rows": size, "name": f"part-{len(parts):06d}.parquet"}
            )
    return parts


def _read(store: Store, path: str) -> pa.Table:
    with store.fs.open_input_file(path) as source:
        return pq.read_table(source)
