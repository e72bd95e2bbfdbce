"""Where arms differ from the control: BLEU by length of the source and by frequency of the reference's tokens.

Tokens are the student's, of the corpus that the control was trained on; frequencies are of the target side of its
training text. How buckets are made and compared: `evaluation.buckets`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.artifacts.row_groups import RowGroups
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.core.text_tables import TableRow, format_number, format_p
from bertkd_ray.report.frame import COLORS, Panel, label_axes, styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bertkd_ray.evaluation.buckets import BucketScores

BucketTables = dict[str, list["BucketScores"]]
"""Scores by what the sentences are sorted by, a key of `TITLES`; empty where too few sentences are compared."""
TITLES = {
    "source_length": ("By source length", "source tokens"),
    "reference_frequency": ("By frequency of the reference's tokens", "mean training frequency"),
}
"""Title and unit of each table."""
MOST_PAIRS = 1_000_000
"""Training pairs among which tokens are counted; of more, those of row groups all over them."""


def bucket_tables(
    corpus: Artifact,
    translations: pa.Table,
    counts: Mapping[str, Sequence[NDArray[np.int64]]],
    control: str,
    *,
    samples: int,
) -> BucketTables:
    """BLEU of every arm by source length and by frequency of the reference's tokens, against the control.

    corpus: with the sentences of the table of translations in its test split. counts, samples: see `bleu_by_bucket`;
    counts in the rows of the table, the control's among them.
    """
    from bertkd_ray.evaluation.buckets import bleu_by_bucket, mean_frequencies, quantile_buckets

    groups = RowGroups(corpus, "test/", ["id", "src_ids", "tgt_ids"])
    test = groups.read(np.arange(len(groups.rows)))
    positions = {number: position for position, number in enumerate(test["id"].to_pylist())}
    test = test.take([positions[number] for number in translations["id"].to_pylist()])
    frequencies = mean_frequencies(Ragged.from_arrow(test["tgt_ids"]), token_frequencies(corpus))
    values = (Ragged.from_arrow(test["src_ids"]).lengths, frequencies)
    tables = {
        name: bleu_by_bucket(counts, control, quantile_buckets(of_sentences), samples=samples)
        for name, of_sentences in zip(TITLES, values, strict=True)
    }
    return {name: scores for name, scores in tables.items() if scores}


def token_frequencies(corpus: Artifact, *, most: int = MOST_PAIRS) -> NDArray[np.int64]:
    """How often each token stands in the target side of the training text, int64[V].

    Of more than `most` pairs, the counts in so many, multiplied by how many times as many there are.
    """
    groups = RowGroups(corpus, "train/", ["tgt_ids"])
    every = math.ceil(int(groups.rows.sum()) / most)
    tokens = Ragged.from_arrow(groups.read(np.arange(0, len(groups.rows), every))["tgt_ids"]).values
    return every * np.bincount(tokens, minlength=int(corpus.info["vocabulary"]))


def bucket_label(scores: BucketScores) -> str:
    """Least and greatest value of a bucket: `3–8`."""
    low, high = (f"{value:,.0f}" for value in (scores.low, scores.high))
    return low if low == high else f"{low}–{high}"


def bucket_table(name: str, tables: BucketTables) -> list[TableRow]:
    """One line a bucket: its sentences, the control's BLEU, and each other arm's difference with interval and p."""
    first = tables[name][0]
    arms = list(first.differences)
    (control,) = set(first.bleu).difference(arms)
    rows = [[TITLES[name][1], "sentences", control, *(part for arm in arms for part in (f"Δ {arm}", "95%", "p"))]]
    for scores in tables[name]:
        cells = [bucket_label(scores), f"{scores.sentences:,}", format_number(scores.bleu[control], ".2f")]
        for arm in arms:
            of = scores.differences[arm]
            low, high = (format_number(end, "+z.2f") for end in of.interval)
            cells += [format_number(of.delta, "+z.2f"), f"{low} … {high}", format_p(of.p_value)]
        rows.append(cells)
    return rows


def bucket_json(tables: BucketTables) -> dict[str, list[dict[str, Any]]]:
    """The tables as `--json` has them."""
    return {name: [asdict(scores) for scores in of] for name, of in tables.items()}


def bucket_panels(tables: BucketTables) -> list[Panel]:
    """Difference of every arm from the control by bucket, with the central 95% of its resamples."""
    return [
        Panel(TITLES[name][0], partial(_draw, scores, TITLES[name][1]), _summary(scores))
        for name, scores in tables.items()
    ]


def _draw(scores: Sequence[BucketScores], unit: str, axes: Axes) -> None:
    arms = list(scores[0].bleu)
    compared = [
        (arm, style) for arm, style in zip(arms, styles(len(arms)), strict=True) if arm in scores[0].differences
    ]
    for number, (arm, style) in enumerate(compared):
        of_arm = [of.differences[arm] for of in scores]
        deltas = np.array([of.delta for of in of_arm])
        low, high = np.array([of.interval for of in of_arm]).T
        # Side by side within a bucket.
        x = np.arange(len(scores)) + 0.5 * (number - (len(compared) - 1) / 2) / len(compared)
        ends = np.maximum([deltas - low, high - deltas], 0)
        axes.errorbar(x, deltas, ends, fmt=style.marker, color=style.color, ms=5, lw=1.5, capsize=2.5, label=arm)
    axes.axhline(0, color=COLORS["faint"], lw=1, zorder=1)
    label_axes(axes, unit, "BLEU minus the control's")
    axes.set_xlim(-0.5, len(scores) - 0.5)
    axes.set_xticks(range(len(scores)), [bucket_label(of) for of in scores])


def _summary(scores: Sequence[BucketScores]) -> str:
    """The differences in words."""
    return "; ".join(
        f"{arm}: " + ", ".join(f"{of.differences[arm].delta:+z.2f} at {bucket_label(of)}" for of in scores)
        for arm in scores[0].differences
    )
