"""A corpus artifact written by hand, token by token, so that its figures can be counted on paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact, fingerprint
from bertkd_ray.artifacts.store import Store

Pair = tuple[str, list[str], str, list[str]]
"""Source text and tokens, target text and tokens."""

SPECIAL = ["<pad>", "<unk>", "<s>", "</s>"]
TRAIN: list[Pair] = [
    ("ab a.", ["▁a", "##b", "▁a", "."], "b", ["▁b"]),
    ("a", ["▁a"], "ab", ["▁a", "##b"]),
    ("שלום a", ["▁שלום", "▁a"], "b b", ["▁b", "▁b"]),
]
VALID: list[Pair] = [("a", ["▁a"], "x b", ["<unk>", "▁b"])]
TEST: list[Pair] = [("", [], "b", ["▁b"]), ("a a a", ["▁a"] * 3, "ž ž", ["<unk>", "<unk>"])]
UNKNOWN_TO_BERT = ["▁שלום"]


def write_corpus_artifact(
    storage: Path,
    *,
    train: list[Pair] = TRAIN,
    valid: list[Pair] = VALID,
    test: list[Pair] = TEST,
    counts: dict[str, dict[str, int]] | None = None,
    config: dict[str, Any] | None = None,
    first_test_id: int = 0,
    id_step: int = 10,
) -> Artifact:
    """A finished corpus in fragments of four pairs and row groups of two; `counts` goes into the manifest by split."""
    store = Store(str(storage))
    work = PendingArtifact(store, "corpus", fingerprint("corpus", {"storage": storage.name}, {}), config or {}, {})
    splits = {"train": train, "valid": valid, "test": test}
    seen = [token for source in train for tokens in (source[1], source[3]) for token in tokens]
    letters = sorted({f"▁{character}" for pair in train for text in (pair[0], pair[2]) for character in text} - {"▁ "})
    tokens = list(dict.fromkeys([*SPECIAL, *sorted(seen, key=lambda token: (-seen.count(token), token)), *letters]))
    _write(
        store,
        {
            "token": tokens,
            "bert_id": pa.array(
                [100 if t in ("<unk>", *UNKNOWN_TO_BERT) else 200 + i for i, t in enumerate(tokens)], "int32"
            ),
            "count": pa.array([seen.count(token) for token in tokens], "int64"),
        },
        f"{work.directory}/tokenizer/bert_ids.parquet",
    )
    for split, pairs in splits.items():
        first_id = first_test_id if split == "test" else 0
        for first in range(0, len(pairs), 4):
            part = pairs[first : first + 4]
            ids = [
                pa.array([[tokens.index(t) for t in pair[side]] for pair in part], pa.list_(pa.int32()))
                for side in (1, 3)
            ]
            _write(
                store,
                {
                    "id": [first_id + id_step * (first + row) for row in range(len(part))],
                    "src": pa.array([pair[0] for pair in part], "string"),
                    "tgt": pa.array([pair[2] for pair in part], "string"),
                    "src_ids": ids[0],
                    "tgt_ids": ids[1],
                },
                f"{work.directory}/{split}/fragment-{first // 4:06d}.parquet",
            )
    info = {"splits": {split: {"pairs": len(pairs), "read": len(pairs)} for split, pairs in splits.items()}}
    for split, more in (counts or {}).items():
        info["splits"][split].update(more)
    metrics = {f"{split}/pairs": len(pairs) for split, pairs in splits.items()}
    return work.commit(made=["tokenizer", *splits], metrics=metrics, info=info)


def _write(store: Store, columns: dict[str, Any], path: str) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, row_group_size=2)
    store.write(bytes(sink.getvalue()), path)
