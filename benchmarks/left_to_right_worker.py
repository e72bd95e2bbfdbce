"""One of the two versions that `benchmarks.left_to_right` compares: a process that answers each line with a line.

python left_to_right_worker.py CHECKOUT STORAGE

The checkout's own package and its own `benchmarks.setting` do the work. Requests and answers are JSON, a request names
a method of `Worker`.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

CHECKOUT = Path(sys.argv[1]).resolve()
sys.path[0] = str(CHECKOUT)

import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from benchmarks.loop import Alone, Updates  # noqa: E402
from benchmarks.setting import CPU, Setting, find_text  # noqa: E402
from bertkd_ray.softlabels.extract import ShardWriter  # noqa: E402
from bertkd_ray.teacher.model import build_teacher  # noqa: E402
from bertkd_ray.teacher.task import TeacherTask  # noqa: E402

EARLIER = not (CHECKOUT / "bertkd_ray" / "teacher" / "prefix_lm.py").is_file()
DIRECTION = "teacher.left_to_right=true" if EARLIER else "teacher.direction=left_to_right"
FRAGMENT_PAIRS = 2048
"""As in configs/multi30k.yaml: the fewer pairs a fragment has, the more padding its length batches."""
UPDATES = 4
"""Updates a round."""
MASK_PROBABILITY = "teacher.mask_probability=0.3"
"""Of configs/multi30k.yaml, which the setting's long training changes."""
TOPK, PASSES = 8, 7
_PLACE, _WORK = "benchmark-shards", "benchmark-work"


class LeftToRight(Setting):
    """The setting with a left-to-right teacher."""

    def _config(self, storage: str, *more: str) -> Any:
        pairs = (f"corpus.fragment_pairs={FRAGMENT_PAIRS}", f"corpus.group_pairs={FRAGMENT_PAIRS}")
        return super()._config(storage, DIRECTION, MASK_PROBABILITY, *pairs, *more)


class Worker:
    """What the process is asked for, by name."""

    def __init__(self, storage: str) -> None:
        self.setting = LeftToRight(storage, find_text())

    def memory(self) -> dict[str, float]:
        """Mebibytes."""
        return {"mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}

    def extract(self) -> dict[str, float]:
        """A fragment, from reading it to writing its shard."""
        store = self.setting.corpus.store
        store.delete(_PLACE)
        store.delete(_WORK)
        writer, item = self._writer
        seconds = _cpu_seconds(lambda: writer(item))
        return {"seconds": seconds, "amount": FRAGMENT_PAIRS}

    @cached_property
    def _writer(self) -> tuple[Any, Any]:
        """The stage's own worker, and what it is handed for the first fragment."""
        setting, corpus, teacher = self.setting, self.setting.corpus, self.setting.teacher
        config = setting.config
        if EARLIER:
            from bertkd_ray.core.rejects import Limit as ErrorBudget  # type: ignore[import-not-found]

            settings = {
                "topk": TOPK,
                "passes": PASSES,
                "batch_tokens": config.extract.batch_tokens,
                "precision": config.precision,
            }
            budget = ErrorBudget("extract", 0.0, FRAGMENT_PAIRS)
            writer: Any = ShardWriter(
                corpus.store.uri, _PLACE, _WORK, corpus.directory, teacher.directory, settings, budget
            )
            return writer, {"fragment": corpus.files("train/")[0]["path"], "shard": "part-000000.parquet"}
        from bertkd_ray.execution.dead_letters import ErrorBudget
        from bertkd_ray.softlabels.extract import ExtractJob

        job = ExtractJob(
            storage=corpus.store.uri,
            artifact=_PLACE,
            staging=_WORK,
            corpus=corpus.directory,
            teacher=teacher.directory,
            config=config.model_copy(update={"extract": config.extract.model_copy(update={"topk": TOPK})}),
            budget=ErrorBudget("extract", 0.0, FRAGMENT_PAIRS),
        )
        return ShardWriter(job), corpus.files_below("train/")[0].path

    def update(self) -> dict[str, float]:
        """Updates on the same batches each time."""
        updates, batches = self._updates
        return {"seconds": _cpu_seconds(lambda: [updates(batch) for batch in batches]), "amount": UPDATES}

    @cached_property
    def _updates(self) -> tuple[Updates, list[Any]]:
        setting, config = self.setting, self.setting.config.teacher
        task = self._task(config.steps)
        micros = setting.micro_batches(_lengths(task), config.batch_tokens, UPDATES)
        return Updates(task, setting.precision, CPU), [task.collate(micro) for micro in micros]

    def train(self, updates: int, weights: str) -> dict[str, float]:
        """A training without validation; the last weights go to a file."""
        setting = self.setting
        task = Unvalidated(self._task(updates))
        settings = {
            "steps": updates,
            "batch_tokens": setting.config.teacher.batch_tokens,
            "micro_batches": 1,
            "seed": setting.config.seed,
            "eval_every": updates,
            "checkpoint_every": updates + 1,
            "log_every": 50,
        }
        seconds = _cpu_seconds(lambda: _fit(task, setting, settings))
        save_file({name: tensor.contiguous() for name, tensor in task.model.state_dict().items()}, weights)
        return {"seconds": seconds, "amount": updates}

    def evaluate(self, weights: str, masked: bool) -> dict[str, float]:
        """Nats a position of the valid split after its full left context: today's only.

        masked: each position is alone masked, as a teacher that was trained with masks is to be asked.
        """
        from benchmarks.pseudo_masking import QueriesTask

        task = self._task(1, QueriesTask if masked else TeacherTask)
        task.model.load_state_dict(load_file(weights))
        task.model.eval()
        from bertkd_ray.training.context import World

        return dict(task.evaluate(World()))

    def _task(self, steps: int, kind: type[TeacherTask] = TeacherTask) -> Any:
        setting, config = self.setting, self.setting.config
        teacher = config.teacher.model_copy(update={"steps": steps})
        if EARLIER:
            options: dict[str, Any] = {
                "pretrained": True,
                "dropout": 0.0,
                "attention_dropout": 0.0,
                "left_to_right": True,
            }
            model = build_teacher(setting.bert, setting.bert_ids, **options)
        else:
            model = build_teacher(setting.bert, setting.bert_ids, teacher)
        specials, valid = setting.specials, setting.rows("valid")
        return kind(model, teacher, config.seed, setting.bert_ids, specials, valid, setting.precision)


class Unvalidated:
    """A task without validation, under both versions' names; progress goes to stderr."""

    def __init__(self, task: Any) -> None:
        self._task = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def learning_rate(self, step: int) -> float:
        """The task's, asked once an update."""
        if step % 50 == 0:
            print(f"update {step}, {time.process_time():.0f} CPU seconds", file=sys.stderr, flush=True)
        return float(self._task.learning_rate(step))

    def evaluate(self, *_: Any) -> dict[str, float]:
        """Nothing is looked at."""
        return {}

    def rank_of(self, *_: Any) -> float:
        """Every checkpoint is as good as any."""
        return 0.0


def _lengths(task: Any) -> Any:
    """How the task's rows are counted."""
    if EARLIER:
        from bertkd_ray.teacher.task import lengths  # type: ignore[attr-defined]

        return lengths
    return task.lengths


def _fit(task: Any, setting: Setting, settings: dict[str, Any]) -> None:
    if EARLIER:
        from bertkd_ray.core.training import Settings, fit  # type: ignore[import-not-found]

        fit(task, setting.groups(), _lengths(task), Settings(**settings), Alone(), setting.precision)
    else:
        from bertkd_ray.training.trainer import TrainSettings, fit

        fit(task, setting.groups(), TrainSettings(**settings), Alone(), setting.precision)


def _cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    """Answers until stdin ends; libraries' own prints do not come between."""
    answers, sys.stdout = sys.stdout, sys.stderr
    torch.set_num_threads(1)
    worker = Worker(sys.argv[2])
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(worker, request.pop("do"))(**request)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
