"""The shape of a corpus, of one to be made or of a finished one: counts, lengths, size on disk.

Of one to be made, the first pairs of every source are read, and a sample of them goes through what prepare does:
normalising, the rules that need one pair alone, a vocabulary, tokenising. How many pairs there are is counted, or, for
files whose end is far away, worked out from their size. Nothing is written. Not estimated: what duplicates and overlaps
with test take away.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.artifacts.row_groups import RowGroups
from bertkd_ray.config.corpus import SPLITS, CorpusConfig, SplitFiles
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.corpus import tokenizer
from bertkd_ray.corpus.bert_tokenizer import load_bert_tokenizer
from bertkd_ray.corpus.cleaning import KEPT, filter_by_length, filter_by_text
from bertkd_ray.corpus.columnar import parquet_rows
from bertkd_ray.corpus.passes import CORPUS_SCHEMA, normalised_pairs
from bertkd_ray.corpus.readers import open_bytes
from bertkd_ray.corpus.segmentation import Segmenter
from bertkd_ray.corpus.sources import read_sources, weights
from bertkd_ray.corpus.trimming import trimmed
from bertkd_ray.corpus.words import words_of

MAX_PAIRS_READ = 1 << 17
"""Pairs of a source that are read as text; the sample is spread over them."""
SAMPLE_PAIRS = {"train": 1 << 14, "valid": 1 << 11, "test": 1 << 11}
"""Pairs of a split that are tokenised."""
_COUNTED_BYTES = 1 << 30  # of a file without compression; beyond, its size tells how many lines it has
_READ_BYTES = 1 << 22
_SAMPLED_GROUPS = 16

_LENGTH_SIGMA = 0.65
_RATIO_SIGMA = 0.26
"""Standard deviations of the natural logarithms of a pair's size (the geometric mean of its sides) and of its sides'
ratio: IWSLT14 German-English, 11,819 pairs under MiniLM's tokenizer. Multi30k has 0.31 and 0.19."""
_BYTES_A_TOKEN = 3.2
"""Parquet bytes of a corpus, text and ids, a token: the demo 3.2, Multi30k 3.2."""

_BYTES_A_VOCABULARY_TOKEN = 39
"""Bytes of the tokenizer's files a token."""


@dataclass(frozen=True, eq=False)
class SplitShape:
    """The shape of a split: its pairs, and the lengths of some of them in tokens, without special tokens."""

    pairs: int
    src: NDArray[np.int64]
    """int64[n], of a sample of n pairs."""
    tgt: NDArray[np.int64]
    """int64[n], of the same pairs."""

    @property
    def src_tokens(self) -> float:
        """Source tokens of all pairs."""
        return self.pairs * float(self.src.mean()) if len(self.src) else 0.0

    @property
    def tgt_tokens(self) -> float:
        """Target tokens of all pairs."""
        return self.pairs * float(self.tgt.mean()) if len(self.tgt) else 0.0


@dataclass(frozen=True)
class CorpusShape:
    """A corpus as far as its cost depends on it."""

    splits: dict[str, SplitShape]
    vocabulary: int
    """Tokens of the student."""
    bytes: float
    """Size of all files."""
    basis: str
    """The source of the figures, for people to read."""
    is_estimate: bool


def shape_of_artifact(corpus: Artifact) -> CorpusShape:
    """The shape of a finished corpus: counts from its manifest, lengths from some of its row groups."""
    counts = corpus.info["splits"]
    splits = {}
    for split in SPLITS:
        groups = RowGroups(corpus, f"{split}/", ["src_ids", "tgt_ids"])
        spread = np.linspace(0, len(groups.rows), _SAMPLED_GROUPS, endpoint=False).astype(np.int64)
        table = groups.read(np.unique(spread))
        src, tgt = (Ragged.from_arrow(table[name]).lengths for name in ("src_ids", "tgt_ids"))
        splits[split] = SplitShape(int(counts[split]["pairs"]), src, tgt)
    size = sum(entry.bytes for entry in corpus.files)
    return CorpusShape(splits, int(corpus.info["vocabulary"]), size, f"{corpus.directory} is finished", False)


def shape_as_given(pairs: int, src_tokens: float, tgt_tokens: float, vocabulary: int, held: int) -> CorpusShape:
    """The shape of a corpus of which only the number of pairs and the mean lengths in tokens are known.

    held: pairs of valid and of test. The lengths are spread as TED talks are: log-normal, the sides in proportion but
    for a log-normal ratio. Raises UserError for numbers below 1 or beyond 1e10.
    """
    sizes = {"pairs": pairs, "src-tokens": src_tokens, "tgt-tokens": tgt_tokens, "vocabulary": vocabulary, "held": held}
    for option, value in sizes.items():
        most = 1e5 if option.endswith("tokens") else 1e10
        if not 1 <= value <= most:
            raise UserError(f"--{option} {value:g}: give 1 or more, at most {most:g}")
    src, tgt = _spread_lengths(src_tokens, tgt_tokens)
    splits = {split: SplitShape(pairs if split == "train" else held, src, tgt) for split in SPLITS}
    size = _BYTES_A_TOKEN * sum(split.src_tokens + split.tgt_tokens for split in splits.values())
    size += _BYTES_A_VOCABULARY_TOKEN * vocabulary
    basis = f"as given: {pairs:,} pairs of {src_tokens:g} and {tgt_tokens:g} tokens, spread as those of TED talks"
    return CorpusShape(splits, vocabulary, size, basis, True)


def shape_of_text(corpus: CorpusConfig, bert: str) -> CorpusShape:
    """The shape of the corpus that prepare would make of a configuration's text.

    bert: directory of the BERT whose tokenizer segments it. Raises UserError for text that cannot be read, and for a
    split of which nothing in the sample is left.
    """
    samples = {split: sample_split(corpus, split) for split in SPLITS if split not in corpus.held_out()}
    bert_tokenizer = load_bert_tokenizer(bert)
    pieces = bert_tokenizer.tokenizer.get_vocab_size(with_added_tokens=False)
    segmenter = Segmenter(bert_tokenizer)
    vocabulary, vocabulary_size = _vocabulary(samples["train"], segmenter, pieces, lowercase=corpus.lowercase)
    if corpus.max_vocabulary is not None:
        vocabulary = trimmed(vocabulary, corpus.max_vocabulary, segmenter)
        vocabulary_size = min(vocabulary_size, corpus.max_vocabulary)
    student_tokenizer = vocabulary.tokenizer()
    splits, size = {}, float(_BYTES_A_VOCABULARY_TOKEN * vocabulary_size)
    for split, sample in samples.items():
        ids = {side: tokenizer.encode(student_tokenizer, sample.text[side].to_pylist()) for side in ("src", "tgt")}
        kept = np.arange(len(sample.text))
        if split != "test":
            lengths = ids["src"].lengths, ids["tgt"].lengths
            kept = np.flatnonzero(filter_by_length(*lengths, corpus.max_side_tokens, corpus.max_pair_tokens) == KEPT)
        if not len(kept):
            raise _none_left(split, len(sample.text))
        pairs = sample.pairs * len(kept) / len(sample.text)
        src, tgt = ids["src"].take(kept), ids["tgt"].take(kept)
        splits[split] = SplitShape(round(pairs), src.lengths, tgt.lengths)
        size += pairs * _bytes_a_pair(sample.text.take(pa.array(kept)), src, tgt)
    train, shares = splits["train"], corpus.held_out()
    for split, share in {**shares, "train": 1 - sum(shares.values())}.items():
        splits[split] = replace(train, pairs=round(share * train.pairs))
    sampled, about = samples["train"], "" if samples["train"].is_counted else "about "
    basis = f"an estimate, from {len(sampled.text):,} of {about}{sampled.read:,} training pairs"
    return CorpusShape({split: splits[split] for split in SPLITS}, vocabulary_size, size, basis, True)


@dataclass(frozen=True)
class SampleStats:
    """A sample of a split's text, and the counts of the text that it stands for."""

    text: pa.Table
    """A sample of the pairs that no rule drops for their text: `src` and `tgt`, normalised."""
    pairs: float
    """Pairs of the whole split that no rule drops for their text, copies of weighted sources among them."""
    read: int
    """Pairs of all sources."""
    is_counted: bool
    """Whether `read` is counted, not worked out from a file's size."""


def sample_split(corpus: CorpusConfig, split: str) -> SampleStats:
    """A sample of the text of a split, in which each source has its share. Raises as `shape_of_text`."""
    sources: list[SplitFiles | None] = [*corpus.sources(split)] or [None]
    heads = [_head_of_source(tables, files) for tables, files in zip(read_sources(corpus, split), sources, strict=True)]
    factors = weights(corpus) if split == "train" else [1.0]
    pairs = np.asarray([rows * factor for (_, rows, _), factor in zip(heads, factors, strict=True)])
    if not pairs.sum():
        raise UserError(f"corpus.{split}: the files are empty; give at least one pair")
    parts = []
    for (table, _, _), share in zip(heads, pairs / pairs.sum(), strict=True):
        wanted = min(len(table), math.ceil(SAMPLE_PAIRS[split] * share))
        parts.append(table.take(pa.array(np.linspace(0, len(table), wanted, endpoint=False).astype(np.int64))))
    text = normalised_pairs(pa.concat_tables(parts), corpus)
    reasons = filter_by_text(text["src"], text["tgt"], corpus.clean)
    kept = text.filter(pa.array(reasons == KEPT)) if split != "test" else text
    if not len(kept):
        raise _none_left(split, len(text))
    counted = all(is_counted for _, _, is_counted in heads)
    return SampleStats(kept, float(pairs.sum()) * len(kept) / len(text), sum(rows for _, rows, _ in heads), counted)


def _none_left(split: str, sampled: int) -> UserError:
    return UserError(
        f"corpus.{split}: no pair of the {sampled} looked at is left; loosen corpus.clean and corpus.max_side_tokens"
    )


def _head_of_source(tables: Iterator[pa.Table], files: SplitFiles | None) -> tuple[pa.Table, int, bool]:
    """The first pairs of a source, how many it has, and whether these are counted."""
    first: list[pa.Table] = []
    rows = 0
    for table in tables:
        if rows < MAX_PAIRS_READ:
            first.append(table)
        rows += len(table)
        if rows >= MAX_PAIRS_READ and files is not None:
            if files.parquet is not None:
                return pa.concat_tables(first), parquet_rows(files.parquet), True
            if (path := files.src or files.tsv or files.jsonl) is not None:
                return pa.concat_tables(first), *count_lines(path)
    if not first:
        paths = ", ".join(path for _, path in files.paths()) if files else "corpus"
        raise UserError(f"{paths}: the files are empty; give at least one pair")
    return pa.concat_tables(first), rows, True


def count_lines(path: str) -> tuple[int, bool]:
    """The lines of a file, and whether they are counted; of a large one without compression its size tells.

    Raises UserError as `open_bytes`.
    """
    lines = bytes_read = 0
    last = b""
    with open_bytes(path) as stream:
        while data := stream.read(_READ_BYTES):
            lines += data.count(b"\n")
            bytes_read += len(data)
            last = data[-1:]
            if bytes_read >= _COUNTED_BYTES and stream.seekable():  # what is packed is not
                size = stream.seek(0, os.SEEK_END)
                return round(lines * size / bytes_read), size == bytes_read
    return lines + (last not in (b"", b"\n")), True


def _vocabulary(
    sample: SampleStats, segmenter: Segmenter, bert_pieces: int, *, lowercase: bool
) -> tuple[tokenizer.Vocabulary, int]:
    """The vocabulary of the sample, and the size of that of all the text.

    A text's vocabulary grows as a power of its length (Heaps' law); the exponent is that of the sample's second half.
    There cannot be more tokens a piece than now for each of BERT's pieces.
    """
    counter = tokenizer.PieceCounter(segmenter)
    vocabularies: list[tokenizer.Vocabulary] = []
    pieces_met = 1
    # Every other pair, not the first half, which may be of another source.
    for step in (2, 1):
        text = sample.text.take(pa.array(np.arange(0, len(sample.text), step)))
        words = words_of(pa.concat_arrays([*text["src"].chunks, *text["tgt"].chunks]))
        pieces = tokenizer.pieces_of(counter.table(words.distinct, words.counts()))
        characters = set("".join(words.distinct))
        vocabularies.append(tokenizer.build_vocabulary(pieces, characters, segmenter, lowercase=lowercase))
        pieces_met = len({piece.bert_id for piece in pieces})
    half, whole = map(len, vocabularies)
    grown = whole * max(1.0, sample.pairs / len(sample.text)) ** math.log2(max(1.0, whole / half))
    most = whole * max(1.0, bert_pieces / pieces_met)
    multiple = tokenizer.VOCABULARY_MULTIPLE
    return vocabularies[1], math.ceil(min(grown, most) / multiple) * multiple


def _bytes_a_pair(text: pa.Table, src: Ragged, tgt: Ragged) -> float:
    """Parquet bytes a pair takes, as prepare writes it."""
    columns = [np.arange(len(text)), text["src"], text["tgt"], src.to_arrow(pa.int32()), tgt.to_arrow(pa.int32())]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, schema=CORPUS_SCHEMA), sink, compression="zstd", row_group_size=1024)
    return len(sink.getvalue()) / len(text)


def _spread_lengths(src_tokens: float, tgt_tokens: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """int64[n] each, with these means: evenly spaced quantiles, so that they are the same every time."""
    normal = NormalDist()
    pairs = SAMPLE_PAIRS["train"]
    steps = (np.arange(pairs) + 0.5) / pairs
    size = np.asarray([normal.inv_cdf(share) for share in steps])
    # Multiples of the golden ratio fill the unit interval evenly, in an order that has nothing to do with the sizes.
    ratio = np.asarray([normal.inv_cdf(share) for share in (steps[0] + np.arange(pairs) * (math.sqrt(5) - 1) / 2) % 1])
    sides = []
    for mean, half in ((src_tokens, 0.5), (tgt_tokens, -0.5)):
        spread = np.exp(_LENGTH_SIGMA * size + half * _RATIO_SIGMA * ratio)
        sides.append(np.maximum(1, np.rint(mean * spread / spread.mean())).astype(np.int64))
    return sides[0], sides[1]
