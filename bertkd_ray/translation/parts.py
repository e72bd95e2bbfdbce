"""Translation of a split of a corpus in parts, on actors, with a student or a teacher.

Parts that an earlier run has finished are kept. A sentence that cannot be translated has an empty translation, since a
score is over every line.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact, load
from bertkd_ray.artifacts.row_groups import write_parquet
from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config
from bertkd_ray.config.sections import TranslateConfig
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.corpus.moses import to_raw
from bertkd_ray.corpus.text_form import TextForm
from bertkd_ray.corpus.tokenizer import decode
from bertkd_ray.execution.attempts import STATS, Attempt, finished
from bertkd_ray.execution.dead_letters import DeadLetter, DeadLetters
from bertkd_ray.execution.device import open_device
from bertkd_ray.execution.interface import Runtime
from bertkd_ray.execution.resumable_map import FileJob, FinishedFile, resumable_map

if TYPE_CHECKING:
    from bertkd_ray.decoding.batches import Translation

_PART_ROWS = 256
"""Sentences an actor translates at a time, at the least: enough for length batches, few enough to share a test set."""
_MANY_PARTS, _MOST_PART_ROWS = 8, 2048
"""Slices beyond which they grow instead, and the most sentences of one: larger batches are faster."""


@dataclass(frozen=True)
class TranslateJob(FileJob):
    """What an actor needs; model is the directory of a student or teacher artifact in the store."""

    model: str
    config: Config

    def search(self, file: str) -> TranslateConfig:
        """How sentences of a file of the corpus are translated: greedily, unless they are of the test split."""
        search = self.config.translate
        return search if file.startswith("test/") else search.model_copy(update={"beam": 1, "n_best": 1})


@dataclass(frozen=True)
class Part:
    """A slice of a split."""

    file: str
    """Path of the file in the corpus."""
    start: int
    """First row of the slice in that file."""
    rows: int
    name: str
    """Name of the file of translations in the staging directory."""


def parts_of(corpus: Artifact, split: str, prefix: str = "part") -> list[Part]:
    """The slices that a split is translated in; prefix: of their names."""
    parts: list[Part] = []
    files = {entry.path: entry.rows for entry in corpus.files_below(f"{split}/")}
    part_rows = max(_PART_ROWS, min(-(-sum(files.values()) // _MANY_PARTS), _MOST_PART_ROWS))
    for file, rows in files.items():
        for start in range(0, rows, part_rows):
            parts.append(Part(file, start, min(part_rows, rows - start), f"{prefix}-{len(parts):06d}.parquet"))
    return parts


@dataclass(frozen=True)
class TranslatedSplit:
    """The translations of the parts of a split, in their order."""

    table: pa.Table
    """See `translation_schema`."""
    precisions: frozenset[str]
    """Precisions that the parts were computed in."""
    seconds: float | None
    """Seconds that actors spent on translating; None where an earlier version did a part."""

    @classmethod
    def of(cls, pending: PendingArtifact, parts: Sequence[Part]) -> TranslatedSplit:
        """Reads the finished parts."""
        tables = []
        for part in parts:
            with pending.store.open_input(pending.staging, part.name) as source:
                tables.append(pq.read_table(source))
        stats = [json.loads(table.schema.metadata[STATS]) for table in tables]
        seconds = [of.get("seconds") for of in stats]
        return cls(
            pa.concat_tables(tables).combine_chunks().replace_schema_metadata(None),
            frozenset({of.get("precision", "") for of in stats} - {""}),
            None if None in seconds else sum(seconds),
        )

    def speed(self) -> dict[str, float]:
        """Sentences a second that an actor translates, as a metric; nothing where it is not known."""
        return {"test/sentences_per_second": len(self.table) / self.seconds} if self.seconds else {}


def translate_parts(
    pending: PendingArtifact,
    runtime: Runtime,
    parts: Sequence[Part],
    translator: type[PartTranslator],
    job: TranslateJob,
) -> DeadLetters:
    """Translates the parts that are missing, each into its file; the sentences that cannot be translated."""
    _, dead_letters = resumable_map(
        pending,
        runtime,
        parts,
        translator,
        job,
        finished=lambda part: _finished(pending.store, pending.staging, part),
        unit="sentences",
    )
    return dead_letters


def translation_schema(text: str) -> pa.Schema:
    """The schema of a table of translations, a row a sentence; longer unless text, the corpus's `corpus.text`, is raw.

    id: the pair's id in the corpus.
    source, reference: raw text.
    hypotheses: raw text, best first, `translate.n_best` of them.
    scores: of the hypotheses, by which they are ranked: log probability over the length penalty.
    source_tokens, reference_tokens: unless `corpus.text` is raw: what the model read, and should have written.
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


class PartTranslator(ABC):
    """An actor that holds a model and translates parts of a split."""

    def __init__(self, job: TranslateJob) -> None:
        from bertkd_ray.core.devices import resolve_precision

        self._store, self._job = Store(job.storage), job
        self._corpus = load(self._store, job.corpus)
        self._device = open_device(job.device)
        self._precision = resolve_precision(job.config.precision, self._device)
        with scratch_directory("model-") as scratch:
            self._tokenizer = self._load(load(self._store, job.model), scratch)

    @abstractmethod
    def _load(self, model: Artifact, scratch: Path) -> Tokenizer:
        """Loads the model; its tokenizer. scratch: for files of a remote store."""

    @abstractmethod
    def _translate_ids(self, src: Ragged, search: TranslateConfig) -> list[list[Translation]]:
        """See `decoding.seq2seq.translate_ids`."""

    def __call__(self, part: Part) -> FinishedFile:
        """Writes the translations of one part, unless they are there."""
        if file := _finished(self._store, self._job.staging, part):
            return file
        attempt = Attempt(self._store, self._job.staging, part.name)
        form = TextForm.of(self._corpus)
        rows = self._corpus.read_table(part.file).slice(part.start, part.rows)
        started = time.perf_counter()
        translations, dead_letters = self._translate(rows, attempt, part.file)
        seconds = time.perf_counter() - started
        texts = decode(self._tokenizer, [hypothesis.ids for of_row in translations for hypothesis in of_row])
        scores = [hypothesis.score for of_row in translations for hypothesis in of_row]
        offsets = pa.array(np.asarray([0, *map(len, translations)]).cumsum(), pa.int32())

        def by_sentence(values: list[Any], of: pa.DataType) -> pa.ListArray:
            return pa.ListArray.from_arrays(offsets, pa.array(values, of))

        columns = {
            "id": rows["id"],
            "source": to_raw(rows["src"].to_pylist(), form.text, form.src_lang),
            "reference": to_raw(rows["tgt"].to_pylist(), form.text, form.tgt_lang),
            "hypotheses": by_sentence(to_raw(texts, form.text, form.tgt_lang), pa.string()),
            "scores": by_sentence(scores, pa.float32()),
        }
        if form.text != "raw":
            columns["source_tokens"], columns["reference_tokens"] = rows["src"], rows["tgt"]
            columns["hypotheses_tokens"] = by_sentence(texts, pa.string())
        stats = {"rows": part.rows, "rejects": len(dead_letters), "part": asdict(part), "precision": self._precision}
        stats["seconds"] = seconds
        schema = translation_schema(form.text).with_metadata({STATS: json.dumps(stats)})
        attempt.finish(dead_letters)
        write_parquet(self._store, pa.table(columns, schema=schema), self._job.staging, part.name)
        return FinishedFile(part.name, part.rows, len(dead_letters))

    def _translate(
        self, rows: pa.Table, attempt: Attempt, file: str
    ) -> tuple[list[list[Translation]], list[DeadLetter]]:
        """The translations of every row, and the rows that cannot be translated, whose translations are empty."""
        from bertkd_ray.decoding.batches import Translation, translation_batches

        search = self._job.search(file)
        src = Ragged.from_arrow(rows["src_ids"])
        translations = [[Translation([], 0.0)] for _ in range(len(src))]

        def compute(chosen: NDArray[np.int64]) -> None:
            of_chosen = self._translate_ids(src.take(chosen), search)
            for row, of_row in zip(chosen.tolist(), of_chosen, strict=True):
                translations[row] = of_row

        isolation = self._job.isolation(self._store, rows["id"].to_numpy(), attempt, file, self._device)
        batches = translation_batches(src, beam=search.beam, batch_tokens=search.forward_tokens)
        isolation.run(batches, np.arange(len(src)), compute)
        return translations, isolation.dead_letters


def _finished(store: Store, staging: str, part: Part) -> FinishedFile | None:
    """What the file of a part says of itself, or None when it has to be made, as a file of other rows has."""
    stats = finished(store, staging, part.name, staging, part.name)
    if stats is None or stats.get("part") != asdict(part):
        return None
    return FinishedFile(part.name, stats["rows"], stats["rejects"])
