"""What an export is worth beside the student, on a student that has something to lose."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from bertkd_ray.core.errors import UserError
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.student.distill import MODEL
from bertkd_ray.translation import measure
from bertkd_ray.translation.export import export_student
from bertkd_ray.translation.measure import EngineScore, Measurement, require_test_text
from bertkd_ray.translation.models import settings_of
from tests.translation.conftest import KNOWN

MEASUREMENT = Measurement(
    split="test",
    sentences=1200,
    beam=5,
    length_penalty=0.6,
    threads=1,
    signature="nrefs:1|tok:13a",
    rows=(EngineScore("PyTorch, float32", 31.239, 9.25), EngineScore("CTranslate2, int8", 31.1, 1234.5)),
)


def test_the_table_by_hand():
    assert MEASUREMENT.table() == (
        "1,200 sentences of the test split, beam 5, GNMT length penalty 0.6, 1 CPU thread\n\n"
        "                    BLEU  sentences/s\n"
        "─────────────────  ─────  ───────────\n"
        "PyTorch, float32   31.24          9.2\n"
        "CTranslate2, int8  31.10      1,234.5\n\n"
        "BLEU: nrefs:1|tok:13a"
    )
    assert (
        replace(MEASUREMENT, beam=1, threads=2)
        .table()
        .startswith("1,200 sentences of the test split, beam 1, 2 CPU th")
    )
    assert asdict(MEASUREMENT)["rows"][1] == {
        "name": "CTranslate2, int8",
        "bleu": 31.1,
        "sentences_per_second": 1234.5,
    }


def test_a_corpus_that_is_gone_cannot_be_measured_on(distilled):
    assert require_test_text(distilled) == distilled.corpus
    with pytest.raises(UserError, match=r"its corpus corpus-\w{16} is not in the store.*--sentences 0 exports without"):
        require_test_text(replace(distilled, corpus=None))


def test_the_first_rows_of_a_split(distilled):
    for split, of_split in (("test", KNOWN), ("valid", 24)):
        whole = measure._first_rows(distilled.corpus, split, 10_000)
        assert len(whole) == of_split
        for count in (1, 20, 64, 65):
            assert measure._first_rows(distilled.corpus, split, count).equals(whole.slice(0, count))


def test_every_engine_translates_all_and_the_best_round_counts(monkeypatch):
    clock = iter([0.0, 5.0, 10.0, 12.0, 20.0, 23.0, 30.0, 34.0])
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(clock))
    asked: list[tuple[str, int]] = []

    class Engine:
        def __init__(self, name: str) -> None:
            self.name = name

        def translate(self, src: Ragged) -> list[list[int]]:
            asked.append((self.name, len(src)))
            return [[int(length)] for length in src.lengths]

    src = Ragged(np.zeros(45, np.int32), np.arange(10) * 5)
    found, seconds = measure._translated({"a": Engine("a"), "b": Engine("b")}, src)
    assert found == {"a": [[5]] * 9, "b": [[5]] * 9}
    assert seconds == {"a": 3.0, "b": 2.0}
    assert asked == [("a", 8), ("b", 8), ("a", 9), ("b", 9), ("a", 9), ("b", 9)]


@pytest.mark.slow
def test_a_line_over_the_models_positions_has_an_empty_translation(translated, tmp_path):
    pytest.importorskip("ctranslate2", reason="the export needs it: pip install bertkd-ray[export]")
    export = export_student(translated.student, tmp_path / "e", to="ctranslate2", sentences=0)
    lengths = [len(ids) for ids in measure._first_rows(translated.corpus, "test", KNOWN)["src_ids"].to_pylist()]
    assert min(lengths) < max(lengths)
    settings = settings_of(translated)
    whole = measure.measure(translated, Path(translated.student.path(MODEL)), export.path, settings, KNOWN)
    positions = settings.model_copy(update={"positions": max(lengths)})
    shorter = measure.measure(translated, Path(translated.student.path(MODEL)), export.path, positions, KNOWN)
    assert shorter.sentences == KNOWN
    assert shorter.rows[1].bleu < whole.rows[1].bleu


@pytest.mark.slow
@pytest.mark.parametrize(("quantization", "tolerance"), [("float32", 0.2), ("int8", 0.5)])
def test_the_bleu_of_an_export_is_the_students(translated, tmp_path, quantization, tolerance):
    pytest.importorskip("ctranslate2", reason="the export needs it: pip install bertkd-ray[export]")
    exported = export_student(
        translated.student, tmp_path / "e", to="ctranslate2", quantization=quantization, sentences=KNOWN
    )
    measured = exported.measurement
    assert measured is not None
    ours, theirs, plain = measured.rows
    assert (measured.split, measured.sentences, measured.beam, measured.length_penalty) == ("test", KNOWN, 4, 0.6)
    assert ours.name == "PyTorch, float32"
    assert theirs.name.startswith(f"CTranslate2, {quantization}")
    assert plain.name == f"{theirs.name}, its own length penalty"
    # The same figure as the pipeline's, and one that an empty or a wrong translation would not reach.
    assert ours.bleu == pytest.approx(translated.translations[0].metrics["test/bleu"], abs=0.05)
    assert ours.bleu > 90
    assert theirs.bleu == pytest.approx(ours.bleu, abs=tolerance)
    assert plain.bleu == pytest.approx(ours.bleu, abs=3)
    assert all(row.sentences_per_second > 0 for row in measured.rows)
    assert measured.signature == translated.translations[0].info["signatures"]["bleu_signature"]
