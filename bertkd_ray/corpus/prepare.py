"""Stage 0, prepare: parallel text to token ids in Parquet, with the student's tokenizer beside them.

The text is cut once into chunks of raw pairs; everything else (normalising, counting words, tokenising, writing) is
mapped over the chunks by the cluster. A chunk becomes one fragment, the unit of work of the later stages.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bertkd_ray.config import Config, SplitFiles
from bertkd_ray.core.artifact import Artifact, Draft, Store, fingerprint
from bertkd_ray.core.console import Progress
from bertkd_ray.core.errors import UserError
from bertkd_ray.corpus.cleaning import ADMITTED, REASONS, admit, count_reasons
from bertkd_ray.corpus.readers import content_hash, read_text_pairs, read_tsv
from bertkd_ray.corpus.segmentation import Segmenter, count_words, normalise
from bertkd_ray.corpus.tokenizer import UNK_ID, build_token_space, encode, load_tokenizer, save_token_space

if TYPE_CHECKING:
    from bertkd_ray.core.runtime import Runtime

SPLITS = ("train", "valid", "test")
TOKENIZER = "tokenizer"

_RAW_SCHEMA = pa.schema([("id", pa.int64()), ("src", pa.string()), ("tgt", pa.string())])
CORPUS_SCHEMA = pa.schema(
    [
        *_RAW_SCHEMA,
        ("src_ids", pa.list_(pa.int32())),
        ("tgt_ids", pa.list_(pa.int32())),
    ]
)


def draft(config: Config, store: Store, tokenizer_hash: str) -> Draft:
    """The corpus artifact to be made; its text enters by content, the BERT by its tokenizer files."""
    corpus = config.corpus
    settings = corpus.model_dump(exclude={"train", "valid", "test", "source", "directory"})
    inputs = {"bert_tokenizer": tokenizer_hash}
    if corpus.source == "demo":
        inputs["demo"] = _demo_hash()
    for split, files in _split_files(config):
        for role, path in files.paths():
            inputs[f"{split}.{role}"] = content_hash(path)
        if files.tsv is not None:
            settings[f"{split}.columns"] = [files.src_column, files.tgt_column]
    return Draft(store, "corpus", fingerprint("corpus", settings, inputs), settings, inputs)


def prepare(work: Draft, config: Config, runtime: Runtime, bert: str) -> Artifact:
    """Makes the corpus artifact.

    bert: directory of the BERT whose tokenizer segments the text. Raises UserError for text that cannot be read, or
    when nothing is left of a split.
    """
    chunks = [chunk for split in SPLITS for chunk in _write_chunks(work, config, split)]
    runtime.start()
    vocabulary_size, tokens_with_unk = _build_tokenizer(work, config, runtime, bert, chunks)
    arguments = {"storage": work.store.uri, "artifact": work.directory, "settings": work.config}
    info: dict[str, Any] = {"vocabulary": vocabulary_size, "splits": {split: Counter() for split in SPLITS}}
    with Progress(len(chunks), "prepare", "fragments") as progress:
        for done, result in enumerate(runtime.map(chunks, _encode_chunk, arguments), start=1):
            info["splits"][result["split"]].update(json.loads(result["counts"]))
            progress.update(done)
    for split, counts in info["splits"].items():
        if counts["pairs"] == 0:
            dropped = ", ".join(f"{counts[reason]} {reason}" for reason in REASONS if counts[reason])
            raise UserError(f"corpus.{split}: no pair is left ({dropped or 'the files are empty'})")
    info["splits"] = {split: dict(counts) for split, counts in info["splits"].items()}
    info["tokens_with_unk"] = tokens_with_unk
    return work.commit(metrics=_metrics(info), info=info)


def _metrics(info: dict[str, Any]) -> dict[str, float]:
    figures: dict[str, float] = {"vocabulary": info["vocabulary"]}
    for split, counts in info["splits"].items():
        figures[f"{split}/pairs"] = counts["pairs"]
        figures[f"{split}/dropped"] = sum(counts.get(reason, 0) for reason in REASONS)
        for side in ("src", "tgt"):
            figures[f"{split}/{side}_tokens"] = counts.get(f"{side}_tokens", 0)
            figures[f"{split}/{side}_unknown"] = counts.get(f"{side}_unknown", 0)
    return figures


def _split_files(config: Config) -> Iterator[tuple[str, SplitFiles]]:
    for split in SPLITS:
        files = config.corpus.files(split)
        if files is not None:
            yield split, files


def _demo_pairs() -> dict[str, list[tuple[str, str]]]:
    # Half a second and some memory that no other corpus needs.
    from bertkd_ray.corpus.demo import demo_corpus

    return demo_corpus()


def _demo_hash() -> str:
    return hashlib.sha256(json.dumps(_demo_pairs(), sort_keys=True).encode()).hexdigest()


def read_split(config: Config, split: str) -> Iterable[tuple[str, str]]:
    """The raw pairs of a split, streamed in the order of the input."""
    if config.corpus.source == "demo":
        return _demo_pairs()[split]
    files = config.corpus.files(split)
    assert files is not None
    if files.tsv is not None:
        return read_tsv(files.tsv, files.src_column, files.tgt_column)
    assert files.src is not None
    assert files.tgt is not None
    return read_text_pairs(files.src, files.tgt)


def _write_chunks(work: Draft, config: Config, split: str) -> list[dict[str, Any]]:
    """Cuts a split into Parquet chunks of raw pairs in the work directory."""
    pairs = enumerate(read_split(config, split))
    chunks: list[dict[str, Any]] = []
    while block := list(islice(pairs, config.corpus.fragment_pairs)):
        name = f"{split}/part-{len(chunks):06d}.parquet"
        columns = [[number for number, _ in block], [src for _, (src, _) in block], [tgt for _, (_, tgt) in block]]
        work.store.write(_parquet(pa.table(columns, schema=_RAW_SCHEMA)), work.work, name)
        chunks.append({"raw": work.store.path(work.work, name), "split": split, "name": name})
    return chunks


def _build_tokenizer(
    work: Draft, config: Config, runtime: Runtime, bert: str, chunks: list[dict[str, Any]]
) -> tuple[int, int]:
    """Counts the words of the training chunks and builds the token space; returns V and the tokens without a piece."""
    counts: Counter[str] = Counter()
    arguments = {"storage": work.store.uri, "lowercase": config.corpus.lowercase}
    train = [chunk for chunk in chunks if chunk["split"] == "train"]
    for result in runtime.map(train, _count_chunk, arguments):
        counts.update(dict(zip(result["words"], result["counts"], strict=True)))
    segmenter = Segmenter.from_pretrained(bert)
    space = build_token_space(counts, segmenter, lowercase=config.corpus.lowercase)
    with tempfile.TemporaryDirectory(prefix="tokenizer-") as directory:
        save_token_space(space, directory)
        work.store.upload(Path(directory), work.directory, TOKENIZER)
    unknown = space.bert_ids == space.bert_ids[UNK_ID]
    return len(space), int(np.count_nonzero(unknown & (space.counts > 0)))


def _read_chunk(store: Store, path: str) -> pa.Table:
    with store.fs.open_input_file(path) as source:
        return pq.read_table(source)


def _count_chunk(chunk: dict[str, Any], storage: str, lowercase: bool) -> dict[str, Any]:
    table = _read_chunk(Store(storage), chunk["raw"])
    texts = (text for side in ("src", "tgt") for text in table[side].to_pylist())
    counts = count_words(normalise(text, lowercase=lowercase) for text in texts)
    return {"words": list(counts.keys()), "counts": list(counts.values())}


def _encode_chunk(chunk: dict[str, Any], storage: str, artifact: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Tokenises a chunk, drops what is not admitted and writes the fragment; returns the counts as JSON."""
    store = Store(storage)
    raw = _read_chunk(store, chunk["raw"])
    with tempfile.TemporaryDirectory(prefix="tokenizer-") as scratch:
        tokenizer = load_tokenizer(Artifact(store, artifact, {}).local(TOKENIZER, Path(scratch)))
    columns: dict[str, Any] = {"id": raw["id"].combine_chunks()}
    ids = {}
    for side in ("src", "tgt"):
        texts = [normalise(text, lowercase=settings["lowercase"]) for text in raw[side].to_pylist()]
        ids[side] = encode(tokenizer, texts)
        columns[side] = pa.array(texts, pa.string())
        columns[f"{side}_ids"] = ids[side].to_arrow(pa.int32())
    table = pa.table(columns).select(CORPUS_SCHEMA.names).cast(CORPUS_SCHEMA)
    counts: Counter[str] = Counter(read=len(table))
    keep = np.ones(len(table), dtype=bool)
    if chunk["split"] != "test":
        # A score is over every line of the test set; training and validation pairs must fit the teacher.
        reasons = admit(
            ids["src"].lengths, ids["tgt"].lengths, settings["max_side_tokens"], settings["max_pair_tokens"]
        )
        keep = reasons == ADMITTED
        counts.update(count_reasons(reasons))
    kept = np.flatnonzero(keep)
    counts["pairs"] = len(kept)
    for side in ("src", "tgt"):
        tokens = ids[side].take(kept).values
        counts[f"{side}_tokens"] = len(tokens)
        counts[f"{side}_unknown"] = int(np.count_nonzero(tokens == UNK_ID))
    if len(kept):
        store.write(_parquet(table.take(pa.array(kept)), settings["group_pairs"]), artifact, chunk["name"])
    return {"split": chunk["split"], "counts": json.dumps(counts)}


def _parquet(table: pa.Table, group_pairs: int = 1 << 20) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=group_pairs, compression="zstd")
    return bytes(sink.getvalue())
