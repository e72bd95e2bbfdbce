"""Training of teacher and student: updates on the same batches, and the time a worker waits for them."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.baselines import PlainDistillation, PlainFinetuning, padded_hidden
from benchmarks.comparison import OURS, compare
from benchmarks.loop import Alone, Unjudged, Updates
from benchmarks.setting import CPU, Setting
from benchmarks.table import Row
from benchmarks.timing import Spread, interleaved, rates, ratios
from bertkd_ray.config.sections import KdConfig
from bertkd_ray.core.devices import Precision
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.softlabels.shards import SoftLabels
from bertkd_ray.student import task as student_task
from bertkd_ray.student.collate import StudentBatch, collate
from bertkd_ray.student.model import build_student
from bertkd_ray.student.task import StudentTask, Validation
from bertkd_ray.teacher.task import TeacherBatch, TeacherTask
from bertkd_ray.training.batch_plan import MicroBatch
from bertkd_ray.training.curves import TRAIN_DATA_WAIT
from bertkd_ray.training.optimization import set_learning_rate
from bertkd_ray.training.trainer import Task, TrainSettings, fit

BATCHES = 2
"""Updates a round."""
_RATE = 1e-5
_WHOLE, _MASKED, _PADDED = "whole", "masked", "padded"


def finetune(setting: Setting, rounds: int) -> list[Row]:
    """Non-padding tokens a second of the teacher, against both plain loops."""
    task, config = teacher_of(setting), setting.config.teacher
    plain: dict[str, Any] = {"lr": _RATE, "weight_decay": config.weight_decay, "clip": config.clip}
    loops = {
        name: PlainFinetuning(deepcopy(task.model), **plain, whole=whole)
        for name, whole in ((_WHOLE, True), (_MASKED, False))
    }
    micros = setting.micro_batches(task.lengths, config.batch_tokens, BATCHES)
    batches = [task.collate(micro) for micro in micros]
    tokens = sum(int(batch.attention_mask.sum()) for batch in batches)
    ours = _updates(setting, task)
    compared = compare(
        lambda: [ours(batch) for batch in batches],
        {name: _steps(loop.step, batches) for name, loop in loops.items()},
        rounds,
        setting.clock,
    )
    shape = {"tokens": tokens, "padded": sum(batch.padded_tokens for batch in batches)}
    common: dict[str, Any] = {
        "unit": "non-padding tokens/s",
        "ours": compared.rate(OURS, tokens),
        **compared.columns,
        "details": {**shape, "masked": sum(batch.count for batch in batches), **compared.details()},
    }
    goals = {_WHOLE: ("finetune", "≥ 4 on AMX"), _MASKED: ("finetune, masked places alone", "")}
    return [
        Row(
            what,
            goal=goal,
            baseline=compared.rate(name, tokens),
            ratio=compared.ratio(name, tokens, tokens),
            **common,
        )
        for name, (what, goal) in goals.items()
    ]


def distill(setting: Setting, rounds: int) -> list[Row]:
    """Target tokens a second of the student."""
    task, config = student_of(setting), setting.config
    plain = PlainDistillation(deepcopy(task.model), config.kd, label_smoothing=config.student.label_smoothing, lr=_RATE)
    micros = setting.micro_batches(task.lengths, config.student.batch_tokens, BATCHES)
    batches = [task.collate(micro) for micro in micros]
    tokens = sum(batch.count for batch in batches)
    ours = _updates(setting, task)
    compared = compare(
        lambda: [ours(batch) for batch in batches], {_PADDED: _steps(plain.step, batches)}, rounds, setting.clock
    )
    row = Row(
        "distill",
        "target tokens/s",
        ours=compared.rate(OURS, tokens),
        baseline=compared.rate(_PADDED, tokens),
        ratio=compared.ratio(_PADDED, tokens, tokens),
        goal="≥ 4 on AMX",
        **compared.columns,
        details={"tokens": tokens, "padded": sum(batch.padded_tokens for batch in batches), **compared.details()},
    )
    return [row]


def packing(setting: Setting, rounds: int) -> list[Row]:
    """Target tokens a second of the student's update, against the same one on padded hidden states."""
    task, config = student_of(setting), setting.config
    batches = [task.collate(micro) for micro in setting.micro_batches(task.lengths, config.student.batch_tokens, 8)]
    tokens = sum(batch.count for batch in batches)
    update = _updates(setting, task)

    def padded() -> None:
        with patch.object(student_task, "decoder_hidden", padded_hidden):
            run()

    def run() -> None:
        for batch in batches:
            update(batch)

    seconds = interleaved({OURS: run, _PADDED: padded}, rounds, clock=setting.clock)
    ours, theirs = (rates(tokens, seconds[name]) for name in (OURS, _PADDED))
    row = Row(
        "distill against padded hidden states",
        "target tokens/s",
        ours=Spread.of(ours),
        baseline=Spread.of(theirs),
        ratio=ratios(ours, theirs),
        goal="≥ 1.15",
        details={"tokens": tokens, "padded": sum(batch.padded_tokens for batch in batches), "seconds": seconds},
    )
    return [row]


def _updates(setting: Setting, task: Task) -> Updates:
    set_learning_rate(task.optimizer, _RATE)
    return Updates(task, setting.precision, CPU)


def _steps(step: Callable[[Any], object], batches: list[Any]) -> Callable[[], object]:
    return lambda: [step(batch) for batch in batches]


def teacher_of(setting: Setting) -> TeacherTask:
    """The teacher as finetune trains it, with the setting's configuration."""
    config = setting.config
    return TeacherTask(
        setting.new_teacher(),
        config.teacher,
        config.seed,
        setting.bert_ids,
        setting.specials,
        setting.rows("valid"),
        setting.precision,
    )


def student_of(setting: Setting) -> LabelledStudentTask:
    """The student as distill trains it, with the setting's configuration."""
    student, config = setting.config.student, setting.config
    model = build_student(student, vocab_size=setting.vocabulary, max_positions=512, seed=1)
    nothing = Ragged.from_lists([])
    validation = Validation(nothing, nothing, [], tokenizer=None)  # type: ignore[arg-type]
    return LabelledStudentTask(model, student, config.kd, validation, setting.precision, setting.vocabulary)


class LabelledStudentTask(StudentTask):
    """A student's task whose soft labels are drawn, not extracted: their values do not change what there is to do."""

    def __init__(
        self, model: Any, student: Any, kd: KdConfig, validation: Validation, precision: Precision, vocabulary: int
    ) -> None:
        super().__init__(model, student, kd, validation, precision)
        self._k, self._vocabulary = kd.topk, vocabulary

    def collate(self, micro: MicroBatch) -> StudentBatch:
        """A batch with labels."""
        src, tgt = Ragged.from_arrow(micro.rows["src_ids"]), Ragged.from_arrow(micro.rows["tgt_ids"])
        return collate(
            src, tgt, drawn_labels(len(tgt.values) + len(tgt), self._k, self._vocabulary), pad_to=self._pad_to
        )


def drawn_labels(positions: int, k: int, vocabulary: int) -> SoftLabels:
    """k distinct ids a position, logits sorted downwards, and a logsumexp that leaves a tenth of the mass."""
    draw = np.random.default_rng(1)
    ids = (draw.integers(0, vocabulary, (positions, 1)) + np.arange(k) * (vocabulary // k)) % vocabulary
    logits = -np.sort(draw.exponential(2.0, (positions, k)).astype(np.float32), axis=1)
    logsumexp = np.log(np.exp(logits).sum(axis=1) / 0.9)
    return SoftLabels(ids, logits, logsumexp, np.asarray([0, positions]))  # type: ignore[arg-type]  # float32


class Repeated(Unjudged):
    """Without validation, and with batches that are collated `times` over."""

    def __init__(self, task: Any, times: int) -> None:
        super().__init__(task)
        self._times = times

    def collate(self, micro: MicroBatch) -> TeacherBatch | StudentBatch:
        """The last of the batches."""
        return [self._task.collate(micro) for _ in range(self._times)][-1]


COLLATE_LOAD = 10


def data_wait(setting: Setting, rounds: int) -> list[Row]:
    """The share of its time that the training loop waits for its next batch, once it has begun."""
    threads = torch.get_num_threads()
    teacher, student = teacher_of(setting), student_of(setting)
    tokens = setting.config.teacher.batch_tokens, setting.config.student.batch_tokens
    cases: list[tuple[str, Any, int, int, int]] = [
        ("finetune waits for data", teacher, tokens[0], threads, 1),
        ("distill waits for data", student, tokens[1], threads, 1),
        ("distill waits, 1 thread", student, tokens[1], 1, 1),
        (f"distill waits, collating {COLLATE_LOAD} times", student, tokens[1], 1, COLLATE_LOAD),
    ]
    rows = []
    for what, task, budget, own_threads, times in cases:
        torch.set_num_threads(own_threads)
        try:
            shares = _shares(setting, Repeated(task, times), budget, rounds)
        finally:
            torch.set_num_threads(threads)
        spread = Spread.of([100 * share for share in shares])
        details = {"threads": own_threads, "collated": times, "shares": shares}
        rows.append(Row(what, "% of step time", ours=spread, goal="< 2%", details=details))
    return rows


def _shares(setting: Setting, task: Any, budget: int, rounds: int) -> list[float]:
    """`train/data_wait` of every step but the first, which waits for the first window to be read."""
    steps = rounds + 1
    settings = TrainSettings(
        steps=steps,
        batch_tokens=budget,
        micro_batches=1,
        seed=1,
        eval_every=steps,
        checkpoint_every=steps + 1,
        log_every=1,
    )
    context = Alone()
    fit(task, setting.groups(), settings, context, setting.precision)
    return [row.metrics[TRAIN_DATA_WAIT] for row in context.rows[1:]]
