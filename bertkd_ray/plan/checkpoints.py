"""What the checkpoints of a training cost: how many there are, their bytes, and for how long the devices wait."""

from dataclasses import dataclass

from bertkd_ray.training.checkpointing import interval_seconds

BYTES_A_PARAMETER = 12
"""Of a weight and the two moments of its optimizer, in float32."""
COPIED_BYTES_A_SECOND, WRITTEN_BYTES_A_SECOND = 3e9, 0.2e9
"""From a GPU to the host, estimated; into the storage, as when 3.34 GB took 12 to 33 s on an H100's machine."""


@dataclass(frozen=True)
class CheckpointPlan:
    """The checkpoints of one training."""

    number: int
    bytes: float
    """Of one of them; weights that are kept for the end, written when they change, are not counted."""
    seconds: float
    """From the copy of one to the end of its upload, which a preempted worker has to wait for."""
    waited: float
    """Seconds that the devices wait for all of them."""


def plan_checkpoints(seconds: float, steps: int, parameters: int, every: int | None, *, on_gpu: bool) -> CheckpointPlan:
    """Those of a training that computes for so many seconds; every: steps from one to the next, None is by their cost.

    On a GPU the loop waits for the copy, and for a write that is not done when the next is due; on a CPU, whose cores
    the writing takes, for all of it.
    """
    size = float(BYTES_A_PARAMETER * parameters)
    copied, written = size / COPIED_BYTES_A_SECOND, size / WRITTEN_BYTES_A_SECOND
    if every is None:
        interval = interval_seconds(copied, written, on_gpu=on_gpu)
        number = int(seconds / interval)
    else:
        interval, number = seconds * every / steps, (steps - 1) // every
    each = copied + (max(0.0, written - interval) if on_gpu else written)
    return CheckpointPlan(number, size, copied + written, number * each)
