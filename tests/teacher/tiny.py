"""A very small BERT on disk, and conditional models around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertForMaskedLM, BertModel

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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = (BertForMaskedLM if mlm else BertModel)(tiny_config(**changes))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(directory)
    (directory / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return directory
