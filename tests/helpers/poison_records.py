"""Poison records: sentence pairs that no model can compute, and processes that they kill."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact

NO_TOKEN = 60_000
"""A token id beyond the vocabularies of the tests."""


def with_poison_records(
    corpus: Artifact, split: str, column: str, rows: Iterable[int], fingerprint: str
) -> tuple[Artifact, list]:
    """A copy of a corpus in which some rows of a split end in `NO_TOKEN`, and the ids of these rows.

    rows: counted over the split; column: `src_ids` or `tgt_ids`.
    """
    store, rows = corpus.store, set(rows)
    pending = PendingArtifact(store, "corpus", fingerprint, corpus.config, corpus.inputs)
    ids, first = [], 0
    for entry in corpus.files:
        data = store.read(corpus.directory, entry.path)
        if entry.path.startswith(f"{split}/"):
            table = pq.read_table(pa.BufferReader(data))
            here = [row - first for row in sorted(rows) if 0 <= row - first < len(table)]
            ids += table["id"].take(pa.array(here, pa.int64())).to_pylist()
            first += len(table)
            data = _parquet_bytes(_with_no_token(table, column, here), entry.row_groups)
        store.write(data, pending.directory, entry.path)
    names = [entry.path for entry in corpus.files]
    return pending.commit(made=names, metrics=corpus.metrics, info=corpus.info), ids


def _with_no_token(table: pa.Table, column: str, rows: list[int]) -> pa.Table:
    tokens = table[column].to_pylist()
    for row in rows:
        tokens[row][-1] = NO_TOKEN
    place = table.column_names.index(column)
    return table.set_column(place, column, pa.array(tokens, table.schema.field(column).type))


def _parquet_bytes(table: pa.Table, groups: list[int]) -> bytes:
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema) as writer:
        for start, rows in zip(np.cumsum([0, *groups]).tolist(), groups, strict=False):
            writer.write_table(table.slice(start, rows), row_group_size=rows)
    return bytes(sink.getvalue())


def kill_on_poison_records() -> None:
    """Makes `NO_TOKEN` in a target kill this process, where the teacher's batches are made; a Ray worker's setup hook.

    Imports nothing that a worker without a teacher would not have.
    """
    from bertkd_ray.teacher import masking

    original = masking.cmlm_batch

    def cmlm_batch(src: Any, tgt: Any, *rest: Any) -> Any:
        if NO_TOKEN in tgt.values:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(src, tgt, *rest)

    masking.cmlm_batch = cmlm_batch


def pending_on_corpus(corpus: Artifact, pending: PendingArtifact, fingerprint: str) -> PendingArtifact:
    """The pending artifact of the same stage on another corpus."""
    return replace(pending, fingerprint=fingerprint, inputs={**pending.inputs, "corpus": corpus.fingerprint})


def artifact_bytes(directory: str) -> dict[str, bytes]:
    """The files of an artifact but its manifest, whose times differ."""
    return {path.name: path.read_bytes() for path in Path(directory).iterdir() if path.name != "manifest.json"}
