"""Sentences of the test set with the translations of several students, and those that tell the students apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sacrebleu.metrics.chrf import CHRF

from bertkd_ray.translation.translate import best_hypotheses

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Sentence:
    """A sentence of the test set; hypotheses and their chrF (0 to 100) by label."""

    id: int
    source: str
    reference: str
    hypotheses: dict[str, str]
    chrf: dict[str, float]

    @property
    def spread(self) -> float:
        """The highest chrF minus the lowest."""
        return max(self.chrf.values()) - min(self.chrf.values())


def sentences_of(tables: Mapping[str, pa.Table]) -> list[Sentence]:
    """All sentences, in the order of the test set.

    tables: by label, see `translation.translate.read_translations`; all of one test set.
    """
    first = next(iter(tables.values()))
    hypotheses = {label: best_hypotheses(table) for label, table in tables.items()}
    ids, sources, references = (first[column].to_pylist() for column in ("id", "source", "reference"))
    lines = [{label: of[row] for label, of in hypotheses.items()} for row in range(len(references))]
    return [Sentence(*parts) for parts in zip(ids, sources, references, lines, _chrf(lines, references), strict=True)]


def most_different(sentences: Sequence[Sentence], count: int) -> list[Sentence]:
    """Those with the widest spread, the widest first and equal ones in their order; never one without a spread."""
    spreads = [sentence.spread for sentence in sentences]
    rows = sorted(range(len(sentences)), key=lambda row: (-spreads[row], row))[:count]
    return [sentences[row] for row in rows if spreads[row] > 0]


def _chrf(hypotheses: Sequence[Mapping[str, str]], references: Sequence[str]) -> Iterator[dict[str, float]]:
    """chrF of every hypothesis by sentence and label; equal hypotheses are scored once."""
    metric = CHRF()
    for lines, reference in zip(hypotheses, references, strict=True):
        scores = {line: float(metric.sentence_score(line, [reference]).score) for line in set(lines.values())}
        yield {label: scores[line] for label, line in lines.items()}
