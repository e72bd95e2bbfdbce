"""A left-to-right teacher, read by whole sentences, as it was trained."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from bertkd_ray.core.ragged import Ragged
from bertkd_ray.corpus.passes import TOKENIZER
from bertkd_ray.corpus.tokenizer import BOS_ID, EOS_ID, PAD_ID, load_bert_ids
from bertkd_ray.teacher.finetune import MODEL, SPECIALS
from bertkd_ray.teacher.masking import BertSpecials
from bertkd_ray.teacher.model import load_teacher
from bertkd_ray.teacher.prefix_lm import prefix_lm_batch
from tests.helpers.local_project import Project


@dataclass
class PlainTeacher:
    """The teacher of a project."""

    project: Project

    def __post_init__(self) -> None:
        directory = Path(self.project.teacher().path(MODEL))
        self.model = load_teacher(directory)
        self.bert_ids = load_bert_ids(Path(self.project.corpus().path(TOKENIZER)))
        self.specials = BertSpecials(**json.loads((directory / SPECIALS).read_text()))

    @torch.no_grad()
    def logits(self, src: list[int], tgt: list[int]) -> torch.Tensor:
        """[T + 1, V]: of every position of one pair."""
        batch = prefix_lm_batch(Ragged.from_lists([src]), Ragged.from_lists([tgt]), self.bert_ids, self.specials, 1)
        hidden = self.model(
            torch.from_numpy(batch.input_ids),
            torch.from_numpy(batch.token_type_ids),
            torch.from_numpy(batch.attention_mask),
            torch.from_numpy(batch.masked_index),
        )
        return self.model.logits(hidden)

    def greedy(self, src: list[int], most: int) -> tuple[list[int], float]:
        """The best token at every position, until the end; and the sum of their log-probabilities."""
        tgt, total = [], 0.0
        for _ in range(most):
            log_probs = torch.log_softmax(self.logits(src, tgt)[-1], dim=0)
            log_probs[[PAD_ID, BOS_ID]] = -torch.inf
            token = int(log_probs.argmax())
            total += float(log_probs[token])
            if token == EOS_ID:
                break
            tgt.append(token)
        return tgt, total
