"""What is measured on: the text, and the corpus, teacher and student that are made of it once and kept."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from benchmarks.machine import ROOT
from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.artifacts.row_groups import RowGroups
from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.config import Config, load_config
from bertkd_ray.config.sections import TeacherConfig
from bertkd_ray.core.devices import Precision, resolve_precision
from bertkd_ray.corpus.passes import TOKENIZER
from bertkd_ray.corpus.tokenizer import load_bert_ids
from bertkd_ray.pipeline.pipeline import Pipeline
from bertkd_ray.teacher.model import ConditionalMaskedLM, build_teacher
from bertkd_ray.teacher.source import bert_specials
from bertkd_ray.training.batch_plan import BatchPlan, MicroBatch, Streams

CPU = torch.device("cpu")
FRAGMENT_PAIRS = 192
"""Of the corpus here: what an extraction of some seconds takes. In configs/multi30k.yaml, whose settings are taken
otherwise, a fragment has 2,048 pairs and length batches are a little fuller."""
TEACHER_STEPS, STUDENT_STEPS = 20, 600
"""The teacher's weights do not matter to speed, and little to the shards' size; the student must end its sentences."""

LONG_TRAINING = (
    "teacher.batch_tokens=2048",
    "teacher.mask_probability=0.15",
    "extract.topk=8",
    "student.batch_tokens=4096",
    "student.dropout=0.2",
)
"""Where configs/multi30k.yaml is made for a short training, speed is measured as for a long one: with the paper's masks
and number of logits, larger updates of the student, and dropout."""


@dataclass(frozen=True)
class Text:
    """Where the text comes from."""

    name: str
    overrides: tuple[str, ...]


def find_text() -> Text:
    """Multi30k below `CORPUS_DIR`, `../shared/data` or `data` of the checkout, else the embedded corpus."""
    named = os.environ.get("CORPUS_DIR")
    for above in [Path(named)] if named else [ROOT.parent / "shared" / "data", ROOT / "data"]:
        directory = above / "multi30k"
        if (directory / "train.de.gz").is_file():
            return Text("Multi30k, German to English", (f"corpus.directory={directory}",))
    embedded = "{source: demo}"
    return Text("the embedded corpus (Multi30k is not there: set CORPUS_DIR)", (f"corpus={embedded}",))


class Setting:
    """The artifacts, made on first use; `storage` keeps them for the next run."""

    def __init__(self, storage: str, text: Text, clock: Callable[[], float] = time.perf_counter) -> None:
        self.text, self.clock = text, clock
        self.config = self._config(storage)
        self.precision: Precision = resolve_precision(self.config.precision, CPU)
        self._pipeline = Pipeline(self.config)

    def _config(self, storage: str, *more: str) -> Config:
        overrides = [
            f"storage={storage}",
            "runtime=local",
            "device=cpu",
            "tracking=none",
            "name=benchmarks",
            f"corpus.fragment_pairs={FRAGMENT_PAIRS}",
            f"corpus.group_pairs={FRAGMENT_PAIRS}",
            f"teacher.steps={TEACHER_STEPS}",
            *LONG_TRAINING,
            *more,
        ]
        return load_config(ROOT / "configs" / "multi30k.yaml", [*self.text.overrides, *overrides])

    @cached_property
    def corpus(self) -> Artifact:
        """The prepared text."""
        return self._pipeline.make("prepare")

    @cached_property
    def teacher(self) -> Artifact:
        """A teacher after a few steps."""
        return self._pipeline.make("finetune")

    @cached_property
    def student(self) -> Artifact:
        """A student without a teacher, trained just long enough to end its sentences as a finished one does."""
        quick = [
            f"student.steps={STUDENT_STEPS}",
            f"student.eval_every={STUDENT_STEPS}",
            "student.batch_tokens=2048",
            "student.peak_lr=3.125e-3",
            "student.warmup_steps=100",
            "student.dropout=0.0",
        ]
        return Pipeline(self._config(self.config.storage, *quick)).make("distill", "control")

    @cached_property
    def bert(self) -> str:
        """The directory of the BERT."""
        return self._pipeline.session.bert(self.config)

    @cached_property
    def bert_ids(self) -> NDArray[np.integer]:
        """The BERT id behind each token."""
        with scratch_directory("corpus-") as scratch:
            return load_bert_ids(self.corpus.local(TOKENIZER, scratch))

    @property
    def specials(self) -> Any:
        """BERT's own ids of its special tokens."""
        return bert_specials(self.bert)

    @property
    def vocabulary(self) -> int:
        """Tokens of the student's vocabulary."""
        return int(self.corpus.info["vocabulary"])

    def new_teacher(self, attention: str = "eager", dropout: float = 0.0) -> ConditionalMaskedLM:
        """A teacher at the start of finetuning."""
        return build_teacher(
            self.bert, self.bert_ids, TeacherConfig(dropout=dropout, attention_dropout=dropout), attention=attention
        )

    def groups(self) -> RowGroups:
        """The training split."""
        return RowGroups(self.corpus, "train/", ["id", "src_ids", "tgt_ids"])

    def micro_batches(self, lengths: Any, budget: int, count: int) -> list[MicroBatch]:
        """The first micro-batches of the batch plan."""
        groups = self.groups()
        streams = Streams(BatchPlan(groups.rows, 1, self.config.seed), budget=budget, read=groups.read, lengths=lengths)
        try:
            return [streams.step()[0] for _ in range(count)]
        finally:
            streams.close()

    def rows(self, split: str) -> pa.Table:
        """A whole split."""
        return self.corpus.read_table(f"{split}/", ["id", "src_ids", "tgt_ids"]).combine_chunks()
