"""Learning-rate schedules as pure functions of the step, and optimizers.

Steps count from 1: the first update uses step 1. A schedule returns the rate of that update.
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer


def noam(step: int, *, factor: float, width: int, warmup: int) -> float:
    """factor · width^-0.5 · min(step^-0.5, step · warmup^-1.5).

    The inverse-sqrt schedule of "Attention Is All You Need" (Vaswani et al., 2017), section 5.3, with OpenNMT's factor.
    """
    return float(factor * width**-0.5 * min(step**-0.5, step * warmup**-1.5))


def linear_warmup_decay(step: int, *, peak: float, warmup_fraction: float, total: int) -> float:
    """Linear rise over the first `warmup_fraction` of `total` steps, then linear fall to 0 just after the last step.

    Every one of the `total` updates has a positive rate; later ones have rate 0. The schedule of the BertAdam in
    pytorch-pretrained-bert, which the paper used, differs: after the warm-up it multiplies by 1 - step / total, so that
    the rate drops at once by the warm-up fraction, and (in float32) it goes on below 0 after `total`.
    """
    warmup = warmup_fraction * total
    if step <= warmup:
        return peak * step / warmup
    return peak * max(0.0, (total + 1 - step) / (total + 1 - max(warmup, 1.0)))


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Gives every parameter group this rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


class BertAdam(Optimizer):
    """Adam as BERT's own training code has it: without bias correction, and with decoupled decay scaled by the rate.

        m ← β1 m + (1 - β1) g;   v ← β2 v + (1 - β2) g²;   p ← p - lr · (m / (√v + ε) + decay · p)

    tensor_grad_clip: each gradient tensor is first scaled down to this L2 norm, on its own, as pytorch-pretrained-bert
    0.6.1 does (its default is 1.0); None leaves gradients alone. Not supported: sparse or complex gradients, closures.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        tensor_grad_clip: float | None = None,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "tensor_grad_clip": tensor_grad_clip})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        if closure is not None:
            raise ValueError("BertAdam does not take a closure")
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(params, group)

    def _update(self, params: list[Tensor], group: dict[str, Any]) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p] = {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        means = [self.state[p]["exp_avg"] for p in params]
        squares = [self.state[p]["exp_avg_sq"] for p in params]
        grads: Any = [p.grad for p in params]
        beta1, beta2 = group["betas"]
        if group["tensor_grad_clip"] is not None:
            # 1e-6 as in `torch.nn.utils`; the gradients themselves stay as they are.
            scales = torch._foreach_norm(grads)
            torch._foreach_add_(scales, 1e-6)
            torch._foreach_reciprocal_(scales)
            torch._foreach_mul_(scales, group["tensor_grad_clip"])
            torch._foreach_clamp_max_(scales, 1.0)
            grads = torch._foreach_mul(grads, scales)
        torch._foreach_lerp_(means, grads, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)
        denominators = torch._foreach_sqrt(squares)
        torch._foreach_add_(denominators, group["eps"])
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_addcdiv_(params, means, denominators, -group["lr"])


def build_optimizer(
    model: nn.Module,
    *,
    kind: Literal["adamw", "bertadam"],
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    tensor_grad_clip: float | None = None,
) -> Optimizer:
    """An optimizer over the model's trainable parameters, with rate 0 until `set_learning_rate`.

    kind: "adamw" is torch's fused AdamW (with weight_decay 0: Adam); "bertadam" is `BertAdam`. Weight decay applies to
    matrices only, not to biases and LayerNorm. tensor_grad_clip is for "bertadam"; for "adamw" it raises ValueError.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if kind == "bertadam":
        return BertAdam(groups, betas=betas, eps=eps, tensor_grad_clip=tensor_grad_clip)
    if kind != "adamw":
        raise ValueError(f"optimizer must be 'adamw' or 'bertadam', not {kind!r}")
    if tensor_grad_clip is not None:
        raise ValueError("tensor_grad_clip is for 'bertadam'; clip all gradients together with clip_grad_norm_")
    return AdamW(groups, lr=0.0, betas=betas, eps=eps, fused=True)
