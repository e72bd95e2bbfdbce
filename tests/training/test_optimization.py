from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

from bertkd_ray.training.optimization import (
    BertAdam,
    build_optimizer,
    linear_warmup_decay,
    noam,
    set_learning_rate,
)
from tests.helpers.shared_files import golden_path


def _schedules(name: str) -> list[dict]:
    return json.loads(golden_path("schedules.json").read_text())[name]


@pytest.mark.golden
def test_noam_is_the_original_schedule():
    for case in _schedules("onmt_noam"):
        for step, expected in zip(case["steps_1_based"], case["lr"], strict=True):
            rate = noam(step, factor=case["learning_rate"], width=case["rnn_size"], warmup=case["warmup_steps"])
            assert rate == pytest.approx(expected, rel=1e-12)


def test_linear_schedule_by_hand():
    rates = [linear_warmup_decay(step, peak=1.0, warmup_fraction=0.2, total=10) for step in range(1, 13)]
    assert rates == pytest.approx([0.5, 1.0, 8 / 9, 7 / 9, 6 / 9, 5 / 9, 4 / 9, 3 / 9, 2 / 9, 1 / 9, 0.0, 0.0])


def test_linear_schedule_without_warmup_starts_at_the_peak():
    assert [linear_warmup_decay(s, peak=1.0, warmup_fraction=0.0, total=4) for s in (1, 2, 3, 4)] == [
        1,
        0.75,
        0.5,
        0.25,
    ]
    assert linear_warmup_decay(1, peak=1.0, warmup_fraction=0.05, total=1) == 1.0


@pytest.mark.golden
def test_linear_schedule_against_the_original():
    """In the warm-up equal to the original's 1-based (fp16) path.

    After it equal to the 0-based path up to the factor that closes the original's jump; where the original goes on
    below zero this one stays at zero.
    """
    for case in _schedules("bertadam"):
        total, fraction, base = case["t_total"], max(case["warmup"], 0.0), case["base_lr"]
        warmup = fraction * total
        jump = total / (total + 1 - max(warmup, 1.0))
        below_zero = 0
        originals = zip(case["fp16_path_lr_of_update_0_based"], case["effective_lr_of_update_0_based"], strict=True)
        for step, (fp16_path, fp32_path) in enumerate(originals, start=1):
            rate = linear_warmup_decay(step, peak=base, warmup_fraction=fraction, total=total)
            if step < warmup:
                assert rate == pytest.approx(fp16_path, rel=1e-9)
            elif step == round(warmup):
                assert rate == pytest.approx(base, rel=1e-9)
                assert fp16_path == pytest.approx(base * (1 - step / total), rel=1e-9)
            elif step > warmup + 1:
                assert rate == pytest.approx(max(0.0, fp32_path * jump), rel=1e-9, abs=1e-18)
            below_zero += fp32_path < 0
        assert below_zero == 9


def _original_rate(update: int, base: float, warmup: float, total: float) -> float:
    """The rate the original's float32 path gives to an update counted from 0."""
    if total == -1:
        return base
    x = update / total
    return base * (x / warmup if x < warmup else 1 - x)


@pytest.mark.golden
@pytest.mark.parametrize("setting", ["a", "b"])
def test_bert_adam_follows_the_original_trajectory(setting):
    recorded = np.load(golden_path("bertadam.npz"), allow_pickle=False)
    names = ["dense.weight", "dense.bias", "LayerNorm.weight"]
    params = {name: nn.Parameter(torch.from_numpy(recorded[f"init/{name}"]).clone()) for name in names}
    groups = [
        {"params": [params["dense.weight"]], "weight_decay": 0.01},
        {"params": [params["dense.bias"], params["LayerNorm.weight"]], "weight_decay": 0.0},
    ]
    optimizer = BertAdam(groups, betas=(0.9, 0.999), eps=1e-6, tensor_grad_clip=1.0)
    base, warmup, total = recorded[f"{setting}/lr_warmup_ttotal"]
    for update in range(20):
        for name, param in params.items():
            param.grad = torch.from_numpy(recorded[f"grad/{name}"][update])
        set_learning_rate(optimizer, _original_rate(update, base, warmup, total))
        optimizer.step()
        for name, param in params.items():
            expected = recorded[f"{setting}/trajectory/{name}"][update]
            np.testing.assert_allclose(param.detach().numpy(), expected, rtol=1e-5, atol=1e-7)


def test_bert_adam_first_step_by_hand():
    param = nn.Parameter(torch.tensor([[2.0]]))
    param.grad = torch.tensor([[3.0]])
    BertAdam([param], lr=0.1, betas=(0.9, 0.99), eps=0.0, weight_decay=0.5).step()
    # m = 0.3, √v = √(0.01 · 9) = 0.3, so the step is 0.1 · (1 + 0.5 · 2).
    assert param.item() == pytest.approx(1.8)
    assert param.grad.item() == 3.0


def test_bert_adam_skips_parameters_without_gradient_and_resumes():
    def fresh() -> tuple[list[nn.Parameter], BertAdam]:
        params = [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(3))]
        return params, BertAdam(params, lr=0.1)

    params, optimizer = fresh()
    params[0].grad = torch.full((2, 2), 0.5)
    optimizer.step()
    assert torch.equal(params[1], torch.ones(3))
    resumed_params, resumed = fresh()
    resumed_params[0].data.copy_(params[0].data)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    resumed_params[0].grad = params[0].grad
    optimizer.step()
    resumed.step()
    assert torch.equal(params[0], resumed_params[0])


class _Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.norm = nn.LayerNorm(2)
        self.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)


@pytest.mark.parametrize("kind", ["adamw", "bertadam"])
def test_build_optimizer_decays_matrices_only(kind):
    model = _Small()
    optimizer = build_optimizer(model, kind=kind, betas=(0.9, 0.98), eps=1e-9, weight_decay=0.25)
    set_learning_rate(optimizer, 0.5)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    after = dict(model.named_parameters())
    torch.testing.assert_close(after["linear.weight"], before["linear.weight"] * (1 - 0.5 * 0.25))
    for name in ("linear.bias", "norm.weight", "norm.bias", "frozen"):
        assert torch.equal(after[name], before[name])


def test_build_optimizer_refuses_what_it_cannot_do():
    options = {"betas": (0.9, 0.98), "eps": 1e-9, "weight_decay": 0.0}
    with pytest.raises(ValueError, match="sgd"):
        build_optimizer(_Small(), kind="sgd", **options)
    with pytest.raises(ValueError, match="clip_grad_norm_"):
        build_optimizer(_Small(), kind="adamw", tensor_grad_clip=1.0, **options)
    with pytest.raises(ValueError, match="closure"):
        build_optimizer(_Small(), kind="bertadam", **options).step(lambda: 0.0)
