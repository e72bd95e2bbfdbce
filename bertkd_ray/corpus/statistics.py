"""What the cleaning passes found, as workers hand it to the driver."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from bertkd_ray.config.corpus import SPLITS
from bertkd_ray.corpus.tokenizer import BERT_IDS_SCHEMA

_WAITING_PIECES = 1 << 18  # rows that may wait to be added up


class PieceCounts:
    """How often every piece was seen; parts of a text add up."""

    def __init__(self) -> None:
        self._waiting: list[pa.Table] = []
        self._rows = 0

    def add(self, table: pa.Table) -> None:
        """Adds counts with the schema `BERT_IDS_SCHEMA`."""
        self._waiting.append(table)
        self._rows += len(table)
        if self._rows > _WAITING_PIECES:
            self._waiting = [self.table()]
            # The sum alone must not fill the room: there may be more pieces than that.
            self._rows = 0

    def table(self) -> pa.Table:
        """The sums, a row a piece in no fixed order, with the same schema."""
        if not self._waiting:
            return BERT_IDS_SCHEMA.empty_table()
        summed = pa.concat_tables(self._waiting).group_by(["token", "bert_id"]).aggregate([("count", "sum")])
        return summed.rename_columns([*BERT_IDS_SCHEMA.names]).cast(BERT_IDS_SCHEMA)


@dataclass
class PrepareStats:
    """What the cleaning passes found, of a part of the text or of all of it; parts add up."""

    counts: dict[str, Counter[str]] = field(default_factory=lambda: {split: Counter() for split in SPLITS})
    """By split: pairs read, pairs dropped by reason, odd lines."""
    rows: dict[str, dict[int, int]] = field(default_factory=lambda: {split: {} for split in SPLITS})
    """By split: pairs that are left of each chunk, by its number."""
    pieces: PieceCounts = field(default_factory=PieceCounts)
    """Pieces of the training text."""
    characters: set[str] = field(default_factory=set)
    """Characters of the training text."""

    def as_row(self) -> dict[str, Any]:
        """The tally as a row for the driver."""
        rows = {split: list(of_chunk.items()) for split, of_chunk in self.rows.items()}
        parts = {"counts": self.counts, "rows": rows, "characters": "".join(sorted(self.characters))}
        return {"tally": json.dumps(parts), "pieces": _packed(self.pieces.table())}

    def add(self, row: dict[str, Any]) -> None:
        """Adds another part's tally, as `as_row` gives it."""
        parts = json.loads(row["tally"])
        for split in SPLITS:
            self.counts[split].update(parts["counts"][split])
            self.rows[split].update(parts["rows"][split])
        self.pieces.add(pa.ipc.open_stream(row["pieces"]).read_all())
        self.characters.update(parts["characters"])


def _packed(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed
