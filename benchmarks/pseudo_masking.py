"""The left-to-right teacher's two known forms on the same text for the same CPU seconds.

python -m benchmarks.pseudo_masking configs/multi30k.yaml corpus.directory=../shared/data/multi30k --cpu-seconds 900

*prefix LM* is the teacher's own (`teacher.prefix_lm`): the state of target i - 1 predicts target i. *queries* is the
pseudo-masked language model of UniLM (arXiv 1905.03197, 2002.12804), as s2s-ft (arXiv 2110.13640) fine-tunes it and as
this project had it: `[CLS] src [SEP] tgt₁ … tgt_T` and T + 1 queries, each a `[MASK]` with the position and the token
type of the target token it stands for, which sees the source, the target before it and itself; S + 2T + 3 tokens a pair
instead of S + T + 2. Both see the same left context, so that their losses on the valid split compare. Each learns with
its rate's schedule over the updates that fit into the seconds.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.loop import Updates
from benchmarks.machine import ROOT, commit, machine
from benchmarks.setting import CPU
from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.artifacts.row_groups import RowGroups
from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.config import Config, load_config
from bertkd_ray.core.devices import resolve_precision
from bertkd_ray.core.padding import padded_length
from bertkd_ray.core.ragged import Ragged, flat_positions, offsets_of
from bertkd_ray.corpus.passes import TOKENIZER
from bertkd_ray.corpus.tokenizer import load_bert_ids
from bertkd_ray.pipeline.pipeline import Pipeline
from bertkd_ray.teacher.masking import BertSpecials, with_eos
from bertkd_ray.teacher.model import ConditionalMaskedLM, build_teacher
from bertkd_ray.teacher.source import bert_specials
from bertkd_ray.teacher.task import MaskedLoss, TeacherBatch, TeacherTask
from bertkd_ray.training.batch_plan import BatchPlan, RowLengths, Streams
from bertkd_ray.training.context import World
from bertkd_ray.training.curves import VALID_ACCURACY, VALID_LOSS
from bertkd_ray.training.optimization import set_learning_rate

TIMED_UPDATES = 8
"""Of which the median says how many fit into the seconds."""
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class QueriesBatch(TeacherBatch):
    """The batch whose masked positions are the queries."""

    position_ids: Tensor | None = None
    """int64[N, L]: a query has the position of the target token it stands for."""


def pseudo_masked_batch(
    src: Ragged, tgt: Ragged, bert_ids: NDArray[np.integer], specials: BertSpecials, pad_to: int = 8
) -> QueriesBatch:
    """The queries, T + 1 a row, in the order of the target; arguments as of `prefix_lm_batch`."""
    rows, prefixes, targets, queries = len(src), src.lengths + 2, tgt.lengths, tgt.lengths + 1
    width = padded_length(int((prefixes + targets + queries).max(initial=0)), pad_to)
    starts = np.arange(rows, dtype=np.int64) * width
    prefix_at, target_at = flat_positions(starts, prefixes), flat_positions(starts + prefixes, targets)
    query_at = flat_positions(starts + prefixes + targets, queries)
    zeros = np.zeros(rows, np.int64)
    target_number, query_number = flat_positions(zeros, targets), flat_positions(zeros, queries)

    def laid_out(prefix: Any, target: Any, query: Any, padding: int) -> NDArray[np.int64]:
        values = np.full(rows * width, padding, dtype=np.int64)
        values[prefix_at], values[target_at], values[query_at] = prefix, target, query
        return values.reshape(rows, width)

    source_ids = np.full(len(prefix_at), specials.cls, dtype=np.int64)
    source_ids[flat_positions(offsets_of(prefixes)[:-1] + 1, src.lengths)] = bert_ids[src.values]
    source_ids[np.cumsum(prefixes) - 1] = specials.sep
    # A token sees the keys of no later turn than its own; a query is nobody's key but its own.
    key_turn = laid_out(0, target_number + 1, _NEVER, padding=_NEVER)
    turn = laid_out(0, target_number + 1, query_number, padding=0)
    arrays = {
        "input_ids": laid_out(source_ids, bert_ids[tgt.values], specials.mask, padding=specials.pad),
        "token_type_ids": laid_out(0, 1, 1, padding=0),
        "attention_mask": (key_turn[:, None, :] <= turn[:, :, None]) | np.eye(width, dtype=np.bool_),
        "masked_index": query_at,
        "labels": with_eos(tgt),
        "position_ids": laid_out(
            flat_positions(zeros, prefixes),
            np.repeat(prefixes, targets) + target_number,
            np.repeat(prefixes, queries) + query_number,
            padding=0,
        ),
    }
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return QueriesBatch(**tensors, most=int(queries.max(initial=0)))


class QueriesLoss(MaskedLoss):
    """The loss at the queries, whose positions the model does not count itself."""

    def forward(self, batch: TeacherBatch) -> tuple[Tensor, Tensor]:
        """As of `MaskedLoss`."""
        assert isinstance(batch, QueriesBatch)
        positions = {"position_ids": batch.position_ids}
        hook = self.teacher.bert.embeddings.register_forward_pre_hook(
            lambda _module, arguments, named: (arguments, {**named, **positions}), with_kwargs=True
        )
        try:
            return super().forward(batch)
        finally:
            hook.remove()


class QueriesTask(TeacherTask):
    """The teacher's task with pseudo-masked batches."""

    def __init__(self, teacher: ConditionalMaskedLM, *arguments: Any) -> None:
        super().__init__(teacher, *arguments)
        self.objective = QueriesLoss(teacher).train()

    def lengths(self, rows: pa.Table) -> RowLengths:
        """Rows sorted and counted by S + 2T + 3."""
        src, tgt = (Ragged.from_arrow(rows[side]).lengths for side in ("src_ids", "tgt_ids"))
        return RowLengths(sort=src + 2 * tgt + 3, tokens=src + 2 * tgt + 3)

    def _batch(self, rows: pa.Table, seed: int, epoch: int) -> TeacherBatch:
        src, tgt = Ragged.from_arrow(rows["src_ids"]), Ragged.from_arrow(rows["tgt_ids"])
        return pseudo_masked_batch(src, tgt, self._bert_ids, self._specials, self._pad_to)


FORMS: dict[str, type[TeacherTask]] = {"prefix LM": TeacherTask, "queries": QueriesTask}


def main() -> None:
    """Trains both, one after the other, and prints a line for each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--cpu-seconds", type=float, default=900.0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    fixed = ["teacher.direction=left_to_right", "runtime=local", "device=cpu", "tracking=none"]
    config = load_config(ROOT / options.config, [*options.overrides, *fixed])
    rows = [_trained(name, config, options.cpu_seconds) for name in FORMS]
    if options.output:
        described = {"config": options.config, "overrides": options.overrides, **commit(), "machine": machine()}
        options.output.write_text(json.dumps({**described, "rows": rows}, indent=1) + "\n", encoding="utf-8")


def _trained(name: str, config: Config, cpu_seconds: float) -> dict[str, Any]:
    pipeline = Pipeline(config)
    corpus, bert = pipeline.make("prepare"), pipeline.session.bert(config)
    seconds = sorted(_updated(_task(name, config, corpus, bert, TIMED_UPDATES), corpus, config, TIMED_UPDATES))
    steps = int(cpu_seconds / seconds[TIMED_UPDATES // 2])
    task = _task(name, config, corpus, bert, steps)
    spent = sum(_updated(task, corpus, config, steps))
    task.model.eval()
    metrics = task.evaluate(World())
    row = {
        "form": name,
        "updates": steps,
        "cpu_seconds": spent,
        "valid_perplexity": math.exp(metrics[VALID_LOSS]),
        "valid_accuracy": metrics[VALID_ACCURACY],
    }
    print(
        f"{name}: {steps:,} updates, {spent:,.0f} CPU seconds, valid perplexity {row['valid_perplexity']:.2f}, "
        f"accuracy {row['valid_accuracy']:.1%}",
        flush=True,
    )
    return row


def _task(name: str, config: Config, corpus: Artifact, bert: str, steps: int) -> TeacherTask:
    teacher = config.teacher.model_copy(update={"steps": steps})
    with scratch_directory("corpus-") as scratch:
        bert_ids = load_bert_ids(corpus.local(TOKENIZER, scratch))
    model = build_teacher(bert, bert_ids, teacher)
    valid = corpus.read_table("valid/", ["id", "src_ids", "tgt_ids"]).combine_chunks()
    precision = resolve_precision(config.precision, CPU)
    return FORMS[name](model, teacher, config.seed, bert_ids, bert_specials(bert), valid, precision)


def _updated(task: TeacherTask, corpus: Artifact, config: Config, steps: int) -> list[float]:
    """CPU seconds of each update, its batch included."""
    groups = RowGroups(corpus, "train/", ["id", "src_ids", "tgt_ids"])
    plan, budget = BatchPlan(groups.rows, 1, config.seed), config.teacher.batch_tokens
    update = Updates(task, resolve_precision(config.precision, CPU), CPU)
    streams = Streams(plan, budget=budget, read=groups.read, lengths=task.lengths)
    seconds = []
    try:
        for step in range(1, steps + 1):
            started = time.process_time()
            set_learning_rate(task.optimizer, task.learning_rate(step))
            update(task.collate(streams.step()[0]), seed=step)
            seconds.append(time.process_time() - started)
            if step % 100 == 0:
                print(f"{step:,}/{steps:,} updates  {sum(seconds):,.0f} CPU seconds", flush=True)
    finally:
        streams.close()
    return seconds


if __name__ == "__main__":
    main()
