"""PyTorch and CTranslate2 compute the same model, and search alike."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from bertkd_ray.core.errors import ReportedError, UserError
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.corpus.tokenizer import load_tokenizer
from bertkd_ray.decoding.beam_search import length_penalty
from bertkd_ray.student.distill import MODEL
from bertkd_ray.translation.engines import CTranslate2Engine, TorchEngine, require_ctranslate2
from bertkd_ray.translation.export import export_student
from bertkd_ray.translation.lines import LineSettings

CPU = torch.device("cpu")
EOS = 3


@pytest.fixture(scope="module")
def directories(distilled, tmp_path_factory) -> tuple[Path, Path]:
    """A student that has learned next to nothing, and its export."""
    pytest.importorskip("ctranslate2", reason="the export needs it: pip install bertkd-ray[export]")
    path = tmp_path_factory.mktemp("export") / "ct2"
    export_student(distilled.student, path, to="ctranslate2", sentences=0)
    return Path(distilled.student.uri, MODEL), path


@pytest.fixture(scope="module")
def rows(directories) -> list[list[int]]:
    """Sources of 1 to 40 tokens, one of them empty, in no order of length."""
    size = load_tokenizer(directories[0]).get_vocab_size()
    rng = np.random.default_rng(3)
    found = [rng.integers(4, size, length).tolist() for length in rng.integers(1, 41, 16)]
    return [*found[:7], [], *found[7:]]


def log_prob(directory: Path, source: list[int], target: list[int]) -> float:
    """Sum of the log-probabilities of a translation and its `</s>`, in one pass of the student in transformers."""
    from transformers import AutoModelForSeq2SeqLM

    model = AutoModelForSeq2SeqLM.from_pretrained(directory).eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*source, EOS]]), decoder_input_ids=torch.tensor([[2, *target]])).logits
    return float(torch.log_softmax(logits[0], -1)[torch.arange(len(target) + 1), torch.tensor([*target, EOS])].sum())


def test_the_export_gives_the_students_probabilities(directories, rows):
    """Token by token; with positions that begin one place further on, as the bare converter has them, none is right."""
    student, export = directories
    tokenizer, translator = load_tokenizer(student), require_ctranslate2().Translator(str(export))
    source, target = rows[0], rows[1]
    tokens = [[tokenizer.id_to_token(i) for i in ids] for ids in (source, target)]
    (scored,) = translator.score_batch([[*tokens[0], "</s>"]], [tokens[1]])
    assert len(scored.log_probs) == len(target) + 1
    assert sum(scored.log_probs) == pytest.approx(log_prob(student, source, target), abs=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("beam", [1, 4])
def test_an_empty_row_has_an_empty_translation_and_no_order_is_lost(known, translated, tmp_path, beam):
    """With a student that is sure of what it writes: where two tokens are as good, batches may choose differently."""
    pytest.importorskip("ctranslate2", reason="the export needs it: pip install bertkd-ray[export]")
    export = tmp_path / "ct2"
    export_student(translated.student, export, to="ctranslate2", sentences=0)
    corpus = known.corpus()
    sources = pq.read_table(corpus.path("test"), filesystem=corpus.store.fs)["src_ids"].to_pylist()[:16]
    rows = [*sources[:7], [], *sources[7:]]
    engines = [
        TorchEngine(Path(translated.student.uri, MODEL), LineSettings(beam=beam, length_penalty=0.6), CPU),
        CTranslate2Engine(export, LineSettings(beam=beam, length_penalty=0.6), CPU),
    ]
    for engine in engines:
        together = engine.translate(Ragged.from_lists(rows))
        assert together[7] == []
        assert together == [engine.translate(Ragged.from_lists([row]))[0] for row in rows]
        assert engine.translate(Ragged.from_lists([[]])) == [[]]


def test_greedy_search_is_the_same(directories, rows):
    student, export = directories
    src = Ragged.from_lists(rows)
    ours = TorchEngine(student, LineSettings(beam=1, length_penalty=0.6), CPU).translate(src)
    theirs = CTranslate2Engine(export, LineSettings(beam=1, length_penalty=0.6), CPU).translate(src)
    assert ours == theirs


def test_a_translation_has_no_more_tokens_than_the_students(directories, rows):
    """Of a student that never ends, every row gets all it may have, whatever stands beside it in the batch."""
    src = Ragged.from_lists(rows)
    found = CTranslate2Engine(directories[1], LineSettings(beam=1, positions=30), CPU).translate(src)
    limits = [min(2 * len(row) + 10, 30) if row else 0 for row in rows]
    assert all(len(ids) <= limit for ids, limit in zip(found, limits, strict=True))
    assert any(len(ids) == limit for ids, limit in zip(found, limits, strict=True) if limit)


class Result:
    """What `translate_batch` returns of a sentence."""

    def __init__(self, *ranked: tuple[int, float]) -> None:
        self.hypotheses = [[f"t{length}"] * length for length, _ in ranked]
        self.scores = [score for _, score in ranked]


def test_hypotheses_are_ranked_by_the_gnmt_penalty(directories):
    engine = CTranslate2Engine(directories[1], LineSettings(beam=2, length_penalty=1.0), CPU)
    # Lengths with </s> and the start symbol are 6 and 12, the penalties 11 / 6 and 17 / 6.
    assert length_penalty(6.0, 1.0) == pytest.approx(11 / 6)
    assert engine._best(Result((4, -11.0), (10, -16.9))) == ["t10"] * 10
    assert engine._best(Result((4, -11.0), (10, -17.1))) == ["t4"] * 4


def test_the_search_that_is_asked_for(directories, monkeypatch):
    seen: list[dict[str, Any]] = []

    class Recorder:
        compute_type = "float32"

        def __init__(self, *arguments: Any, **options: Any) -> None:
            seen.append(options)

        def translate_batch(self, sources: list[list[str]], **options: Any) -> list[Result]:
            seen.append(options)
            return [Result((0, 0.0))] * len(sources)

    monkeypatch.setattr(require_ctranslate2(), "Translator", Recorder)
    wanted = ("beam_size", "num_hypotheses", "length_penalty", "min_decoding_length", "max_decoding_length")
    searches = ((3, False, (3, 3, 0, 0, 14)), (3, True, (3, 1, 0.5, 1, 14)), (1, False, (1, 1, 0.5, 0, 14)))
    for beam, own, expected in searches:
        engine = CTranslate2Engine(directories[1], LineSettings(beam=beam, length_penalty=0.5), CPU, own_penalty=own)
        assert engine.translate(Ragged.from_lists([[5, 6]])) == [[]]
        assert tuple(seen[-1][name] for name in wanted) == expected
        assert seen[-2]["intra_threads"] == torch.get_num_threads()


def test_a_gpu_without_room_is_not_taken_for_a_damaged_export(directories, monkeypatch):
    ctranslate2 = require_ctranslate2()
    load = ctranslate2.Translator

    def full(directory: str, *, device: str, **options: Any) -> Any:
        if device == "cuda":
            raise RuntimeError("CUDA failed with error out of memory")
        return load(directory, device=device, **options)

    monkeypatch.setattr(ctranslate2, "Translator", full)
    settings, gpu = LineSettings(positions=64), torch.device("cuda", 1)
    with pytest.raises(ReportedError) as caught:
        CTranslate2Engine(directories[1], settings, gpu)
    assert str(caught.value) == (
        "--device cuda:1: CUDA failed with error out of memory; free the GPU, or give --device cpu"
    )
    assert caught.value.exit_code == 1
    with pytest.raises(UserError, match="damaged, or of another model"):
        CTranslate2Engine(directories[0], settings, gpu)


def test_without_ctranslate2_the_user_is_told_what_to_install(monkeypatch):
    real = builtins.__import__

    def missing(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "ctranslate2":
            raise ModuleNotFoundError(name)
        return real(name, *arguments, **options)

    monkeypatch.delitem(sys.modules, "ctranslate2", raising=False)
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UserError, match=r"ctranslate2 is not installed; in the checkout: pip install '\.\[export\]'"):
        require_ctranslate2()
