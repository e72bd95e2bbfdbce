"""Micro-batches for which memory is too small: cut in parts, whose sums are those of the whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from bertkd_ray.core.errors import DeviceMemoryError
from bertkd_ray.training.context import World
from bertkd_ray.training.memory import naming_memory_keys
from tests.training.test_trainer import Alone, FitTask, Numbers, trainer

REASON = "CUDA out of memory. Tried to allocate 2.00 GiB."


class Guard(torch.autograd.Function):
    """The identity; the gradient of more rows than there is memory for cannot be computed."""

    @staticmethod
    def forward(ctx: Any, x_N: Tensor, limit: int) -> Tensor:
        ctx.limit = limit
        return x_N.view_as(x_N)

    @staticmethod
    def backward(ctx: Any, gradient_N: Tensor) -> tuple[Tensor, None]:
        if len(gradient_N) > ctx.limit:
            raise torch.OutOfMemoryError(REASON)
        return gradient_N, None


class Line(nn.Module):
    """(offset + weight · x - 3)² summed, in a memory of so many rows in either direction."""

    def __init__(self, forward_rows: int, backward_rows: int) -> None:
        super().__init__()
        self.weight, self.offset = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))
        self.forward_rows, self.backward_rows = forward_rows, backward_rows
        self.before_failure: list[bool] = []

    def forward(self, batch: Numbers) -> tuple[Tensor, Tensor]:
        if len(batch.x_N) > self.forward_rows:
            raise torch.OutOfMemoryError(REASON)
        self.before_failure.append(self.offset.grad is not None)
        # The offset has its gradient before that of the product fails.
        loss = ((self.offset + Guard.apply(self.weight * batch.x_N, self.backward_rows) - 3) ** 2).sum()
        return loss, loss.detach().reshape(1)


def task(forward_rows: int = 99, backward_rows: int = 99) -> FitTask:
    made = FitTask(rate=0.01)
    made.objective = made.model = Line(forward_rows, backward_rows)  # type: ignore[assignment] # another objective
    made.optimizer = torch.optim.SGD(made.objective.parameters(), lr=1.0)
    made.evaluate = lambda world: {"valid/score": 0.0}  # type: ignore[method-assign] # it has no such weight
    return made


def curve(context: Alone) -> list[float]:
    return [row.metrics["train/loss"] for row in context.rows if "train/loss" in row.metrics]


@pytest.mark.parametrize(("forward_rows", "backward_rows"), [(2, 99), (99, 2), (1, 1), (3, 2)])
def test_parts_have_the_sums_of_the_whole(forward_rows, backward_rows, capsys):
    whole, whole_context = task(), Alone()
    trainer(whole, whole_context).run()
    parts, parts_context = task(forward_rows, backward_rows), Alone()
    trainer(parts, parts_context).run()
    torch.testing.assert_close(parts.model.state_dict(), whole.model.state_dict())
    assert curve(parts_context) == pytest.approx(curve(whole_context), rel=1e-6)
    assert len(curve(whole_context)) == 6
    lines = [line for line in capsys.readouterr().err.splitlines() if "memory is too small for" in line]
    assert 1 <= len(lines) <= 6  # no more than a batch has rows: what is known to fail is not tried again


def test_what_fits_is_computed_whole(capsys):
    made = task()
    trainer(made, Alone(), steps=2).run()
    assert len(made.objective.before_failure) == 4  # two micro-batches an update
    assert "memory" not in capsys.readouterr().err


def test_a_row_for_which_there_is_no_memory_is_one_line_that_names_the_key():
    @naming_memory_keys("student")
    def train() -> None:
        trainer(task(forward_rows=0), Alone()).run()

    with pytest.raises(DeviceMemoryError) as error:
        train()
    assert str(error.value) == (
        f"student.micro_batches: the GPU's memory is too small ({REASON}); raise it, so that fewer tokens are computed "
        "at once, or else end what also uses the GPU, lower corpus.max_side_tokens or choose a smaller model; the last "
        "checkpoint is kept"
    )
    assert error.value.exit_code == 1


def test_other_errors_of_a_training_pass():
    @naming_memory_keys("student")
    def train() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        train()


def _worker(rank: int, port: int, directory: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    context = Alone(world=World(rank, 2))
    trainer(task(forward_rows=2) if rank else task(), context, streams=4).run()
    Path(directory, f"{rank}.json").write_text(json.dumps(curve(context)))
    dist.destroy_process_group()


@pytest.mark.slow
def test_one_of_several_workers_may_lack_memory(tmp_path, free_port):
    alone = Alone()
    trainer(task(), alone, streams=4).run()
    mp.start_processes(_worker, args=(free_port, str(tmp_path)), nprocs=2, start_method="spawn")
    assert json.loads((tmp_path / "0.json").read_text()) == pytest.approx(curve(alone), rel=1e-5)
