"""A teacher that trains on the rows of its embedding that a corpus has learns what one with all rows learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from bertkd_ray.config.sections import TeacherConfig
from bertkd_ray.teacher.masking import BertSpecials
from bertkd_ray.teacher.model import ConditionalMaskedLM, build_teacher
from bertkd_ray.teacher.pruned_embedding import PrunedEmbedding, decay_until
from bertkd_ray.teacher.task import TeacherTask
from bertkd_ray.training.batch_plan import BatchPlan, StreamPosition, Streams
from bertkd_ray.training.context import TrainContext
from bertkd_ray.training.trainer import Trainer, TrainResult, TrainSettings
from tests.teacher.tiny import SPECIALS, VOCABULARY, write_bert
from tests.training.test_trainer import Alone

KEY = "bert.embeddings.word_embeddings.weight"
BERT_IDS = np.array([0, 1, 2, 3, 30, 9, 31, 17, 9, 38], np.int32)
"""Tokens of the student, two of the same piece, in no order; the pieces of four are BERT's special tokens."""
STEPS = 12


@pytest.fixture
def bert(tmp_path) -> Path:
    return write_bert(tmp_path / "bert")


def config(**changes: Any) -> TeacherConfig:
    settings = {"steps": STEPS, "batch_tokens": 200, "peak_lr": 0.02, "weight_decay": 0.2, "attention_dropout": 0.1}
    return TeacherConfig(**settings | {"dropout": 0.1, "warmup_steps": 3, "eval_every": 4, **changes})


def pairs(groups: np.ndarray) -> pa.Table:
    rng = np.random.default_rng(7)
    sides = [[rng.integers(4, len(BERT_IDS), rng.integers(1, 7)).tolist() for _ in range(48)] for _ in "st"]
    table = pa.table({"id": pa.array(range(48), pa.int64()), "src_ids": sides[0], "tgt_ids": sides[1]})
    return table.take(pa.array(np.concatenate([np.arange(8) + 8 * group for group in groups])))


def trainer(
    teacher: ConditionalMaskedLM,
    ids: np.ndarray,
    specials: BertSpecials,
    settings: TeacherConfig,
    context: TrainContext,
    prepare: Any = None,
) -> Trainer:
    task = TeacherTask(teacher, settings, 3, ids, specials, pairs(np.arange(2)), "float32")
    if prepare is not None:
        prepare(task.optimizer)
    plan = BatchPlan(np.full(6, 8, np.int64), 1, seed=5, window_pairs=16)

    def open_streams(positions: list[StreamPosition]) -> Streams:
        return Streams(plan, positions, budget=200, read=pairs, lengths=task.lengths)

    of_training = TrainSettings(settings.steps, 200, 1, 5, 4, 5, 1)
    return Trainer(task, of_training, open_streams, context, "float32")


def train_whole(bert: Path, settings: TeacherConfig, context: TrainContext) -> TrainResult:
    """As a teacher trained before its embedding was pruned."""
    teacher = build_teacher(bert, BERT_IDS, settings, seed=1)
    return trainer(teacher, BERT_IDS, SPECIALS, settings, context).run()


def train_pruned(bert: Path, settings: TeacherConfig, context: TrainContext) -> tuple[TrainResult, dict[str, Tensor]]:
    """The result, and the weights of the teacher that is saved."""
    teacher = build_teacher(bert, BERT_IDS, settings, seed=1)
    embedding = PrunedEmbedding(teacher, BERT_IDS, SPECIALS)
    assert teacher.bert.get_input_embeddings().weight.shape == (10, 16)  # 9 pieces of tokens, and [MASK]
    training = trainer(
        teacher, embedding.bert_ids, embedding.specials, settings, context, embedding.accept_whole_moments
    )
    result = training.run()
    rate = training._task.learning_rate
    embedding.load_whole(result.weights, decay=decay_until(result.state.best_step, rate, settings.weight_decay))
    return result, teacher.state_dict()


def require_equal(whole: TrainResult, weights: dict[str, Tensor]) -> None:
    assert weights.keys() == whole.weights.keys()
    for name, weight in whole.weights.items():
        # The norm that gradients are clipped to is a sum over fewer zeros: its last bits differ.
        torch.testing.assert_close(weights[name], weight, rtol=1e-4, atol=1e-6, msg=lambda text, at=name: at + text)


@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": "bertadam"}, {"direction": "left_to_right"}],
    ids=["adamw", "bertadam", "left to right"],
)
def test_losses_and_saved_weights_are_those_of_all_rows(bert, changes):
    settings = config(**changes)
    whole = train_whole(bert, settings, Alone())
    result, weights = train_pruned(bert, settings, Alone())
    for before, after in zip(whole.state.history, result.state.history, strict=True):
        assert after.metrics.keys() == before.metrics.keys()
        for key in {"train/loss", "train/accuracy", "train/grad_norm", "valid/loss"} & before.metrics.keys():
            assert after.metrics[key] == pytest.approx(before.metrics[key], rel=1e-5)
    require_equal(whole, weights)
    away = [row for row in range(len(VOCABULARY)) if row not in {*BERT_IDS.tolist(), *SPECIALS}]
    start = build_teacher(bert, BERT_IDS, settings, seed=1).state_dict()[KEY][away]
    # As many updates as the best checkpoint's: they decay, and nothing else.
    rates = [settings.peak_lr * min(step / 3, (STEPS + 1 - step) / (STEPS + 1 - 3)) for step in range(1, STEPS + 1)]
    left = np.prod([1 - 0.2 * rate for rate in rates[: result.state.best_step]])
    assert left < 0.99
    torch.testing.assert_close(weights[KEY][away], start * float(left))


def test_without_clipping_the_rows_that_occur_are_equal_bit_for_bit(bert):
    settings = config(clip=1e9)
    whole = train_whole(bert, settings, Alone())
    _, weights = train_pruned(bert, settings, Alone())
    rows = sorted({*BERT_IDS.tolist(), *SPECIALS})
    assert torch.equal(weights[KEY][rows], whole.weights[KEY][rows])
    assert all(torch.equal(weights[name], weight) for name, weight in whole.weights.items() if name != KEY)


@pytest.mark.parametrize("earlier", [False, True], ids=["its own", "of all rows"])
def test_a_training_goes_on_from_a_checkpoint_of_its_own_or_of_all_rows(bert, tmp_path, earlier):
    settings = config()
    whole = train_whole(bert, settings, Alone(directory=tmp_path / "whole"))
    train_pruned(bert, settings, Alone(directory=tmp_path / "pruned"))
    place = tmp_path / ("whole" if earlier else "pruned") / "10"
    for other in (tmp_path / ("whole" if earlier else "pruned")).glob("*/kept/*"):
        (place / "kept").mkdir(exist_ok=True)
        other.rename(place / "kept" / other.name)
    saved = torch.load(place / "training.pt", weights_only=True)["model"][f"teacher.{KEY}"]
    assert len(saved) == (len(VOCABULARY) if earlier else 10)
    result, weights = train_pruned(bert, settings, Alone(restore=place))
    assert result.state.step == STEPS
    require_equal(whole, weights)


def test_the_best_weights_may_be_those_of_an_earlier_version(bert):
    """They were kept before the embedding was pruned, and nothing better came."""
    teacher = build_teacher(bert, BERT_IDS, config(), seed=1)
    whole = {name: weight.clone() for name, weight in teacher.state_dict().items()}
    embedding = PrunedEmbedding(teacher, BERT_IDS, SPECIALS)
    embedding.load_whole(whole, decay=0.5)
    assert all(torch.equal(weight, whole[name]) for name, weight in teacher.state_dict().items())
