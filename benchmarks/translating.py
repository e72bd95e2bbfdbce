"""Beam search: the student in PyTorch and its CTranslate2 export, against `generate` called sentence by sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.baselines import generate_each
from benchmarks.comparison import OURS, compare
from benchmarks.setting import CPU, Setting
from benchmarks.table import Row
from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.core.quiet import quiet_transformers
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.decoding.batches import length_limits
from bertkd_ray.decoding.seq2seq import translate_ids
from bertkd_ray.student.distill import MODEL
from bertkd_ray.student.saved_model import load_student
from bertkd_ray.translation.engines import CTranslate2Engine
from bertkd_ray.translation.export import export_student
from bertkd_ray.translation.lines import LineSettings

BEAM, ALPHA = 5, 0.6
SENTENCES, OF_THE_BASELINE = 256, 32
"""A round of ours is what an actor translates at a time; the baseline takes every eighth of these sentences."""
_GENERATE = "generate"
EXPORTS = ("float32", "int8")


def measure(setting: Setting, rounds: int) -> list[Row]:
    """Output tokens a second, and how long outputs and references are."""
    with scratch_directory("student-") as scratch, quiet_transformers():
        directory = setting.student.local(MODEL, scratch)
        model = load_student(directory)
    table = setting.rows("test").slice(0, SENTENCES)
    src = Ragged.from_arrow(table["src_ids"])
    some = np.arange(0, len(src), max(1, len(src) // OF_THE_BASELINE))
    limits = length_limits(src.lengths, model.config.max_position_embeddings)
    made: dict[str, list[list[int]]] = {}

    def ours() -> None:
        searched = translate_ids(
            model,
            src,
            beam=BEAM,
            alpha=ALPHA,
            batch_tokens=setting.config.translate.forward_tokens,
            precision=setting.precision,
        )
        made[OURS] = [hypotheses[0].ids for hypotheses in searched]

    def theirs() -> None:
        made[_GENERATE] = generate_each(model, src.take(some), beam=BEAM, limits=limits[some].tolist())

    with scratch_directory("exports-") as scratch:
        engines = {f"CTranslate2, {form}": _export(setting, scratch / form, form) for form in EXPORTS}

        def exported(name: str) -> None:
            made[name] = engines[name].translate(src)

        others: dict[str, Any] = {name: (lambda name=name: exported(name)) for name in engines}
        compared = compare(ours, {_GENERATE: theirs, **others}, rounds, setting.clock)
    tokens = {name: _tokens(rows) for name, rows in made.items()}
    details = {
        "sentences": {name: len(rows) for name, rows in made.items()},
        "output_tokens": tokens,
        "tokens_a_sentence": {name: tokens[name] / len(rows) for name, rows in made.items()},
        "reference_tokens_a_sentence": float(Ragged.from_arrow(table["tgt_ids"]).lengths.mean()) + 1,
        "same_as_generate": _same(made[OURS], made[_GENERATE], some),
        **compared.details(),
    }
    unit = "output tokens/s"
    speed = Row(
        f"translate, beam {BEAM}",
        unit,
        ours=compared.rate(OURS, tokens[OURS]),
        baseline=compared.rate(_GENERATE, tokens[_GENERATE]),
        ratio=compared.ratio(_GENERATE, tokens[OURS], tokens[_GENERATE]),
        goal="≥ 8",
        **compared.columns,
        details=details,
    )
    faster = [
        Row(
            f"{name}, against translate",
            unit,
            ours=compared.rate(name, tokens[name]),
            baseline=compared.rate(OURS, tokens[OURS]),
            ratio=compared.ratio(name, tokens[OURS], tokens[name]).inverse(),
            goal="> 1",
        )
        for name in engines
    ]
    return [speed, *faster]


def _export(setting: Setting, directory: Path, form: str) -> CTranslate2Engine:
    export_student(setting.student, directory, to="ctranslate2", quantization=form, sentences=0, force=True)
    return CTranslate2Engine(directory, LineSettings(beam=BEAM, length_penalty=ALPHA), CPU)


def _tokens(rows: list[list[int]]) -> int:
    """The end of each sentence counts as one."""
    return sum(map(len, rows)) + len(rows)


def _same(ours: list[list[int]], theirs: list[list[int]], some: np.ndarray) -> float:
    """The share of sentences that both translate alike; the length penalties of the two differ a little."""
    return float(np.mean([ours[row] == other for row, other in zip(some.tolist(), theirs, strict=True)]))
