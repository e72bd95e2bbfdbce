"""What the training loop is told about the teacher: batches, validation, schedule and clipping."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from bertkd_ray.config.sections import TeacherConfig
from bertkd_ray.core.devices import padding_multiple
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.corpus.tokenizer import EOS_ID
from bertkd_ray.teacher import task as task_module
from bertkd_ray.teacher.model import ConditionalMaskedLM, build_teacher
from bertkd_ray.teacher.task import MaskedLoss, TeacherBatch, TeacherTask
from bertkd_ray.training.batch_plan import MicroBatch, StreamPosition
from bertkd_ray.training.context import World
from tests.helpers.thread_world import run_workers
from tests.teacher.tiny import SPECIALS, hidden_after, write_bert

V = 24
BERT_IDS = np.concatenate([[0, 2, 2, 3], np.arange(5, 25)]).astype(np.int32)


def table(pairs: int, seed: int = 0) -> pa.Table:
    """Random pairs of 1 to 10 tokens a side; ids are not row numbers."""
    random = np.random.default_rng(seed)
    sides = [[random.integers(4, V, random.integers(1, 11)).tolist() for _ in range(pairs)] for _ in range(2)]
    lists = pa.list_(pa.int32())
    return pa.table(
        {"id": np.arange(pairs) + 100, "src_ids": pa.array(sides[0], lists), "tgt_ids": pa.array(sides[1], lists)}
    )


VALID = table(30)


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    return write_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def make(bert):
    def call(*, seed: int = 1, valid: pa.Table = VALID, positions: int | None = None, **changes: Any) -> TeacherTask:
        config = TeacherConfig(**{"batch_tokens": 256, "steps": 100, **changes})
        model = build_teacher(bert, BERT_IDS, TeacherConfig())
        if positions:
            embeddings = model.bert.embeddings.position_embeddings
            embeddings.weight.data = embeddings.weight.data[:positions]
            model.config.max_position_embeddings = positions
        return TeacherTask(model, config, seed, BERT_IDS, SPECIALS, valid, "float32")

    return call


def micro(rows: pa.Table, epoch: int = 0) -> MicroBatch:
    return MicroBatch(stream=0, epoch=epoch, rows=rows, after=StreamPosition(0, 1))


def evaluated(task: TeacherTask, workers: World = World()) -> dict[str, float]:  # noqa: B008
    task.objective.eval()
    return task.evaluate(workers)


def masks_by_id(task: TeacherTask, rows: pa.Table, epoch: int) -> dict[int, list[int]]:
    """Which places of its row each pair has masked."""
    batch = task.collate(micro(rows, epoch))
    row, place = np.divmod(batch.masked_index.numpy(), batch.input_ids.shape[1])
    return {pair: place[row == index].tolist() for index, pair in enumerate(rows["id"].to_pylist())}


def test_rows_are_counted_with_the_three_special_tokens(make):
    rows = pa.table(
        {"src_ids": pa.array([[4, 5], [4]], pa.list_(pa.int32())), "tgt_ids": pa.array([[6], []], pa.list_(pa.int32()))}
    )
    counted = make().lengths(rows)
    assert counted.sort.tolist() == counted.tokens.tolist() == [6, 4]


def test_a_collated_batch_is_padded_and_predicts_what_is_masked(make):
    rows = table(5, seed=3)
    batch = make().collate(micro(rows))
    src, tgt = Ragged.from_arrow(rows["src_ids"]), Ragged.from_arrow(rows["tgt_ids"])
    longest = int((src.lengths + tgt.lengths + 3).max())
    assert batch.input_ids.shape == batch.token_type_ids.shape == batch.attention_mask.shape
    assert batch.input_ids.shape == (5, longest)  # no rounding up on a CPU
    assert batch.padded_tokens == batch.input_ids.numel()
    assert batch.attention_mask.sum(1).tolist() == (src.lengths + tgt.lengths + 3).tolist()
    assert batch.count == len(batch.labels) == len(batch.masked_index) >= 5
    assert (batch.input_ids.flatten()[batch.masked_index] == SPECIALS.mask).all()
    # Every label is the token at its place, EOS_ID at the final [SEP].
    row, place = np.divmod(batch.masked_index.numpy(), batch.input_ids.shape[1])
    for index, column, label in zip(row, place, batch.labels.tolist(), strict=True):
        target = [*tgt.row(index).tolist(), EOS_ID]
        assert label == target[column - 2 - src.lengths[index]]


def test_masks_follow_seed_epoch_and_id_alone(make):
    rows = table(12, seed=5)
    alone = masks_by_id(make(), rows, epoch=0)
    halves = masks_by_id(make(), rows.slice(6), epoch=0)
    # Places shift with nothing: `[CLS] src [SEP]` of a row does not depend on its company.
    assert halves == {pair: alone[pair] for pair in halves}
    assert masks_by_id(make(), rows, epoch=1) != alone
    assert masks_by_id(make(seed=2), rows, epoch=0) != alone


def test_the_probability_reaches_the_masks(make):
    rows = table(400, seed=6)
    positions = len(Ragged.from_arrow(rows["tgt_ids"]).values) + 400
    assert make(mask_probability=1.0).collate(micro(rows)).count == positions
    few, many = (make(mask_probability=p).collate(micro(rows)).count for p in (0.15, 0.5))
    assert 400 <= few < many < positions
    assert many / positions == pytest.approx(0.5, abs=0.06)


def test_from_left_to_right_every_position_is_predicted_in_every_epoch(make):
    rows = table(12, seed=5)
    task = make(direction="left_to_right")
    batch = task.collate(micro(rows))
    tgt = Ragged.from_arrow(rows["tgt_ids"])
    assert batch.labels.tolist() == [token for row in range(12) for token in [*tgt.row(row).tolist(), EOS_ID]]
    later = task.collate(micro(rows, epoch=1))
    assert all(
        torch.equal(torch.as_tensor(value), torch.as_tensor(vars(later)[name])) for name, value in vars(batch).items()
    )
    counted = task.lengths(rows)
    src = Ragged.from_arrow(rows["src_ids"])
    assert counted.tokens.tolist() == counted.sort.tolist() == (src.lengths + tgt.lengths + 2).tolist()
    assert batch.input_ids.shape == (12, int(counted.tokens.max()))


def test_from_left_to_right_the_loss_is_that_of_the_text(make):
    """Cross-entropy a token and end of sentence, by single positions after their left context."""
    task = make(direction="left_to_right", valid=VALID.slice(0, 3))
    found = evaluated(task)["valid/loss"]
    losses = []
    for row in VALID.slice(0, 3).to_pylist():
        frame = [SPECIALS.cls, *BERT_IDS[row["src_ids"]], SPECIALS.sep]
        for position, label in enumerate([*row["tgt_ids"], EOS_ID]):
            hidden = hidden_after(task.model.eval(), frame, BERT_IDS[row["tgt_ids"][:position]])
            losses.append(-float(task.model.logits(hidden).log_softmax(-1)[label].detach()))
    assert found == pytest.approx(sum(losses) / len(losses), rel=1e-5)


@pytest.mark.parametrize("direction", ["both", "left_to_right"])
def test_validation_is_the_same_for_every_seed_and_every_call(make, direction):
    task = make(seed=1, direction=direction)
    first = evaluated(task)
    assert evaluated(task) == first
    assert evaluated(make(seed=99, direction=direction)) == first
    assert set(first) == {"valid/loss", "valid/accuracy"}


@pytest.mark.parametrize("changes", [{"batch_tokens": 40}, {"batch_tokens": 4096}, {"micro_batches": 4}])
def test_validation_does_not_depend_on_the_budget(make, changes):
    assert evaluated(make(**changes)) == pytest.approx(evaluated(make()), rel=1e-5)


def test_validation_does_not_depend_on_the_order_of_the_rows(make):
    shuffled = VALID.take(pa.array(np.random.default_rng(1).permutation(len(VALID))))
    assert evaluated(make(valid=shuffled)) == pytest.approx(evaluated(make()), rel=1e-5)


@pytest.mark.parametrize("size", [2, 3])
def test_workers_share_the_validation_and_agree(make, size):
    one = evaluated(make())
    several = run_workers([partial(evaluated, make()) for _ in range(size)])
    assert several == [several[0]] * size
    assert several[0] == pytest.approx(one, rel=1e-6)


@pytest.mark.parametrize("direction", ["both", "left_to_right"])
def test_a_pair_may_fill_positions_that_no_multiple_of_8_is(make, monkeypatch, direction):
    on_gpu = partial(padding_multiple, torch.device("cuda"))
    monkeypatch.setattr(task_module, "padding_multiple", lambda device, positions=None: on_gpu(positions))
    lists = pa.list_(pa.int32())
    valid = pa.table({"id": [1], "src_ids": pa.array([[5] * 9], lists), "tgt_ids": pa.array([[6] * 9], lists)})
    assert evaluated(make(valid=valid, positions=21, direction=direction))["valid/loss"] > 0


def test_a_worker_without_a_batch_takes_part(make):
    tasks = [make(batch_tokens=100_000) for _ in range(2)]
    one = evaluated(tasks[0])
    assert run_workers([partial(evaluated, task) for task in tasks]) == [pytest.approx(one, rel=1e-6)] * 2


def test_the_figures_are_means_over_the_masked_positions(make):
    """A zero output layer gives every token 1 / V; a bias on one token makes it the answer everywhere."""
    task = make(mask_probability=1.0)
    with torch.no_grad():
        task.model.output.weight.zero_()
    assert evaluated(task)["valid/loss"] == pytest.approx(math.log(V), rel=1e-6)
    with torch.no_grad():
        task.model.output.bias[EOS_ID] = 1.0
    tokens = len(Ragged.from_arrow(VALID["tgt_ids"]).values)
    figures = evaluated(task)
    # Everything is masked: one position of each of the 30 rows is its end.
    assert figures["valid/accuracy"] == pytest.approx(30 / (tokens + 30))
    log_sum = math.log(V - 1 + math.e)
    assert figures["valid/loss"] == pytest.approx(log_sum - 30 / (tokens + 30), rel=1e-6)


def test_the_objective_sums_over_positions(make):
    task = make()
    task.objective.eval()
    batch = task.collate(micro(VALID))
    with torch.no_grad():
        loss, stats = task.objective(batch)
    logits = task.model.logits(
        task.model(batch.input_ids, batch.token_type_ids, batch.attention_mask, batch.masked_index)
    )
    expected = torch.nn.functional.cross_entropy(logits, batch.labels, reduction="sum")
    torch.testing.assert_close(loss, expected)
    assert stats.tolist() == [float((logits.argmax(1) == batch.labels).sum())]
    assert len(stats) == len(task.stat_keys)


def test_a_loss_of_many_positions_is_computed_in_blocks_with_the_same_gradient(make, monkeypatch):
    task, logits = make(), ConditionalMaskedLM.logits
    computed: list[int] = []

    def noted(model: ConditionalMaskedLM, hidden_MH: Tensor) -> Tensor:
        computed.append(len(hidden_MH))
        return logits(model, hidden_MH)

    monkeypatch.setattr(ConditionalMaskedLM, "logits", noted)
    task.objective.eval()
    batch = task.collate(micro(VALID))
    gradients = []
    for rows in (len(batch.labels), 5):
        objective = MaskedLoss(task.model, score_bytes=4 * V * rows)
        task.model.zero_grad()
        computed.clear()
        loss, stats = objective(batch)
        (loss / 7).backward()
        assert max(computed) == rows
        gradients.append([loss.detach(), stats, *(p.grad for p in task.model.parameters() if p.grad is not None)])
    assert sum(computed) == 2 * len(batch.labels) > 40  # nothing was kept for the backward pass
    torch.testing.assert_close(*gradients)


def test_the_lowest_loss_is_best(make):
    task = make()
    losses = [3.0, 1.0, 2.0]
    assert max(losses, key=lambda loss: task.rank_of({"valid/loss": loss, "valid/accuracy": loss})) == 1.0


def test_the_rate_rises_over_the_first_twentieth_and_falls_to_zero(make):
    task = make(peak_lr=2.0, steps=100)
    assert [task.learning_rate(step) for step in (1, 5, 100)] == pytest.approx([0.4, 2.0, 2.0 / 96])
    assert all(task.learning_rate(step) > task.learning_rate(step + 1) for step in range(5, 100))
    other = make(peak_lr=2.0, steps=100, warmup_steps=10)
    assert [other.learning_rate(step) for step in (1, 10, 100)] == pytest.approx([0.2, 2.0, 2.0 / 91])


@pytest.mark.parametrize(("optimizer", "norm_after"), [("adamw", 1.0), ("bertadam", 5.0)])
def test_the_whole_gradient_is_clipped_for_adamw_and_each_tensor_by_bertadam(make, optimizer, norm_after):
    task = make(optimizer=optimizer, clip=1.0)
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([3.0, 4.0])
    assert float(torch.nn.utils.clip_grad_norm_([parameter], task.max_norm)) == pytest.approx(5.0)
    assert float(parameter.grad.norm()) == pytest.approx(norm_after, rel=1e-5)
    expected = 1.0 if optimizer == "bertadam" else None
    assert {group.get("tensor_grad_clip") for group in task.optimizer.param_groups} == {expected}


def test_decay_spares_biases_and_layer_norms(make):
    task = make(weight_decay=0.5)
    names = {id(parameter): name for name, parameter in task.model.named_parameters()}
    spared = {
        names[id(parameter)]
        for group in task.optimizer.param_groups
        if group["weight_decay"] == 0
        for parameter in group["params"]
    }
    assert spared == {name for name in names.values() if name.endswith(".bias") or "LayerNorm" in name}


@pytest.mark.parametrize("direction", ["both", "left_to_right"])
def test_a_batch_moves_whole(make, direction):
    batch = make(direction=direction).collate(micro(VALID)).to(torch.device("meta"))
    assert isinstance(batch, TeacherBatch)
    assert {value.device.type for value in vars(batch).values() if isinstance(value, torch.Tensor)} == {"meta"}
