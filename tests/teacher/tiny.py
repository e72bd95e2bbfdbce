"""A very small BERT on disk, and conditional models around it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertForMaskedLM, PreTrainedModel

from bertkd_ray.teacher.masking import BertSpecials
from bertkd_ray.teacher.model import ConditionalMaskedLM

SPECIALS = BertSpecials(pad=0, cls=2, sep=3, mask=4)
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"piece{index}" for index in range(35))]


def tiny_config(**changes: Any) -> BertConfig:
    """Two layers of width 16 and 32 positions; the vocabulary is `VOCABULARY`."""
    sizes: dict[str, Any] = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 32,
        "initializer_range": 0.3,
    }
    return BertConfig(**{**sizes, **changes})


def write_bert(directory: Path, *, mlm: bool = True, **changes: Any) -> Path:
    """A BERT checkpoint with (`BertForMaskedLM`) or without an MLM head, and its vocabulary."""
    write_random(directory, BertForMaskedLM, tiny_config(**changes), mlm=mlm)
    (directory / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return directory


def write_random(
    directory: Path, model_class: type[PreTrainedModel], config: Any, *, mlm: bool = True, seed: int = 0
) -> Path:
    """A checkpoint of a masked language model with every parameter away from its usual start, or of its encoder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    (model if mlm else model.base_model).save_pretrained(directory)
    return directory


@torch.no_grad()
def hidden_after(teacher: ConditionalMaskedLM, frame: Sequence[int], left: Sequence[int]) -> torch.Tensor:
    """[H], at the last token of `left`, or at `[SEP]`: the plain form of what a left-to-right teacher reads.

    frame: BERT's ids of `[CLS] src [SEP]`, which see each other; left: those of the target so far, which see no later
    one.
    """
    ids = torch.tensor([[*frame, *left]])
    length = ids.shape[1]
    types = (torch.arange(length) >= len(frame)).long()[None]
    sees = torch.ones(length, length).tril().bool()
    sees[:, : len(frame)] = True
    return teacher(ids, types, sees[None], torch.tensor([length - 1]))[0]
