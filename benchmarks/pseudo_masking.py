"""The left-to-right teacher's two known forms on the same text for the same CPU seconds.

python -m benchmarks.prefix_lm configs/multi30k.yaml corpus.directory=../shared/data/multi30k --cpu-seconds 900

*queries* is the teacher's own: every position is a `[MASK]` with its full left context (`teacher.pseudo_masking`). The
*prefix LM* has no queries: the state of target i - 1 predicts target i (arXiv 1905.03197, section 2.3, fine-tuned as a
language model), S + T + 2 tokens a pair instead of S + 2T + 3. Both see the same left context, so that their losses on
the valid split compare. Each learns with its rate's schedule over the updates that fit into the seconds.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

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
from bertkd_ray.teacher.masking import BertSpecials, CMLMBatch, with_eos
from bertkd_ray.teacher.model import build_teacher
from bertkd_ray.teacher.source import bert_specials
from bertkd_ray.teacher.task import TeacherBatch, TeacherTask
from bertkd_ray.training.batch_plan import BatchPlan, RowLengths, Streams
from bertkd_ray.training.context import World
from bertkd_ray.training.curves import VALID_ACCURACY, VALID_LOSS
from bertkd_ray.training.optimization import set_learning_rate

TIMED_UPDATES = 8
"""Of which the median says how many fit into the seconds."""


def prefix_lm_batch(
    src: Ragged, tgt: Ragged, bert_ids: NDArray[np.integer], specials: BertSpecials, pad_to: int = 8
) -> CMLMBatch:
    """The batch whose "masked" positions, T + 1 a row, are `[SEP]` and the target tokens: each predicts the next one.

    The prefix `[CLS] src [SEP]` sees itself, target j sees it and the targets up to itself.
    """
    rows, prefixes, targets = len(src), src.lengths + 2, tgt.lengths
    width = padded_length(int((prefixes + targets).max(initial=0)), pad_to)
    starts = np.arange(rows, dtype=np.int64) * width
    prefix_at, target_at = flat_positions(starts, prefixes), flat_positions(starts + prefixes, targets)
    zeros = np.zeros(rows, np.int64)

    def laid_out(prefix: Any, target: Any, padding: int) -> NDArray[np.int64]:
        values = np.full(rows * width, padding, dtype=np.int64)
        values[prefix_at], values[target_at] = prefix, target
        return values.reshape(rows, width)

    source_ids = np.full(len(prefix_at), specials.cls, dtype=np.int64)
    source_ids[flat_positions(offsets_of(prefixes)[:-1] + 1, src.lengths)] = bert_ids[src.values]
    source_ids[np.cumsum(prefixes) - 1] = specials.sep
    number = flat_positions(zeros, targets) + 1
    turn = laid_out(0, number, padding=0)
    return CMLMBatch(
        input_ids=laid_out(source_ids, bert_ids[tgt.values], padding=specials.pad),
        token_type_ids=laid_out(0, 1, padding=0),
        attention_mask=laid_out(0, number, padding=np.iinfo(np.int64).max)[:, None, :] <= turn[:, :, None],
        masked_index=flat_positions(starts + prefixes - 1, targets + 1),
        labels=with_eos(tgt),
        position_ids=laid_out(flat_positions(zeros, prefixes), np.repeat(prefixes, targets) + number - 1, padding=0),
    )


class PrefixTask(TeacherTask):
    """The teacher's task with the prefix LM's batches."""

    def lengths(self, rows: pa.Table) -> RowLengths:
        """Rows sorted and counted by S + T + 2."""
        tokens = Ragged.from_arrow(rows["src_ids"]).lengths + Ragged.from_arrow(rows["tgt_ids"]).lengths + 2
        return RowLengths(sort=tokens, tokens=tokens)

    def _batch(self, rows: pa.Table, seed: int, epoch: int) -> TeacherBatch:
        src, tgt = Ragged.from_arrow(rows["src_ids"]), Ragged.from_arrow(rows["tgt_ids"])
        return TeacherBatch.of(prefix_lm_batch(src, tgt, self._bert_ids, self._specials, self._pad_to))


FORMS: dict[str, type[TeacherTask]] = {"queries": TeacherTask, "prefix LM": PrefixTask}


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
