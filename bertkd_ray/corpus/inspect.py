"""The figures of a prepared corpus: counts, lengths, unknown tokens and a few of its pairs, streamed in bounded memory.

A corpus of any size is read row group by row group. What is kept of it is how many pairs have each (source length,
target length): at most as many numbers as the square of the longest side.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bertkd_ray.artifacts.artifact import Artifact, load_finished
from bertkd_ray.artifacts.manifest import MANIFEST
from bertkd_ray.artifacts.row_groups import RowGroups
from bertkd_ray.artifacts.store import store_above
from bertkd_ray.config import dotted
from bertkd_ray.config.corpus import SPLITS
from bertkd_ray.core.console import Progress, log
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.keyed_random import keyed_uniform
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.core.redaction import redacted
from bertkd_ray.corpus.cleaning import REASONS, word_counts
from bertkd_ray.corpus.passes import TOKENIZER
from bertkd_ray.corpus.segmentation import WORD_START
from bertkd_ray.corpus.tokenizer import BERT_IDS_FILE, UNK_ID, types_by_count

SIDES = ("src", "tgt")
_SAMPLES = 10
_EXAMPLES = 10
_PAIR_COLUMNS = ["src", "tgt", "src_ids", "tgt_ids"]


@dataclass(frozen=True, eq=False)
class LengthCounts:
    """Pairs by (source length, target length) in tokens: int64[u] each, u distinct length pairs."""

    src: NDArray[np.int64]
    tgt: NDArray[np.int64]
    pairs: NDArray[np.int64]

    @classmethod
    def of(cls, pairs: Counter[tuple[int, int]]) -> LengthCounts:
        """The counts of a counter of pairs by (source length, target length)."""
        src, tgt = np.array(list(pairs), np.int64).reshape(-1, 2).T
        return cls(src, tgt, np.fromiter(pairs.values(), np.int64, len(pairs)))

    def histogram(self, side: str) -> NDArray[np.int64]:
        """int64[longest + 1]: how many sentences of a side (`src`, `tgt`) have each length."""
        return np.bincount(getattr(self, side), weights=self.pairs).astype(np.int64)

    def ratios(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Source tokens a target token, and how many pairs have it, [r] each; pairs with an empty side are left out."""
        full = (self.src > 0) & (self.tgt > 0)
        return self.src[full] / self.tgt[full], self.pairs[full]

    @property
    def with_empty_side(self) -> int:
        """Pairs of which a side has no token."""
        return int(self.pairs[(self.src == 0) | (self.tgt == 0)].sum())


@dataclass(frozen=True)
class SideFigures:
    """The figures of one side of a split; a rate is None where there is nothing to divide by."""

    tokens: int
    words: int
    """What stands between white space."""
    tokens_per_word: float | None
    characters_per_token: float | None
    """Characters of the text, spaces included."""
    length: dict[str, float]
    """Tokens a sentence: mean, median, p95, max."""
    unknown: int
    """Unknown tokens."""
    unknown_rate: float | None


@dataclass(frozen=True)
class SplitFigures:
    """The figures of one split."""

    pairs: int
    read: int
    dropped: dict[str, int]
    """Pairs by reason, as the manifest has them."""
    counted: dict[str, int]
    """Other counts of the manifest."""
    with_empty_side: int
    """Pairs of which a side has no token."""
    src: SideFigures
    tgt: SideFigures
    lengths: LengthCounts
    ratio: dict[str, float]
    """Source tokens a target token: p1, p5, median, p95, p99; empty where every pair has an empty side."""
    unknown_characters: dict[str, int]
    """Characters that train lacks, in the sentences with unknown tokens, the most frequent first."""


@dataclass(frozen=True)
class VocabularyFigures:
    """The figures of the student's vocabulary."""

    tokens: int
    """Size, special tokens and fillers included."""
    without_piece: int
    """Tokens of the training text that BERT knows only as [UNK]."""
    without_piece_rate: float | None
    """Share of the tokens without a piece in the training text."""
    examples: list[str]
    """The most frequent tokens without a piece."""
    types: dict[str, int]
    """Types by occurrences in the training text, in the ranges of `TYPES_BY_COUNT`."""
    untrimmed: dict[str, Any]
    """Where the vocabulary was trimmed (`corpus.max_vocabulary`): `vocabulary` and `types` as they were before."""


@dataclass(frozen=True)
class SamplePair:
    """A training pair as text and as tokens."""

    id: int
    src: str
    tgt: str
    src_tokens: list[str]
    tgt_tokens: list[str]


@dataclass(frozen=True)
class CorpusFigures:
    """The figures of a whole corpus."""

    path: str
    fingerprint: str
    languages: dict[str, str]
    """ISO 639-1 by side (`src`, `tgt`), where the manifest names them."""
    vocabulary: VocabularyFigures
    splits: dict[str, SplitFigures]
    seed: int
    samples: list[SamplePair]

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints; the histograms are left to the figure."""
        tree = asdict(self)
        for split in tree["splits"].values():
            del split["lengths"]
        return tree

    def metrics(self) -> dict[str, float]:
        """Every number by its path, `test/src/unknown_rate`; what could not be computed is left out."""
        tree = self.as_json()
        for split in tree["splits"].values():
            del split["unknown_characters"]
        values = dotted({"vocabulary": tree["vocabulary"], **tree["splits"]})
        return {key.replace(".", "/"): value for key, value in values if isinstance(value, int | float)}


def open_corpus(directory: str) -> Artifact:
    """The corpus artifact in a directory or at a URI, every file of it checked against its manifest.

    Raises UserError when there is none, it is another kind of artifact, or a file is not what the manifest says.
    """
    store, name = store_above(directory)
    display_uri = redacted(directory)
    corpus = load_finished(store, name)
    if corpus is None:
        # Perhaps a storage directory was taken for one of the corpora in it.
        names = [file.rpartition("/")[0] for file, _ in store.files(name) if file.endswith(f"/{MANIFEST}")]
        corpora = ", ".join([f"{name}/{inner}" for inner in names if inner.startswith("corpus-")][:3])
        wanted = f"one of {corpora}" if corpora else "a CONFIG.yaml or the directory of a corpus artifact"
        raise UserError(f"{display_uri}: no finished corpus is here; give {wanted}")
    if corpus.stage != "corpus":
        raise UserError(f"{display_uri}: is a {corpus.stage}, not a corpus; give the directory of a corpus artifact")
    log(f"checking {name} against its manifest", stage="inspect")
    corpus.require_intact("copy the corpus again, or move it elsewhere and run prepare")
    return corpus


def corpus_figures(corpus: Artifact, *, seed: int) -> CorpusFigures:
    """The figures of a finished corpus and ten of its training pairs, which depend on the seed alone."""
    settings = corpus.config
    table = pq.read_table(pa.BufferReader(corpus.store.read(corpus.directory, TOKENIZER, BERT_IDS_FILE)))
    # Tokens stand in the order of their counts.
    tokens, bert_ids, counts = table["token"].to_pylist(), table["bert_id"].to_numpy(), table["count"].to_numpy()
    without = np.flatnonzero((bert_ids == bert_ids[UNK_ID]) & (counts > 0))
    rate = _rate(int(counts[without].sum()), int(counts.sum()))
    characters = [token[1] for token in tokens if len(token) == 2 and token[0] == WORD_START]
    known = str.maketrans("", "", "".join([" ", *characters]))
    total = sum(entry.rows for split in SPLITS for entry in corpus.files_below(f"{split}/"))
    splits: dict[str, SplitFigures] = {}
    with Progress(total, "inspect", "pairs") as progress:
        done = 0
        for split in SPLITS:
            splits[split] = _split_figures(corpus, split, known, progress, done)
            done += splits[split].pairs
    return CorpusFigures(
        path=corpus.display_uri,
        fingerprint=corpus.fingerprint,
        languages={side: settings[f"{side}_lang"] for side in SIDES if f"{side}_lang" in settings},
        vocabulary=VocabularyFigures(
            tokens=len(table),
            without_piece=len(without),
            without_piece_rate=rate,
            examples=[tokens[index] for index in without[:_EXAMPLES]],
            types=types_by_count(tokens, counts),
            untrimmed=corpus.info.get("untrimmed", {}),
        ),
        splits=splits,
        samples=list(_samples(corpus, tokens, seed)),
        seed=seed,
    )


def _split_figures(
    corpus: Artifact, split: str, known: dict[int, int | None], progress: Progress, done: int
) -> SplitFigures:
    sums = {side: Counter[str]() for side in SIDES}
    length_pairs: Counter[tuple[int, int]] = Counter()
    unknown_characters: Counter[str] = Counter()
    groups = RowGroups(corpus, f"{split}/", _PAIR_COLUMNS)
    for number in range(len(groups.rows)):
        group = groups.read(np.array([number]))
        ids = {side: Ragged.from_arrow(group[f"{side}_ids"]) for side in SIDES}
        length_pairs.update(zip(ids["src"].lengths.tolist(), ids["tgt"].lengths.tolist(), strict=True))
        for side in SIDES:
            unknown = np.flatnonzero(ids[side].values == UNK_ID)
            characters = pc.sum(pc.utf8_length(group[side])).as_py() or 0
            sums[side].update(words=int(word_counts(group[side]).sum()), characters=characters, unknown=len(unknown))
            rows = np.unique(np.searchsorted(ids[side].offsets, unknown, side="right") - 1)
            unknown_characters.update("".join(group[side].take(pa.array(rows)).to_pylist()).translate(known))
        done += len(group)
        progress.update(done)
    lengths = LengthCounts.of(length_pairs)
    counts: dict[str, int] = dict(corpus.info["splits"][split])
    own_fields = {"pairs", "read", *(f"{side}_{name}" for side in SIDES for name in ("tokens", "unknown"))}
    return SplitFigures(
        pairs=length_pairs.total(),
        read=counts["read"],
        dropped={reason: counts[reason] for reason in REASONS if reason in counts},
        counted={name: count for name, count in counts.items() if name not in own_fields.union(REASONS)},
        with_empty_side=lengths.with_empty_side,
        src=_side_figures(sums["src"], lengths.histogram("src")),
        tgt=_side_figures(sums["tgt"], lengths.histogram("tgt")),
        lengths=lengths,
        ratio=_quantiles(*lengths.ratios(), {"p1": 0.01, "p5": 0.05, "median": 0.5, "p95": 0.95, "p99": 0.99}),
        unknown_characters=dict(unknown_characters.most_common(_EXAMPLES)),
    )


def _side_figures(sums: Counter[str], histogram: NDArray[np.int64]) -> SideFigures:
    values = np.arange(len(histogram))
    tokens, sentences = int(values @ histogram), int(histogram.sum())
    length = {
        "mean": tokens / sentences,
        **_quantiles(values.astype(np.float64), histogram, {"median": 0.5, "p95": 0.95, "max": 1.0}),
    }
    return SideFigures(
        tokens=tokens,
        words=sums["words"],
        tokens_per_word=_rate(tokens, sums["words"]),
        characters_per_token=_rate(sums["characters"], tokens),
        length=length,
        unknown=sums["unknown"],
        unknown_rate=_rate(sums["unknown"], tokens),
    )


def _quantiles(values: NDArray[np.float64], counts: NDArray[np.int64], wanted: dict[str, float]) -> dict[str, float]:
    """Nearest-rank quantiles of counted values: the smallest value that so large a share does not exceed."""
    if not len(values):
        return {}
    quantiles = np.quantile(values, list(wanted.values()), weights=counts, method="inverted_cdf")
    return dict(zip(wanted, quantiles.tolist(), strict=True))


def _samples(corpus: Artifact, tokens: list[str], seed: int) -> Iterator[SamplePair]:
    """Pairs of train in the order of the corpus; only the row groups that hold them are read."""
    groups = RowGroups(corpus, "train/", ["id", *_PAIR_COLUMNS])
    ends = np.cumsum(groups.rows)
    positions = _draw(int(ends[-1]), _SAMPLES, seed)
    group_of = np.searchsorted(ends, positions, side="right")
    for group in np.unique(group_of):
        table = groups.read(np.array([group]))
        for row in table.take(pa.array(positions[group_of == group] - (ends[group] - len(table)))).to_pylist():
            ids = {f"{side}_tokens": [tokens[token] for token in row[f"{side}_ids"]] for side in SIDES}
            yield SamplePair(row["id"], row["src"], row["tgt"], **ids)


def _draw(total: int, count: int, seed: int) -> NDArray[np.int64]:
    """`count` different positions below `total` (all, where there are no more), sorted."""
    drawn: set[int] = set()
    attempts = itertools.count()
    while len(drawn) < min(count, total):
        drawn.add(int(keyed_uniform(seed, next(attempts))[0] * total))
    return np.array(sorted(drawn), np.int64)


def _rate(count: int, of: int) -> float | None:
    return count / of if of else None
