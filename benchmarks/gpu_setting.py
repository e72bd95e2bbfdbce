"""What the GPU is measured on: models of the real sizes with random weights, and pairs as long as Multi30k's.

Lengths are those of the 29,000 German-English training pairs, in words and punctuation marks, which is about what a
vocabulary of 40,000 makes of them; `multi30k_lengths.json` keeps how often each pair of lengths occurs.
`python -m benchmarks.gpu_setting DIRECTORY` makes it from the data set's files. Token ids are drawn: they do not change
what there is to do.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from transformers import BertConfig

from bertkd_ray.config.sections import Direction, KdConfig, StudentConfig, TeacherConfig
from bertkd_ray.core.devices import Precision, resolve_attention, resolve_precision
from bertkd_ray.core.ragged import Ragged, offsets_of
from bertkd_ray.plan.operations import StudentSize, TeacherSize
from bertkd_ray.softlabels.shards import SoftLabels, encode_shard, index_dtype, shard_schema
from bertkd_ray.student.model import build_student
from bertkd_ray.student.task import StudentTask, Validation
from bertkd_ray.teacher.masking import BertSpecials
from bertkd_ray.teacher.model import ConditionalMaskedLM
from bertkd_ray.teacher.task import TeacherTask

LENGTHS = Path(__file__).with_name("multi30k_lengths.json")
TOPK = 8
GROUP_PAIRS = 512
TEACHER_DROPOUT, STUDENT_DROPOUT = 0.1, 0.3
FIRST_TOKEN = 4
"""Tokens below are special."""


@dataclass(frozen=True)
class Sizes:
    """What is measured and how much of it."""

    teacher: TeacherSize
    student: StudentSize
    heads: tuple[int, int]
    """Of teacher and student."""
    pieces: int
    """Of the BERT."""
    pairs: int
    fragment_pairs: int
    extract_default: int
    """The configuration's."""
    extract_budgets: tuple[int, ...]
    finetune_budgets: tuple[int, ...]
    distill_budgets: tuple[int, ...]
    steps: int
    """Updates that are timed, and half as many before."""
    sentences: tuple[int, int]
    """Translated by our search, and one at a time."""
    square: int
    """The side of the largest product."""
    compiles: bool
    """Whether what is compiled gets code of its own, not only a trace."""
    updates: int
    """Of a variant of a training."""
    dropout: float | None
    """Of variants; None is the default of each model."""


REAL = Sizes(
    teacher=TeacherSize(layers=12, width=768, ffn=3072, vocabulary=40_000),
    student=StudentSize(encoder_layers=6, decoder_layers=6, width=512, ffn=2048, vocabulary=40_000),
    heads=(12, 8),
    pieces=119_547,
    pairs=29_000,
    fragment_pairs=2_048,
    extract_default=16_384,
    extract_budgets=(65_536, 16_384, 131_072),
    finetune_budgets=(16_384, 32_768),
    distill_budgets=(24_576, 6_144, 49_152),
    steps=24,
    sentences=(1_000, 5),
    square=8_192,
    compiles=True,
    updates=12,
    dropout=None,
)
TINY = Sizes(
    teacher=TeacherSize(layers=2, width=32, ffn=64, vocabulary=200),
    student=StudentSize(encoder_layers=1, decoder_layers=2, width=32, ffn=64, vocabulary=200),
    heads=(2, 2),
    pieces=300,
    pairs=600,
    fragment_pairs=48,
    extract_default=256,
    extract_budgets=(512, 2_048),
    finetune_budgets=(512,),
    distill_budgets=(256, 512),
    steps=4,
    sentences=(12, 2),
    square=128,
    compiles=False,
    updates=2,
    dropout=0.0,
)


class MemoryGroups:
    """Row groups of a table that is in memory: what `training.trainer.fit` reads of an artifact."""

    def __init__(self, table: pa.Table, group_pairs: int = GROUP_PAIRS) -> None:
        self._table, self._size = table, group_pairs
        starts = np.arange(0, len(table), group_pairs)
        self.rows: NDArray[np.int64] = np.minimum(group_pairs, len(table) - starts)

    def read(self, groups: NDArray[np.int64]) -> pa.Table:
        """The rows of the given groups, as a table of one chunk a column."""
        return pa.concat_tables(
            self._table.slice(int(group) * self._size, self._size) for group in groups
        ).combine_chunks()


class GpuSetting:
    """Sizes, device, and the data and models that are made of them."""

    def __init__(self, sizes: Sizes, device: torch.device, side_tokens: int | None = None) -> None:
        """side_tokens: of both sides of every pair; None draws lengths as Multi30k has them."""
        self.sizes, self.device, self._side_tokens = sizes, device, side_tokens
        self.precision: Precision = "bf16" if device.type == "cpu" else resolve_precision("auto", device)
        self.attention = resolve_attention("auto", device, training=True)
        self.bert_ids = np.random.default_rng(1).permutation(sizes.pieces)[: sizes.teacher.vocabulary].astype(np.int32)
        self.specials = BertSpecials(pad=0, cls=1, sep=2, mask=3)

    @property
    def storage(self) -> Path:
        """A directory that is removed with this setting."""
        return Path(self._directory.name)

    @cached_property
    def _directory(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="gpu-check-")

    @cached_property
    def pairs(self) -> tuple[Ragged, Ragged]:
        """Source and target tokens, in an order that is drawn once."""
        src, tgt = lengths(self.sizes.pairs)
        if self._side_tokens:
            src = tgt = np.full(self.sizes.pairs, self._side_tokens)
        draw = np.random.default_rng(2)
        return drawn(src, self.sizes.student.vocabulary, draw), drawn(tgt, self.sizes.student.vocabulary, draw)

    @cached_property
    def table(self) -> pa.Table:
        """The pairs with soft labels, as a shard has them."""
        src, tgt = self.pairs
        vocabulary, positions = self.sizes.student.vocabulary, tgt.lengths + 1
        total, draw = int(positions.sum()), np.random.default_rng(3)
        ids = (draw.integers(0, vocabulary, (total, 1)) + np.arange(TOPK) * (vocabulary // TOPK)) % vocabulary
        logits = -np.sort(draw.exponential(2.0, (total, TOPK)), axis=1)
        logsumexp = np.log(np.exp(logits).sum(axis=1) / 0.9)
        labels = SoftLabels(
            topk_ids=ids.astype(index_dtype(vocabulary)),
            topk_logits=logits.astype(np.float16),
            logsumexp=logsumexp.astype(np.float32),
            offsets=offsets_of(positions),
        )
        schema = shard_schema(vocabulary, TOPK)
        return encode_shard(np.arange(len(src), dtype=np.int64), src, tgt, labels, schema)

    def teacher(
        self, *, dropout: float | None = None, attention: str | None = None, direction: Direction = "both"
    ) -> ConditionalMaskedLM:
        """A teacher on the device, in float32."""
        size, dropout = self.sizes.teacher, TEACHER_DROPOUT if dropout is None else dropout
        config = BertConfig(
            vocab_size=self.sizes.pieces,
            hidden_size=size.width,
            num_hidden_layers=size.layers,
            num_attention_heads=self.sizes.heads[0],
            intermediate_size=size.ffn,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            max_position_embeddings=512,
        )
        config.target_vocab_size, config.direction = size.vocabulary, direction
        torch.manual_seed(4)
        with self.device:
            model: Any = ConditionalMaskedLM._from_config(
                config, attn_implementation=attention or self.attention, dtype=torch.float32
            )
        # Were the output's weights as small as the others, all tokens would be as good as tied.
        with torch.no_grad():
            model.output.weight.mul_(10)
        return model.train()  # type: ignore[no-any-return]

    def student(self, *, dropout: float | None = None, attention: str | None = None) -> Any:
        """A student on the device, in float32."""
        dropout = STUDENT_DROPOUT if dropout is None else dropout
        model = build_student(
            self._student_config(dropout=dropout, attention_dropout=dropout, activation_dropout=dropout),
            vocab_size=self.sizes.student.vocabulary,
            max_positions=512,
            seed=5,
            attention=attention or self.attention,  # type: ignore[arg-type]
        )
        torch.nn.Module.to(model, self.device)
        return model

    def _student_config(self, **changes: Any) -> StudentConfig:
        size = self.sizes.student
        return StudentConfig(
            encoder_layers=size.encoder_layers,
            decoder_layers=size.decoder_layers,
            width=size.width,
            ffn=size.ffn,
            heads=self.sizes.heads[1],
            **changes,
        )

    def teacher_task(self, model: ConditionalMaskedLM, budget: int, **changes: Any) -> TeacherTask:
        """Finetuning as the configuration's defaults have it, but for the changes."""
        config = TeacherConfig(batch_tokens=budget, steps=100_000, **changes)
        valid = self.table.slice(0, 16)
        return TeacherTask(model, config, 1, self.bert_ids, self.specials, valid, self.precision)

    def student_task(self, model: Any, budget: int, **kd: Any) -> StudentTask:
        """Distillation as the configuration's defaults have it, but for these of `kd`."""
        config = self._student_config(batch_tokens=budget)
        nothing = Ragged.from_lists([])
        validation = Validation(nothing, nothing, [], tokenizer=None)  # type: ignore[arg-type]
        return StudentTask(model, config, KdConfig(topk=TOPK, **kd), validation, self.precision)


def drawn(lengths_n: NDArray[np.int64], vocabulary: int, draw: np.random.Generator) -> Ragged:
    """Rows of random tokens."""
    values = draw.integers(FIRST_TOKEN, vocabulary, int(lengths_n.sum()), dtype=np.int32)
    return Ragged(values, offsets_of(lengths_n))


def lengths(pairs: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Source and target lengths of so many pairs, in an order that is drawn once; more than there are come again."""
    counted = np.array(json.loads(LENGTHS.read_text(encoding="utf-8"))["src, tgt, pairs"], np.int64)
    both = np.repeat(counted[:, :2], counted[:, 2], axis=0)
    order = np.random.default_rng(6).permutation(len(both))
    chosen = both[order[np.arange(pairs) % len(both)]]
    return chosen[:, 0], chosen[:, 1]


def count_lengths(directory: Path) -> list[list[int]]:
    """[source length, target length, pairs] for every two lengths that occur together in Multi30k's training text."""
    sides = [_word_counts(directory / f"train.{language}.gz") for language in ("de", "en")]
    counted = Counter(zip(*sides, strict=True))
    return [[src, tgt, pairs] for (src, tgt), pairs in sorted(counted.items())]


def _word_counts(path: Path) -> list[int]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [max(1, len(re.findall(r"\w+|[^\w\s]", line))) for line in lines]


def main() -> None:
    """Writes the committed lengths."""
    counted = count_lengths(Path(sys.argv[1]))
    note = "Multi30k German-English, training split: words and punctuation marks of both sides, and how often together"
    LENGTHS.write_text(json.dumps({"what": note, "src, tgt, pairs": counted}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
