"""The baselines compute what the stages compute, so that a ratio of times compares like with like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.baselines import OriginalExtraction, PlainDistillation, PlainFinetuning, generate_each
from benchmarks.training import drawn_labels
from bertkd_ray.config.sections import KdConfig, StudentConfig, TeacherConfig
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.decoding.seq2seq import translate_ids
from bertkd_ray.softlabels.scoring import Scorer
from bertkd_ray.student.collate import collate
from bertkd_ray.student.model import build_student
from bertkd_ray.student.task import DistillationLoss
from bertkd_ray.teacher.masking import BertSpecials, cmlm_batch, random_masks
from bertkd_ray.teacher.model import ConditionalMaskedLM, build_teacher
from bertkd_ray.teacher.task import MaskedLoss, TeacherBatch
from tests.teacher.tiny import write_bert

V, PAIRS = 24, 19
BERT_IDS = np.concatenate([[0, 2, 2, 3], np.arange(5, 25)]).astype(np.int32)
SPECIALS = BertSpecials(pad=0, cls=2, sep=3, mask=4)


def rows(seed: int) -> Ragged:
    """1 to 10 tokens each."""
    random = np.random.default_rng(seed)
    return Ragged.from_lists([random.integers(4, V, random.integers(1, 11)).tolist() for _ in range(PAIRS)])


SRC, TGT = rows(0), rows(1)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("bert"))


def teacher(bert: Path, attention: str = "eager") -> ConditionalMaskedLM:
    return build_teacher(bert, BERT_IDS, TeacherConfig(dropout=0.0, attention_dropout=0.0), attention=attention)


def student() -> Any:
    return build_student(
        StudentConfig(
            encoder_layers=1,
            decoder_layers=1,
            width=16,
            ffn=24,
            heads=2,
            dropout=0.0,
            attention_dropout=0.0,
            activation_dropout=0.0,
        ),
        vocab_size=V,
        max_positions=64,
        seed=3,
    )


def assert_same_gradients(one: torch.nn.Module, other: torch.nn.Module) -> None:
    """Within 1e-5."""
    expected = {name: parameter.grad for name, parameter in other.named_parameters()}
    for name, parameter in one.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-5, atol=1e-5, msg=name)


def test_extraction_finds_the_scorers_tokens(bert: Path, tmp_path: Path) -> None:
    """The baseline keeps hidden states in float16, so logits agree to 0.02 and closer ones may change places."""
    model, k = teacher(bert).eval(), 4
    scorer = Scorer(
        model, BERT_IDS, SPECIALS, topk=k + 1, batch_tokens=200, precision="float32", device=torch.device("cpu")
    )
    ours = scorer.score(SRC, TGT, np.arange(PAIRS))
    ids, logits = OriginalExtraction(model, BERT_IDS, SPECIALS, k)(SRC, TGT, tmp_path)
    ours_logits = ours.topk_logits.astype(np.float32)
    assert np.abs(ours_logits[:, :k] - logits.numpy()).max() < 0.02
    apart = (ours_logits[:, :-1] - ours_logits[:, 1:] > 0.04).all(axis=1)
    assert apart.sum() > 20
    assert np.array_equal(ours.topk_ids[apart][:, :k], ids.numpy()[apart])
    positions = len(TGT.values) + PAIRS
    assert (tmp_path / "hiddens").stat().st_size == positions * 16 * 2
    assert (tmp_path / "topk").stat().st_size == positions * k * (4 + 2)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_finetuning_has_our_loss_and_gradient(bert: Path, whole: bool, attention: str) -> None:
    mask = random_masks(np.arange(PAIRS), TGT.lengths + 1, seed=1, epoch=0, probability=0.3)
    batch = TeacherBatch.of(cmlm_batch(SRC, TGT, mask, BERT_IDS, SPECIALS))
    ours = teacher(bert)
    loss_sum, _ = MaskedLoss(ours)(batch)
    (loss_sum / batch.count).backward()
    theirs = teacher(bert, attention)
    loss = PlainFinetuning(theirs, lr=1e-3, weight_decay=0.01, clip=1.0, whole=whole).loss(batch)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(loss_sum.detach()) / batch.count, rel=1e-5)
    assert_same_gradients(theirs, ours)


def test_distillation_has_our_loss_and_gradient() -> None:
    kd = KdConfig(alpha=0.5, temperature=1.0, topk=3, tail="exact")
    batch = collate(SRC, TGT, drawn_labels(len(TGT.values) + PAIRS, 3, V))
    ours, theirs = student().train(), student()
    loss_sum, _ = DistillationLoss(ours, kd, 0.1, "float32")(batch)
    (loss_sum / batch.count).backward()
    loss = PlainDistillation(theirs, kd, label_smoothing=0.1, lr=1e-3).loss(batch)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(loss_sum.detach()) / batch.count, rel=1e-5)
    assert_same_gradients(theirs, ours)


def test_generate_writes_what_greedy_search_writes() -> None:
    """With one beam both have the same search; with more they differ in the length penalty."""
    model, limits = student().eval(), [12] * PAIRS
    ours = translate_ids(model, SRC, beam=1, max_length_factor=0.0, max_length_offset=12)
    # transformers lets <pad> and <s> be written, which ours never does; they are dropped from both.
    theirs = generate_each(model, SRC, beam=1, limits=limits)
    same = sum([*one[0].ids] == other for one, other in zip(ours, theirs, strict=True))
    assert same >= PAIRS - 2


def test_drawn_labels_are_possible_labels() -> None:
    labels = drawn_labels(50, 8, 100)
    ids, logits, logsumexp = labels.topk_ids, labels.topk_logits, labels.logsumexp
    assert all(len(set(row)) == 8 for row in ids.tolist())
    assert ids.min() >= 0
    assert ids.max() < 100
    assert (np.diff(logits, axis=1) <= 0).all()
    assert np.exp(logits - logsumexp[:, None]).sum(axis=1) == pytest.approx(np.full(50, 0.9), rel=1e-4)
