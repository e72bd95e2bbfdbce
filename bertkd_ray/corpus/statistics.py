"""Counts of the cleaning passes, as workers hand them to the driver."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from bertkd_ray.config.corpus import SPLITS
from bertkd_ray.corpus.tokenizer import BERT_IDS_SCHEMA

_WAITING_PIECES = 1 << 18  # rows that may wait to be added up


class PieceCounts:
    """How often every piece was seen."""

    def __init__(self) -> None:
        # The sums so far, then what waits to be added up.
        self._tables = [BERT_IDS_SCHEMA.empty_table()]

    def __getstate__(self) -> dict[str, Any]:
        # Workers hand over the sums alone.
        return {"_tables": [self.table()]}

    def add(self, table: pa.Table) -> None:
        """Adds counts with the schema `BERT_IDS_SCHEMA`."""
        self._tables.append(table)
        if sum(map(len, self._tables[1:])) > _WAITING_PIECES:
            self._tables = [self.table()]

    def table(self) -> pa.Table:
        """The sums, a row a piece in no fixed order, with the same schema."""
        summed = pa.concat_tables(self._tables).group_by(["token", "bert_id"]).aggregate([("count", "sum")])
        return summed.rename_columns([*BERT_IDS_SCHEMA.names]).cast(BERT_IDS_SCHEMA)


@dataclass
class PrepareStats:
    """Counts of the cleaning passes over some of the text or all of it; they add up."""

    counts: dict[str, Counter[str]] = field(default_factory=lambda: {split: Counter() for split in SPLITS})
    """By split: pairs read, pairs dropped by reason, odd lines."""
    rows: dict[str, dict[int, int]] = field(default_factory=lambda: {split: {} for split in SPLITS})
    """By split: pairs that are left of each chunk, by its number."""
    pieces: PieceCounts = field(default_factory=PieceCounts)
    """Pieces of the training text."""
    characters: set[str] = field(default_factory=set)
    """Characters of the training text."""
    files: list[str] = field(default_factory=list)
    """Files of finished fragments."""

    def add(self, other: PrepareStats) -> None:
        """Adds the counts of other text."""
        for split in SPLITS:
            self.counts[split].update(other.counts[split])
            self.rows[split].update(other.rows[split])
        self.pieces.add(other.pieces.table())
        self.characters.update(other.characters)
        self.files += other.files
