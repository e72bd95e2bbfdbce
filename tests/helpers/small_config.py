"""A small corpus, a small real BERT directory and a configuration around them, for tests that run whole stages."""

from __future__ import annotations

import gzip
from pathlib import Path

import torch
import yaml
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from tests.corpus.berts import trained_cased_bert
from tools.demo_corpus import demo_corpus

ODD_PAIRS = [
    ("Ein @@ Zeichen & ein Emoji 😀.", "An @@ sign & an emoji 😀."),
    ("&", "@@"),
    ("x" * 10_000, "a very long word"),
    ("", "an empty source"),
]
"""Lines that one tool or another chokes on; the last two are dropped from training."""


def write_corpus(
    directory: Path, *, train: int = 240, valid: int = 24, test: int = 20
) -> dict[str, list[tuple[str, str]]]:
    """Line-aligned `.gz` files a split; the odd pairs stand at the end of train."""
    splits = demo_corpus(seed=7, train=train, valid=valid, test=test)
    splits["train"] = splits["train"] + ODD_PAIRS
    directory.mkdir(parents=True, exist_ok=True)
    for split, pairs in splits.items():
        for side, name in enumerate(("de", "en")):
            text = "".join(pair[side] + "\n" for pair in pairs)
            (directory / f"{split}.{name}.gz").write_bytes(gzip.compress(text.encode()))
    return splits


def write_small_bert(directory: Path, splits: dict[str, list[tuple[str, str]]]) -> Path:
    """A two-layer BERT with random weights and a cased WordPiece vocabulary of the corpus."""
    lines = [line for pair in splits["train"] for line in pair]
    tokenizer = trained_cased_bert(lines, 400)
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(directory)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertForMaskedLM(config).save_pretrained(directory)
    return directory


def write_config(directory: Path, **changes: object) -> Path:
    """A configuration that runs in seconds a stage; `changes` are top-level keys."""
    splits = write_corpus(directory / "text")
    bert = write_small_bert(directory / "bert", splits)
    tree = {
        "name": "small",
        "storage": str(directory / "artifacts"),
        "precision": "float32",
        "cpus_per_worker": 1,
        "checkpoint_every": 8,
        "log_every": 1,
        "corpus": {
            "source": "text",
            "directory": str(directory / "text"),
            **{split: {"src": f"{split}.de.gz", "tgt": f"{split}.en.gz"} for split in ("train", "valid", "test")},
            "max_side_tokens": 100,
            "fragment_pairs": 64,
            "group_pairs": 32,
        },
        "teacher": {
            "model": str(bert),
            "steps": 20,
            "batch_tokens": 1024,
            "micro_batches": 2,
            "peak_lr": 1e-3,
            "eval_every": 10,
        },
        "extract": {"forward_tokens": 2048},
        "kd": {"temperature": 2.0, "topk": 4},
        "student": {
            "encoder_layers": 1,
            "decoder_layers": 1,
            "width": 32,
            "ffn": 64,
            "heads": 2,
            "dropout": 0.1,
            "attention_dropout": 0.1,
            "activation_dropout": 0.0,
            "steps": 20,
            "batch_tokens": 512,
            "micro_batches": 2,
            "warmup_steps": 10,
            "eval_every": 10,
        },
        "translate": {"beam": 2, "n_best": 2, "bootstrap_samples": 50},
        **changes,
    }
    path = directory / "small.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path
