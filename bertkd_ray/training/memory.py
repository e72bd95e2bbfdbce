"""What is said where a GPU's memory is too small for a training."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from bertkd_ray.core.errors import DeviceMemoryError, one_line

Arguments = ParamSpec("Arguments")
_LONGEST_REASON = 200


def naming_memory_keys(section: str) -> Callable[[Callable[Arguments, None]], Callable[Arguments, None]]:
    """Makes a training function raise DeviceMemoryError, which names keys of this section, for what torch raises."""

    def decorate(train: Callable[Arguments, None]) -> Callable[Arguments, None]:
        @wraps(train)
        def wrapped(*arguments: Arguments.args, **named: Arguments.kwargs) -> None:
            try:
                train(*arguments, **named)
            except RuntimeError as error:
                import torch

                if not isinstance(error, torch.OutOfMemoryError):
                    raise
                reason = one_line(error)[:_LONGEST_REASON]
                raise DeviceMemoryError(
                    f"{section}.micro_batches: the GPU's memory is too small ({reason}); raise it, so that fewer "
                    "tokens are computed at once, or else end what also uses the GPU, lower corpus.max_side_tokens or "
                    "choose a smaller model; the last checkpoint is kept"
                ) from None

        return wrapped

    return decorate
