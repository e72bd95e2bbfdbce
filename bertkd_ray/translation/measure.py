"""What an export is worth: its BLEU and speed beside those of the student in PyTorch, on the student's own test text.

Both translate the same token ids in the same batches on the same device, in float32 where the export is not quantised,
and both search as `translation.engines` says; so a difference is the export's.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.artifacts.row_groups import RowGroups
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.core.text_tables import text_table
from bertkd_ray.corpus.moses import to_raw
from bertkd_ray.corpus.tokenizer import decode, load_tokenizer
from bertkd_ray.evaluation.metrics import score, tokenizer_for
from bertkd_ray.student.lineage import Lineage
from bertkd_ray.translation.engines import CTranslate2Engine, TorchEngine
from bertkd_ray.translation.lines import Engine, LineSettings

_WARM_UP = 8  # sentences
_ROUNDS = 2


@dataclass(frozen=True)
class EngineScore:
    """BLEU and speed of an engine."""

    name: str
    bleu: float
    sentences_per_second: float


@dataclass(frozen=True)
class Measurement:
    """The engines' scores on the same sentences."""

    split: str
    sentences: int
    beam: int
    length_penalty: float
    """Exponent of the GNMT penalty."""
    threads: int
    signature: str
    """BLEU's signature."""
    rows: tuple[EngineScore, ...]
    """The student in PyTorch, the export, and the export as a plain `translate_batch` has it."""

    def table(self) -> str:
        """A table for the terminal, with what was measured and how."""
        cells = [[row.name, f"{row.bleu:.2f}", f"{row.sentences_per_second:,.1f}"] for row in self.rows]
        penalty = f", GNMT length penalty {self.length_penalty:g}" if self.beam > 1 else ""
        threads = f"{self.threads} CPU thread{'s' if self.threads > 1 else ''}"
        return "\n".join(
            [
                f"{self.sentences:,} sentences of the {self.split} split, beam {self.beam}{penalty}, {threads}",
                "",
                *text_table([["", "BLEU", "sentences/s"], *cells]),
                "",
                f"BLEU: {self.signature}",
            ]
        )


def require_test_text(lineage: Lineage) -> Artifact:
    """The corpus of a student. Raises UserError where its store holds it no longer."""
    if lineage.corpus is None:
        missing = f"corpus-{lineage.student.inputs['corpus']}"
        raise UserError(
            f"{lineage.student.display_uri}: its corpus {missing} is not in the store, and the export cannot be "
            "measured; --sentences 0 exports without measuring"
        )
    return lineage.corpus


def measure(lineage: Lineage, student: Path, export: Path, settings: LineSettings, sentences: int) -> Measurement:
    """Translates the first `sentences` of the test split (of valid, where there is no test) with student and export.

    On the CPU, with torch's number of threads. A line over the student's positions has an empty translation, as in the
    translate stage. The third row is CTranslate2 with a length penalty of its own
    (length^x, `</s>` not counted) at the same exponent, which is what its plain `translate_batch` gives.
    """
    corpus = require_test_text(lineage)
    split = "test" if corpus.files_below("test/") else "valid"
    table = _first_rows(corpus, split, sentences)
    rows = table["src_ids"].to_pylist()
    src, cpu = Ragged.from_lists([ids if len(ids) < settings.positions else [] for ids in rows]), torch.device("cpu")
    language = settings.form.tgt_lang
    references = to_raw(table["tgt"].to_pylist(), settings.text, language)
    tokenizer, tokenize = load_tokenizer(student), tokenizer_for(language)
    exported = CTranslate2Engine(export, settings, cpu)
    name = f"CTranslate2, {exported.compute_type}"
    engines: dict[str, Engine] = {"PyTorch, float32": TorchEngine(student, settings, cpu), name: exported}
    if settings.beam > 1:
        engines[f"{name}, its own length penalty"] = CTranslate2Engine(export, settings, cpu, own_penalty=True)
    translations, seconds = _translated(engines, src)
    scored, signature = [], ""
    for engine, rows_of_ids in translations.items():
        hypotheses = to_raw(decode(tokenizer, rows_of_ids), settings.text, language)
        scores = score(hypotheses, references, tokenize=tokenize)
        scored.append(EngineScore(engine, scores.bleu, len(src) / seconds[engine]))
        signature = scores.bleu_signature
    return Measurement(
        split, len(src), settings.beam, settings.length_penalty, torch.get_num_threads(), signature, tuple(scored)
    )


def _translated(engines: dict[str, Engine], src: Ragged) -> tuple[dict[str, list[list[int]]], dict[str, float]]:
    """The translations of every engine, and its seconds: the best of rounds in turn, as other work comes and goes."""
    translations: dict[str, list[list[int]]] = {}
    seconds = dict.fromkeys(engines, float("inf"))
    for engine in engines.values():
        engine.translate(src.take(np.arange(min(_WARM_UP, len(src)))))
    for name, engine in [*engines.items()] * _ROUNDS:
        started = time.perf_counter()
        translations[name] = engine.translate(src)
        seconds[name] = min(seconds[name], time.perf_counter() - started)
    return translations, seconds


def _first_rows(corpus: Artifact, split: str, count: int) -> pa.Table:
    groups = RowGroups(corpus, f"{split}/", ["src_ids", "tgt"])
    needed = int(np.searchsorted(np.cumsum(groups.rows), count)) + 1
    return groups.read(np.arange(min(needed, len(groups.rows)))).slice(0, count)
