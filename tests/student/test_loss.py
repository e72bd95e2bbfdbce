from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bertkd_ray.student.loss import LossSums, fused_kd_loss, kd_loss
from tests.helpers.shared_files import golden_path


def _case(rows: int, width: int, vocabulary: int, k: int, *, dtype: torch.dtype = torch.float32, seed: int = 0):
    """hidden, weight, targets, and a teacher's top k with the logsumexp over its whole vocabulary."""
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, width, generator=g, dtype=dtype).requires_grad_()
    weight = (torch.randn(vocabulary, width, generator=g, dtype=dtype) * 0.3).requires_grad_()
    targets = torch.randint(vocabulary, (rows,), generator=g)
    teacher = torch.randn(rows, vocabulary, generator=g, dtype=dtype) * 2
    topk = teacher.topk(k)
    return hidden, weight, targets, topk.indices, topk.values, teacher.logsumexp(1)


# --- the plain form, by hand


def test_cross_entropy_with_smoothing_by_hand():
    p = torch.tensor([[0.5, 0.25, 0.125, 0.125]], dtype=torch.float64)
    loss = kd_loss(p.log() + 3.0, torch.tensor([1]), alpha=0.0, label_smoothing=0.1)
    # -log2 p = 1, 2, 3, 3; the smoothing mass over V - 2 = 2.
    assert loss.item() == pytest.approx(math.log(2) * (0.9 * 2 + 0.1 / 2 * 9), rel=1e-12)


def test_soft_labels_by_hand():
    p = torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.25, 0.25, 0.25, 0.25]], dtype=torch.float64)
    ids = torch.tensor([[0, 2], [3, 1]])
    # At temperature 2 the logits 2·ln 3 and 0 stand 3 : 1.
    logits = torch.tensor([[2 * math.log(3), 0.0], [1.0, 1.0]], dtype=torch.float64)
    loss = kd_loss(p.log(), torch.tensor([3, 0]), ids, logits, alpha=0.25, temperature=2.0)
    soft = (0.75 * 1 + 0.25 * 3) + 2
    gold = 3 + 2
    assert loss.item() == pytest.approx(math.log(2) * (0.75 * gold + 0.25 * soft), rel=1e-12)


def test_symmetric_temperature_by_hand():
    # The student's scores at temperature 2 stand 2 : 1 : 1, the teacher's 3 : 1; the soft share counts fourfold.
    p = torch.tensor([[4.0, 1.0, 1.0]], dtype=torch.float64) / 6
    logits = torch.tensor([[2 * math.log(3), 0.0]], dtype=torch.float64)
    options = {"alpha": 0.25, "temperature": 2.0, "symmetric": True}
    loss = kd_loss(p.log() + 3.0, torch.tensor([0]), torch.tensor([[0, 2]]), logits, **options)
    soft = -(0.75 * math.log(0.5) + 0.25 * math.log(0.25))
    assert loss.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * 4 * soft, rel=1e-12)


def test_symmetric_temperature_is_least_where_the_student_equals_the_teacher():
    teacher = torch.randn(1, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    kept = teacher.topk(12)
    scores = teacher.clone().requires_grad_()
    options = {"alpha": 1.0, "temperature": 4.0, "symmetric": True}
    kd_loss(scores, torch.tensor([0]), kept.indices, kept.values, **options).backward()
    assert scores.grad.abs().max() < 1e-12


def test_exact_tail_by_hand():
    p = torch.tensor([[0.5, 0.25, 0.125, 0.125]], dtype=torch.float64)
    ids = torch.tensor([[0, 2]])
    logits = torch.tensor([[0.5, 0.25]], dtype=torch.float64).log() + 7
    logsumexp = torch.tensor([7.0], dtype=torch.float64)
    loss = kd_loss(p.log(), torch.tensor([0]), ids, logits, logsumexp, alpha=1.0, tail="exact")
    # 0.25 of the teacher's mass is not kept; the student gives 0.25 + 0.125 to those tokens.
    expected = -(0.5 * math.log(0.5) + 0.25 * math.log(0.125) + 0.25 * math.log(0.375))
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_exact_tail_is_least_where_the_student_equals_the_teacher():
    teacher = torch.randn(1, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    kept = teacher.topk(4)
    scores = teacher.clone().requires_grad_()
    target = torch.tensor([0])
    kd_loss(scores, target, kept.indices, kept.values, teacher.logsumexp(1), alpha=1.0, tail="exact").backward()
    assert scores.grad.abs().max() < 1e-12


def test_exact_tail_with_logits_rounded_above_their_sum_stays_finite():
    hidden, weight, targets, ids, logits, _ = _case(3, 4, 16, 4)
    rounded_down = logits.logsumexp(1) - 0.01
    options = {"alpha": 1.0, "tail": "exact"}
    plain = kd_loss(hidden @ weight.T, targets, ids, logits, rounded_down, **options)
    fused = fused_kd_loss(hidden, weight, targets, ids, logits, rounded_down, **options)
    torch.testing.assert_close(plain, fused.loss, rtol=1e-5, atol=0)
    renormalised = kd_loss(hidden @ weight.T, targets, ids, logits, alpha=1.0)
    torch.testing.assert_close(plain, renormalised, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.5}, "alpha"),
        ({"alpha": 0.5, "temperature": 0.0}, "temperature"),
        ({"alpha": 0.5, "label_smoothing": 1.0}, "label_smoothing"),
        ({"alpha": 0.5, "tail": "drop"}, "tail"),
        ({"alpha": 0.5, "tail": "exact", "temperature": 2.0}, "temperature 1"),
        ({"alpha": 0.5}, "topk_ids"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        kd_loss(torch.zeros(1, 8), torch.tensor([0]), **options)
    with pytest.raises(ValueError, match=message):
        fused_kd_loss(torch.zeros(1, 2), torch.zeros(8, 2), torch.tensor([0]), **options)


def test_exact_tail_needs_logsumexp():
    scores, target = torch.zeros(1, 4), torch.tensor([0])
    ids, logits = torch.arange(4)[None], torch.zeros(1, 4)
    with pytest.raises(ValueError, match="logsumexp"):
        kd_loss(scores, target, ids[:, :2], logits[:, :2], alpha=0.5, tail="exact")


def test_exact_tail_of_all_tokens_is_the_cross_entropy_of_the_whole_teacher():
    torch.manual_seed(0)
    scores, teacher, target = torch.randn(3, 4), torch.randn(3, 4), torch.tensor([0, 3, 1])
    kept = teacher.topk(4)
    loss = kd_loss(scores, target, kept.indices, kept.values, teacher.logsumexp(1), alpha=1.0, tail="exact")
    expected = -(teacher.softmax(1) * scores.log_softmax(1)).sum()
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    hidden, weight = torch.randn(3, 5), torch.randn(4, 5)
    fused = fused_kd_loss(
        hidden, weight, target, kept.indices, kept.values, teacher.logsumexp(1), alpha=1.0, tail="exact"
    )
    expected = -(teacher.softmax(1) * (hidden @ weight.T).log_softmax(1)).sum()
    assert float(fused.loss) == pytest.approx(float(expected), rel=1e-5)


# --- an alpha of each position


def test_a_position_without_soft_labels_has_the_whole_reference_by_hand():
    p = torch.tensor([[0.5, 0.25, 0.125, 0.125]] * 2, dtype=torch.float64)
    ids, logits = torch.tensor([[0, 2]] * 2), torch.zeros(2, 2, dtype=torch.float64)
    alpha = torch.tensor([0.25, 0.0], dtype=torch.float64)
    loss = kd_loss(p.log(), torch.tensor([3, 1]), ids, logits, alpha=alpha)
    # -log2 p is 3 and 2 of the references, (1 + 3) / 2 of the soft labels.
    assert loss.item() == pytest.approx(math.log(2) * (0.75 * 3 + 0.25 * 2 + 2), rel=1e-12)


BY_POSITION = [
    {},
    {"label_smoothing": 0.1},
    {"label_smoothing": 0.1, "temperature": 10.0},
    {"label_smoothing": 0.1, "temperature": 3.0, "symmetric": True},
    {"label_smoothing": 0.1, "tail": "exact"},
]


def _mixed(positions: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """0 and 1 among them, and what lies between."""
    return torch.linspace(0, 1, 4, dtype=dtype).repeat(positions)[:positions]


@pytest.mark.parametrize("options", BY_POSITION)
@pytest.mark.parametrize(("dtype", "loss_off", "gradient_off"), [(None, 1e-5, 1e-5), (torch.bfloat16, 1e-3, 1e-2)])
def test_fused_with_an_alpha_of_each_position_is_the_sum_over_positions(options, dtype, loss_off, gradient_off):
    """Position by position, each with its one number, through the plain form."""
    hidden, weight, targets, *soft = _case(96, 64, 1031, 8, seed=3)
    alpha, scores = _mixed(96), hidden @ weight.T
    rows = [slice(row, row + 1) for row in range(96)]
    parts = [
        kd_loss(scores[row], targets[row], *(tensor[row] for tensor in soft), alpha=alpha[row].item(), **options)
        for row in rows
    ]
    plain = torch.stack(parts).sum()
    expected = torch.autograd.grad(plain, [hidden, weight])
    sums = fused_kd_loss(hidden, weight, targets, *soft, alpha=alpha, matmul_dtype=dtype, block_rows=40, **options)
    assert sums.loss.item() == pytest.approx(plain.item(), rel=loss_off)
    for actual, wanted in zip(torch.autograd.grad(sums.loss, [hidden, weight]), expected, strict=True):
        assert torch.linalg.norm(actual - wanted) < gradient_off * torch.linalg.norm(wanted)


@pytest.mark.parametrize("options", BY_POSITION)
def test_gradients_with_an_alpha_of_each_position_by_finite_differences(options):
    hidden, weight, *rest = _case(5, 4, 11, 3, dtype=torch.float64)
    alpha = _mixed(5, torch.float64)
    assert torch.autograd.gradcheck(
        lambda h, w: fused_kd_loss(h, w, *rest, alpha=alpha, block_rows=2, **options).loss, (hidden, weight)
    )
    assert torch.autograd.gradcheck(lambda h, w: kd_loss(h @ w.T, *rest, alpha=alpha, **options), (hidden, weight))


# --- several teachers


def _two_teachers(rows: int, width: int, vocabulary: int, k: int, dtype: torch.dtype = torch.float32):
    """As `_case`, with labels of two teachers that agree in some of their k tokens, and differ in others."""
    hidden, weight, targets, *_ = _case(rows, width, vocabulary, k, dtype=dtype, seed=3)
    g = torch.Generator().manual_seed(4)
    common = torch.randn(rows, vocabulary, generator=g, dtype=dtype) * 2
    teachers = [common + torch.randn(rows, vocabulary, generator=g, dtype=dtype) for _ in range(2)]
    kept = [teacher.topk(k) for teacher in teachers]
    labels = (
        torch.stack([of.indices for of in kept], dim=1),
        torch.stack([of.values for of in kept], dim=1),
        torch.stack([teacher.logsumexp(1) for teacher in teachers], dim=1),
    )
    shared = (labels[0][:, 0, :, None] == labels[0][:, 1, None, :]).any(-1)
    assert 0 < shared.double().mean() < 1
    return hidden, weight, targets, *labels


def test_probabilities_of_teachers_are_mixed_not_their_logits_by_hand():
    p = torch.tensor([[0.5, 0.25, 0.125, 0.125]], dtype=torch.float64)
    ids = torch.tensor([[[0, 2], [2, 3]]])
    # 3 : 1 and 1 : 1; the third token has both.
    logits = torch.tensor([[[math.log(3), 0.0], [5.0, 5.0]]], dtype=torch.float64)
    loss = kd_loss(p.log(), torch.tensor([0]), ids, logits, alpha=1.0, teacher_weights=[0.25, 0.75])
    q = {0: 0.25 * 0.75, 2: 0.25 * 0.25 + 0.75 * 0.5, 3: 0.75 * 0.5}
    assert sum(q.values()) == 1
    assert loss.item() == pytest.approx(math.log(2) * (q[0] * 1 + q[2] * 3 + q[3] * 3), rel=1e-12)


def test_the_tail_of_each_teacher_is_exact_by_hand():
    p = torch.tensor([[0.5, 0.25, 0.125, 0.125]], dtype=torch.float64)
    ids = torch.tensor([[[0], [1]]])
    logits = torch.tensor([[[0.5], [0.125]]], dtype=torch.float64).log() + 7
    logsumexp = torch.full((1, 2), 7.0, dtype=torch.float64)
    options = {"alpha": 1.0, "tail": "exact", "teacher_weights": [0.25, 0.75]}
    loss = kd_loss(p.log(), torch.tensor([0]), ids, logits, logsumexp, **options)
    # The first gives 0.5 to what is not token 0, where the student has 0.5; the second 0.875 to what is not token 1.
    first = -(0.5 * math.log(0.5) + 0.5 * math.log(0.5))
    second = -(0.125 * math.log(0.25) + 0.875 * math.log(0.75))
    assert loss.item() == pytest.approx(0.25 * first + 0.75 * second, rel=1e-12)


MIXTURES = [
    {"alpha": 0.5, "temperature": 10.0, "label_smoothing": 0.1},
    {"alpha": 1.0, "temperature": 3.0, "symmetric": True},
    {"alpha": 0.5, "label_smoothing": 0.1, "tail": "exact"},
    {"alpha": 1.0, "tail": "exact"},
]


def _dense(hidden: Tensor, weight: Tensor, targets: Tensor, labels: tuple[Tensor, ...], weights: list[float], **o: Any):
    """The formula over the whole vocabulary, without any of the code: q is an [N, V] of the mixed probabilities."""
    ids, logits, logsumexp = labels
    scores, temperature = hidden @ weight.T, o.get("temperature", 1.0)
    log_p = scores.log_softmax(1)
    smoothing = o.get("label_smoothing", 0.0)
    gold = -(1 - smoothing) * log_p.gather(1, targets[:, None]).squeeze(1)
    gold = gold - smoothing / (scores.shape[1] - 2) * log_p.sum(1)
    soft = torch.zeros_like(gold)
    for teacher, of in enumerate(weights):
        exact = o.get("tail") == "exact"
        kept = (logits[:, teacher] - logsumexp[:, teacher, None]).exp()
        kept = kept if exact else (logits[:, teacher] / temperature).softmax(1)
        q = torch.zeros_like(log_p).scatter(1, ids[:, teacher], kept)
        scale = temperature if o.get("symmetric") else 1.0
        soft = soft - of * scale**2 * (q * (scores / scale).log_softmax(1)).sum(1)
        if exact:
            left = torch.ones_like(log_p).scatter(1, ids[:, teacher], 0.0)
            soft = soft - of * (1 - kept.sum(1)) * (log_p.exp() * left).sum(1).log()
    return ((1 - o["alpha"]) * gold + o["alpha"] * soft).sum()


@pytest.mark.parametrize("options", MIXTURES)
@pytest.mark.parametrize("weights", [[0.5, 0.5], [0.2, 0.8], [1.0, 0.0]])
def test_the_plain_form_of_two_teachers_is_the_formula(options, weights):
    hidden, weight, targets, *labels = _two_teachers(9, 8, 40, 5, torch.float64)
    expected = _dense(hidden, weight, targets, labels, weights, **options)
    loss = kd_loss(hidden @ weight.T, targets, *labels, teacher_weights=weights, **options)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    wanted = torch.autograd.grad(expected, [hidden, weight])
    for actual, of in zip(torch.autograd.grad(loss, [hidden, weight]), wanted, strict=True):
        torch.testing.assert_close(actual, of, rtol=1e-9, atol=1e-9 * of.abs().max().item())


@pytest.mark.parametrize("options", MIXTURES)
@pytest.mark.parametrize(("dtype", "loss_off", "gradient_off"), [(None, 1e-5, 1e-5), (torch.bfloat16, 1e-3, 1e-2)])
@pytest.mark.parametrize("by_position", [False, True])
def test_fused_of_two_teachers_equals_plain(options, dtype, loss_off, gradient_off, by_position):
    hidden, weight, targets, *labels = _two_teachers(96, 64, 1031, 8)
    alpha = _mixed(96) if by_position else options["alpha"]
    options = {**options, "alpha": alpha, "teacher_weights": [0.3, 0.7]}
    plain = kd_loss(hidden @ weight.T, targets, *labels, **options)
    expected = torch.autograd.grad(plain, [hidden, weight])
    sums = fused_kd_loss(hidden, weight, targets, *labels, matmul_dtype=dtype, block_rows=40, **options)
    assert sums.loss.item() == pytest.approx(plain.item(), rel=loss_off)
    for actual, wanted in zip(torch.autograd.grad(sums.loss, [hidden, weight]), expected, strict=True):
        assert torch.linalg.norm(actual - wanted) < gradient_off * torch.linalg.norm(wanted)


@pytest.mark.parametrize("options", MIXTURES)
def test_fused_gradient_of_two_teachers_by_finite_differences(options):
    hidden, weight, *rest = _two_teachers(4, 4, 11, 3, torch.float64)
    options = {**options, "teacher_weights": [0.3, 0.7]}
    assert torch.autograd.gradcheck(
        lambda h, w: fused_kd_loss(h, w, *rest, block_rows=3, **options).loss, (hidden, weight)
    )


@pytest.mark.parametrize("options", MIXTURES)
def test_the_same_teacher_twice_is_that_teacher(options):
    hidden, weight, targets, ids, logits, logsumexp = _case(7, 8, 40, 5, dtype=torch.float64)
    twice = torch.stack([ids] * 2, 1), torch.stack([logits] * 2, 1), torch.stack([logsumexp] * 2, 1)
    one = fused_kd_loss(hidden, weight, targets, ids, logits, logsumexp, **options).loss
    two = fused_kd_loss(hidden, weight, targets, *twice, teacher_weights=[0.4, 0.6], **options).loss
    assert two.item() == pytest.approx(one.item(), rel=1e-12)
    expected, found = (torch.autograd.grad(loss, [hidden, weight]) for loss in (one, two))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("weights", [[1.0], [0.5, 0.4], [1.5, -0.5]])
def test_weights_of_teachers_are_one_each_and_sum_to_1(weights):
    hidden, weight, *rest = _two_teachers(3, 4, 40, 3)
    with pytest.raises(ValueError, match="2 teachers need as many weights that sum to 1"):
        fused_kd_loss(hidden, weight, *rest, alpha=0.5, teacher_weights=weights)


def test_a_student_sure_of_one_teachers_tokens_stays_finite_under_the_others_tail():
    hidden = torch.tensor([[400.0, 0.0]], requires_grad=True)
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], requires_grad=True)
    labels = torch.tensor([[[0], [1]]]), torch.zeros(1, 2, 1), torch.full((1, 2), 0.7)
    sums = fused_kd_loss(
        hidden, weight, torch.tensor([0]), *labels, alpha=0.5, tail="exact", teacher_weights=[0.5, 0.5]
    )
    sums.loss.backward()
    assert torch.isfinite(sums.loss)
    assert torch.isfinite(hidden.grad).all()


# --- the original's vectors


def _golden() -> tuple[dict, dict[str, Tensor]]:
    facts = json.loads(golden_path("kd_loss.json").read_text())
    arrays = np.load(golden_path("kd_loss.npz"), allow_pickle=False)
    real = arrays["target"] != facts["padding_idx"]
    tensors = {name: torch.from_numpy(arrays[name][real]) for name in arrays}
    return facts, tensors


@pytest.mark.golden
@pytest.mark.parametrize("setting", range(8))
@pytest.mark.parametrize("form", ["plain", "fused"])
@pytest.mark.parametrize(
    ("dtype", "suffix", "grad", "rel"),
    [(torch.float32, "float32", "grad", 1e-5), (torch.float64, "float64", "grad64", 1e-9)],
)
def test_loss_and_gradient_of_the_original(setting, form, dtype, suffix, grad, rel):
    facts, data = _golden()
    case = facts["settings"][setting]
    options = {name: case[name] for name in ("alpha", "temperature", "label_smoothing")}
    scores = data["scores"].to(dtype).requires_grad_()
    soft = data["topk_indices"][:, : case["k"]], data["topk_logits"][:, : case["k"]].to(dtype)
    if form == "plain":
        loss = kd_loss(scores, data["target"], *soft, **options)
    else:
        # An identity as the output layer makes the scores the hidden states.
        identity = torch.eye(scores.shape[1], dtype=dtype)
        loss = fused_kd_loss(scores, identity, data["target"], *soft, block_rows=7, **options).loss
    assert len(scores) == case["n_nonpad"]
    assert loss.item() == pytest.approx(case[f"loss_sum_{suffix}"], rel=rel)
    normalised = loss / case["n_nonpad"]
    assert normalised.item() == pytest.approx(case[f"loss_normalised_{suffix}"], rel=rel)
    normalised.backward()
    expected = data[f"{grad}_{setting}"]
    torch.testing.assert_close(scores.grad, expected, rtol=rel, atol=rel * expected.abs().max().item())


@pytest.mark.golden
def test_the_originals_ordinary_loss_differs_and_is_not_used_for_the_control_arm():
    """Without smoothing both trainers of the original agree; with it they do not.

    Its ordinary trainer gives the true token exactly 1 - ε and padding 0, and subtracts the entropy of that target,
    where its distillation trainer spreads ε over all V. The control arm here is the distillation trainer's loss at
    α = 0, so that arms differ in nothing but the teacher.
    """
    facts, data = _golden()
    scores, target = data["scores"], data["target"]
    log_p = torch.log_softmax(scores, dim=1)
    vocabulary = scores.shape[1]
    for case in facts["ordinary_training_loss"]:
        smoothing, expected = case["label_smoothing"], case["loss_sum_float32"]
        ours = kd_loss(scores, target, alpha=0.0, label_smoothing=smoothing).item()
        if smoothing == 0:
            assert ours == pytest.approx(expected, rel=1e-5)
            continue
        assert abs(ours - expected) > 1
        share = smoothing / (vocabulary - 2)
        gold_log_p = log_p.gather(1, target[:, None]).sum()
        pad_log_p = log_p[:, facts["padding_idx"]].sum()
        ordinary = -(1 - smoothing - share) * gold_log_p - share * (log_p.sum() - pad_log_p)
        entropy = -(1 - smoothing) * math.log(1 - smoothing) - smoothing * math.log(share)
        assert (ordinary - len(scores) * entropy).item() == pytest.approx(expected, rel=1e-5)


# --- the fused form against the plain one


OBJECTIVES = [
    {"alpha": 0.0},
    {"alpha": 0.0, "label_smoothing": 0.1},
    {"alpha": 0.5, "temperature": 10.0, "label_smoothing": 0.1},
    {"alpha": 1.0, "temperature": 2.0, "label_smoothing": 0.1},
    {"alpha": 0.5, "temperature": 3.0, "label_smoothing": 0.1, "symmetric": True},
    {"alpha": 1.0, "temperature": 0.5, "symmetric": True},
    {"alpha": 0.5, "label_smoothing": 0.1, "tail": "exact"},
    {"alpha": 1.0, "tail": "exact"},
]


@pytest.mark.parametrize("options", OBJECTIVES)
@pytest.mark.parametrize("block_rows", [5, 17, 64])
def test_fused_equals_plain_in_float32(options, block_rows):
    hidden, weight, *rest = _case(17, 24, 4099, 8)
    plain = kd_loss(hidden @ weight.T, *rest, **options)
    expected = torch.autograd.grad(plain / 17, [hidden, weight])
    sums = fused_kd_loss(hidden, weight, *rest, block_rows=block_rows, **options)
    assert sums.loss.item() == pytest.approx(plain.item(), rel=1e-5)
    for actual, wanted in zip(torch.autograd.grad(sums.loss / 17, [hidden, weight]), expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-5, atol=1e-5 * wanted.abs().max().item())


@pytest.mark.parametrize("options", OBJECTIVES)
def test_fused_gradient_by_finite_differences(options):
    hidden, weight, *rest = _case(3, 4, 11, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda h, w: fused_kd_loss(h, w, *rest, block_rows=2, **options).loss, (hidden, weight)
    )


@pytest.mark.parametrize("options", OBJECTIVES)
def test_plain_gradient_by_finite_differences(options):
    hidden, weight, *rest = _case(2, 4, 9, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda h, w: kd_loss(h @ w.T, *rest, **options), (hidden, weight))


@pytest.mark.parametrize("options", OBJECTIVES)
def test_fused_in_bf16_stays_within_its_rounding(options):
    """bf16 keeps 8 significant bits: scores move by up to 2^-8 of their size, gradients by a few times that."""
    hidden, weight, *rest = _case(96, 64, 1031, 8, seed=3)
    plain = kd_loss(hidden @ weight.T, *rest, **options)
    expected = torch.autograd.grad(plain, [hidden, weight])
    sums = fused_kd_loss(hidden, weight, *rest, matmul_dtype=torch.bfloat16, block_rows=40, **options)
    assert sums.loss.dtype == torch.float32
    assert sums.loss.item() == pytest.approx(plain.item(), rel=1e-3)
    for actual, wanted in zip(torch.autograd.grad(sums.loss, [hidden, weight]), expected, strict=True):
        assert actual.dtype == torch.float32
        assert torch.linalg.norm(actual - wanted) < 1e-2 * torch.linalg.norm(wanted)


def test_fused_ignores_autocast_and_takes_bf16_hidden_states():
    hidden, weight, *rest = _case(9, 16, 64, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = fused_kd_loss(hidden, weight, *rest, alpha=0.5, block_rows=4)
    outside = fused_kd_loss(hidden, weight, *rest, alpha=0.5, block_rows=4)
    assert torch.equal(inside.loss, outside.loss)
    half = hidden.detach().bfloat16().requires_grad_()
    fused_kd_loss(half, weight, *rest, alpha=0.5).loss.backward()
    assert half.grad.dtype == torch.bfloat16
    assert weight.grad.dtype == torch.float32


def test_backward_may_run_twice_and_scales():
    hidden, weight, *rest = _case(6, 8, 32, 4)
    loss = fused_kd_loss(hidden, weight, *rest, alpha=0.5).loss
    (once,) = torch.autograd.grad(loss, [hidden], retain_graph=True)
    (half,) = torch.autograd.grad(loss / 2, [hidden])
    torch.testing.assert_close(half, once / 2)


def _nll_and_correct(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[float, int]:
    scores = (hidden @ weight.T).double()
    nll = torch.nn.functional.cross_entropy(scores, targets, reduction="sum").item()
    return nll, int((scores.argmax(1) == targets).sum())


def test_likelihood_and_accuracy_do_not_depend_on_the_objective():
    hidden, weight, targets, *soft = _case(40, 8, 21, 4)
    targets[::3] = (hidden @ weight.T).argmax(1)[::3]
    nll, correct = _nll_and_correct(hidden, weight, targets)
    assert correct >= 14
    for options in OBJECTIVES:
        sums = fused_kd_loss(hidden, weight, targets, *soft, block_rows=16, **options)
        assert isinstance(sums, LossSums)
        assert sums.nll.item() == pytest.approx(nll, rel=1e-5)
        assert sums.correct.item() == correct
        assert sums.loss.requires_grad
        assert not sums.nll.requires_grad


def test_sums_without_gradients_are_plain_cross_entropy():
    hidden, weight, targets, *_ = _case(33, 8, 21, 4)
    with torch.no_grad():
        sums = fused_kd_loss(hidden, weight, targets, alpha=0.0, block_rows=10)
    nll, correct = _nll_and_correct(hidden, weight, targets)
    assert (sums.nll.item(), sums.correct.item()) == (pytest.approx(nll, rel=1e-5), correct)
    assert not sums.nll.requires_grad


def test_confident_student_stays_finite():
    """Scores hundreds apart: every probability but one underflows."""
    hidden = torch.tensor([[400.0, 0.0]], requires_grad=True)
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], requires_grad=True)
    ids, logits, logsumexp = torch.tensor([[0]]), torch.tensor([[0.0]]), torch.tensor([0.7])
    sums = fused_kd_loss(hidden, weight, torch.tensor([2]), alpha=0.0)
    assert sums.loss.item() == pytest.approx(800.0)
    exact = fused_kd_loss(hidden, weight, torch.tensor([0]), ids, logits, logsumexp, alpha=0.5, tail="exact")
    exact.loss.backward()
    assert torch.isfinite(exact.loss)
    assert torch.isfinite(hidden.grad).all()
