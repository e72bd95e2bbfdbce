"""The translate stage: beam search over the test split on an actor pool, then the scores.

Parts that an earlier run has finished are kept. A sentence that cannot be translated has an empty translation, since a
score is over every line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact, load
from bertkd_ray.artifacts.row_groups import write_parquet
from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.corpus.moses import to_raw
from bertkd_ray.corpus.text_form import TextForm
from bertkd_ray.corpus.tokenizer import decode, load_tokenizer
from bertkd_ray.execution.attempts import STATS, Attempt, finished
from bertkd_ray.execution.dead_letters import DeadLetter, ErrorBudget
from bertkd_ray.execution.resumable_map import FileJob, FinishedFile, resumable_map
from bertkd_ray.execution.stage import StageContext
from bertkd_ray.student.distill import MODEL

if TYPE_CHECKING:
    from bertkd_ray.decoding.batches import Translation

TRANSLATIONS = "translations.parquet"
"""Sources, references and hypotheses side by side."""
_PART_ROWS = 256
"""Sentences an actor translates at a time, at the least: enough for length batches, few enough to share a test set."""
_MANY_PARTS, _MOST_PART_ROWS = 8, 2048
"""Slices beyond which they grow instead, and the most sentences of one: larger batches are faster."""


@dataclass(frozen=True)
class TranslateJob(FileJob):
    """What an actor needs; student is a directory in the store."""

    student: str
    config: Config


@dataclass(frozen=True)
class Part:
    """A slice of the test split."""

    file: str
    """Path of the file in the corpus."""
    start: int
    """First row of the slice in that file."""
    rows: int
    name: str
    """Name of the file of translations in the staging directory."""


def pending_artifact(config: Config, store: Store, inputs: dict[str, str]) -> PendingArtifact:
    """The translation artifact of one student; the bootstrap compares finished translations."""
    search = config.translate.fingerprinted(exclude=frozenset({"bootstrap_samples"}))
    return PendingArtifact.of(store, "translation", {"translate": search, "precision": config.precision}, inputs)


def make(pending: PendingArtifact, context: StageContext) -> Artifact:
    """Translates the test split and scores it; sources, references and hypotheses stand side by side in one table.

    Raises UserError when translating more than `max_rejects` of the sentences raises or kills its process; what is
    translated is kept, and a greater share finishes it.
    """
    from bertkd_ray.evaluation.metrics import score, tokenizer_for

    config, corpus = context.config, context.inputs["corpus"]
    tokenize = tokenizer_for(TextForm.of(corpus).tgt_lang)
    parts = _parts(corpus)
    job = TranslateJob(
        storage=pending.store.uri,
        staging=pending.staging,
        corpus=corpus.directory,
        student=context.inputs["student"].directory,
        config=config,
        budget=ErrorBudget("translate", config.max_rejects, sum(part.rows for part in parts)),
    )
    _, dead_letters = resumable_map(
        pending,
        context.runtime,
        parts,
        PartTranslator,
        job,
        finished=lambda part: _finished(pending.store, pending.staging, part),
        unit="sentences",
    )
    tables = []
    for part in parts:
        with pending.store.open_input(pending.staging, part.name) as source:
            tables.append(pq.read_table(source))
    table = pa.concat_tables(tables).combine_chunks().replace_schema_metadata(None)
    write_parquet(pending.store, table, pending.directory, TRANSLATIONS, compression="zstd")
    tokens = None
    if "reference_tokens" in table.column_names:
        tokens = best_hypotheses(table, "hypotheses_tokens"), table["reference_tokens"].to_pylist()
    scores = asdict(score(best_hypotheses(table), table["reference"].to_pylist(), tokenize=tokenize, tokens=tokens))
    metrics = {f"test/{name}": value for name, value in scores.items() if isinstance(value, int | float)}
    metrics["rejects"] = len(dead_letters)
    signatures = {name: value for name, value in scores.items() if isinstance(value, str)}
    precisions = {json.loads(of.schema.metadata[STATS]).get("precision", "") for of in tables} - {""}
    info = {"signatures": signatures, "tokenize": tokenize, "precision": ", ".join(sorted(precisions))}
    info["trained_in"] = context.inputs["student"].info.get("precision", "")
    return pending.commit(made=[TRANSLATIONS, *dead_letters.keep()], metrics=metrics, info=info)


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


def signatures_of(translations: Mapping[str, Artifact], command: str = "") -> dict[str, str]:
    """What the scores of translations are, by metric, those of several versions of sacrebleu beside each other.

    translations: by what people call them. command: what makes them, for the message. Raises UserError, in one line,
    where their BLEU is of different tokenizers. A line each says that they were computed in different precisions, and
    that their students' corpora differ.
    """
    from bertkd_ray.evaluation.metrics import DEFAULT_TOKENIZER

    tokenizers = {name: of.info.get("tokenize", DEFAULT_TOKENIZER) for name, of in translations.items()}
    for name, tokenize in tokenizers.items():
        first, expected = next(iter(tokenizers.items()))
        if tokenize != expected:
            # Characters are scored where the language's tokenizer is not installed, 13a by earlier versions.
            again, wanted = (first, tokenize) if expected in ("char", DEFAULT_TOKENIZER) else (name, expected)
            raise UserError(
                f"{name}: its BLEU is of {tokenize}, that of {first} of {expected}, so that they do not compare; move "
                f"{translations[again].display_uri} away, and run {command or 'bertkd translate'} again where {wanted} "
                "is installed"
            )
    signatures = [of.info["signatures"] for of in translations.values()]
    metrics = sorted(set[str]().union(*signatures))
    lines = {metric: ", ".join(dict.fromkeys(of[metric] for of in signatures if metric in of)) for metric in metrics}
    known = {name: of.info for name, of in translations.items() if of.info.get("trained_in")}
    computed = {name: f"trained in {of['trained_in']}, translated in {of['precision']}" for name, of in known.items()}
    if len(set(computed.values())) > 1:
        lines["precision"] = "; ".join(f"{name}: {precisions}" for name, precisions in computed.items())
    if len({of.inputs.get("corpus") for of in translations.values()}) > 1:
        lines["valid"] = "the corpora differ, and with them vocabularies or valid sets: figures of these do not compare"
    return lines


class PartTranslator:
    """An actor that holds the student and translates parts of the test split."""

    def __init__(self, job: TranslateJob) -> None:
        from bertkd_ray.core.devices import best_device, resolve_precision
        from bertkd_ray.student.saved_model import load_student

        self._store, self._job = Store(job.storage), job
        self._corpus = load(self._store, job.corpus)
        self._device = best_device()
        with scratch_directory("student-") as scratch:
            directory = load(self._store, job.student).local(MODEL, scratch)
            self._model = load_student(directory, self._device)
            self._tokenizer = load_tokenizer(directory)
        self._precision = resolve_precision(job.config.precision, self._device)

    def __call__(self, part: Part) -> FinishedFile:
        """Writes the translations of one part, unless they are there."""
        if file := _finished(self._store, self._job.staging, part):
            return file
        attempt = Attempt(self._store, self._job.staging, part.name)
        form = TextForm.of(self._corpus)
        rows = self._corpus.read_table(part.file).slice(part.start, part.rows)
        translations, dead_letters = self._translate(rows, attempt, part.file)
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
        schema = translation_schema(form.text).with_metadata({STATS: json.dumps(stats)})
        attempt.finish(dead_letters)
        write_parquet(self._store, pa.table(columns, schema=schema), self._job.staging, part.name)
        return FinishedFile(part.name, part.rows, len(dead_letters))

    def _translate(
        self, rows: pa.Table, attempt: Attempt, fragment: str
    ) -> tuple[list[list[Translation]], list[DeadLetter]]:
        """The translations of every row, and the rows that cannot be translated, whose translations are empty."""
        from bertkd_ray.decoding.batches import Translation, translation_batches
        from bertkd_ray.decoding.seq2seq import translate_ids

        search = self._job.config.translate
        src = Ragged.from_arrow(rows["src_ids"])
        translations = [[Translation([], 0.0)] for _ in range(len(src))]

        def compute(chosen: NDArray[np.int64]) -> None:
            of_chosen = translate_ids(
                self._model,
                src.take(chosen),
                beam=search.beam,
                alpha=search.length_penalty,
                n_best=search.n_best,
                batch_tokens=search.forward_tokens,
                precision=self._precision,
            )
            for row, of_row in zip(chosen.tolist(), of_chosen, strict=True):
                translations[row] = of_row

        isolation = self._job.isolation(self._store, rows["id"].to_numpy(), attempt, fragment, self._device)
        batches = translation_batches(src, beam=search.beam, batch_tokens=search.forward_tokens)
        isolation.run(batches, np.arange(len(src)), compute)
        return translations, isolation.dead_letters


def _finished(store: Store, staging: str, part: Part) -> FinishedFile | None:
    """What the file of a part says of itself, or None when it has to be made, as a file of other rows has."""
    stats = finished(store, staging, part.name, staging, part.name)
    if stats is None or stats.get("part") != asdict(part):
        return None
    return FinishedFile(part.name, stats["rows"], stats["rejects"])


def _parts(corpus: Artifact) -> list[Part]:
    parts: list[Part] = []
    files = {entry.path: entry.rows for entry in corpus.files_below("test/")}
    part_rows = max(_PART_ROWS, min(-(-sum(files.values()) // _MANY_PARTS), _MOST_PART_ROWS))
    for file, rows in files.items():
        for start in range(0, rows, part_rows):
            parts.append(Part(file, start, min(part_rows, rows - start), f"part-{len(parts):06d}.parquet"))
    return parts
