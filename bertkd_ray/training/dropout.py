"""Dropout that depends on a seed alone, and is fast on a CPU.

On a CPU torch draws dropout masks one number after another in one thread, which took 30 to 40 % of a training step of a
small Transformer. Here 16 bits an element come from SFC64 (numpy), 15 times as fast, by intercepting
`torch.nn.functional.dropout`; models stay as they are. Other devices keep torch's own dropout, seeded.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_LEVELS = 1 << 16


@contextmanager
def seeded_dropout(seed: int, device: torch.device) -> Iterator[None]:
    """Within it every `torch.nn.functional.dropout` (so `nn.Dropout` too) on `device` draws from `seed`, in call order.

    Put the forward pass inside; the backward pass may lie outside. On a CPU p is rounded to a multiple of 2^-16, and
    the result does not depend on the number of threads; elsewhere torch's generators are re-seeded and stay so.
    Not covered on a CPU: dropout inside `scaled_dot_product_attention`, in place, and of whole channels; these draw
    from torch's generator, which is not seeded then.
    """
    if device.type == "cpu":
        with _CpuDropout(seed):
            yield
    else:
        torch.manual_seed(seed)
        yield


class _CpuDropout(TorchFunctionMode):
    def __init__(self, seed: int) -> None:
        super().__init__()
        self._generator = np.random.Generator(np.random.SFC64(seed))

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.nn.functional.dropout:
            return self._dropout(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _dropout(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        dropped_levels = round(p * _LEVELS)
        if not training or inplace or input.device.type != "cpu" or not 0 < dropped_levels < _LEVELS:
            return torch.nn.functional.dropout(input, p, training, inplace)
        words = self._generator.integers(0, 2**64, -(-input.numel() // 4), dtype=np.uint64)
        bits = torch.from_numpy(words.view(np.int16))[: input.numel()].view(input.shape)
        keep = torch.ge(bits, dropped_levels - _LEVELS // 2, out=torch.empty_like(bits, dtype=input.dtype))
        # The scale stays a number apart, because it is not a bfloat16 one.
        return (input * keep).mul_(_LEVELS / (_LEVELS - dropped_levels))
