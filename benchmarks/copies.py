"""A corpus grown by copies of its own pairs under new ids, with a short valid split: for what depends on size alone."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact, find, fingerprint
from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.corpus.passes import TOKENIZER

GROUP_PAIRS = 256
COLUMNS = ["id", "src", "tgt", "src_ids", "tgt_ids"]


def grown(corpus: Artifact, copies: int, *, fragment_pairs: int = 2048, valid_pairs: int = 64) -> Artifact:
    """A corpus artifact in the same store, made once: `copies` times the training pairs, each copy with ids of its own.

    Row groups have `GROUP_PAIRS` pairs, as those of a corpus that `prepare` makes with the same setting.
    """
    settings = {"copies": copies, "fragment_pairs": fragment_pairs, "valid_pairs": valid_pairs, "group": GROUP_PAIRS}
    inputs = {"corpus": corpus.fingerprint}
    digest = fingerprint("corpus", settings, inputs)
    if finished := find(corpus.store, "corpus", digest, checksums=False):
        return finished
    work = PendingArtifact(corpus.store, "corpus", digest, settings, inputs)
    train, valid = corpus.read_table("train/", COLUMNS), corpus.read_table("valid/", COLUMNS).slice(0, valid_pairs)
    step = int(pc.max(train["id"]).as_py()) + 1
    for copy in range(copies):
        ids = pa.array(train["id"].to_numpy() + copy * step)
        pairs = train.set_column(train.schema.get_field_index("id"), "id", ids)
        for start in range(0, len(pairs), fragment_pairs):
            name = f"train/fragment-{copy:04d}{start // fragment_pairs:06d}.parquet"
            _write(work, pairs.slice(start, fragment_pairs), name)
    _write(work, valid, "valid/fragment-000000.parquet")
    _write(work, valid, "test/fragment-000000.parquet")
    with scratch_directory("tokenizer-") as scratch:
        corpus.store.upload(corpus.local(TOKENIZER, scratch), work.directory, TOKENIZER)
    metrics = {**corpus.metrics, "train/pairs": copies * len(train), "valid/pairs": len(valid)}
    return work.commit(made=[TOKENIZER, "train", "valid", "test"], metrics=metrics, info=corpus.info)


def _write(work: PendingArtifact, table: pa.Table, name: str) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=GROUP_PAIRS, compression="zstd")
    work.store.write(bytes(sink.getvalue()), work.directory, name)
