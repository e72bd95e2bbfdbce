"""What workers found adds up, whatever the parts and their order."""

from __future__ import annotations

import pickle

import pyarrow as pa
import pytest

from bertkd_ray.corpus import statistics as module
from bertkd_ray.corpus.segmentation import Piece
from bertkd_ray.corpus.statistics import PieceCounts, PrepareStats
from bertkd_ray.corpus.tokenizer import BERT_IDS_SCHEMA, pieces_of


def table(**counts: int) -> pa.Table:
    """Each name is a token and the BERT id behind it: `a1`."""
    rows = [(name[0], int(name[1:]), count) for name, count in counts.items()]
    return pa.table([list(column) for column in zip(*rows, strict=True)], schema=BERT_IDS_SCHEMA)


@pytest.mark.parametrize("waiting", [0, 3, 1 << 18])
def test_pieces_add_up(monkeypatch, waiting):
    monkeypatch.setattr(module, "_WAITING_PIECES", waiting)
    counts = PieceCounts()
    assert pieces_of(counts.table()) == {}
    for part in (table(a1=1, b2=5), table(a2=7), table(b2=1 << 40, a1=2), table(c3=1)):
        counts.add(part)
    assert counts.table().schema == BERT_IDS_SCHEMA
    assert pieces_of(counts.table()) == {
        Piece("a", 1): 3,
        Piece("a", 2): 7,
        Piece("b", 2): 5 + (1 << 40),
        Piece("c", 3): 1,
    }


def test_the_counts_of_several_texts_add_up_as_workers_hand_them_over():
    parts = [PrepareStats(), PrepareStats(), PrepareStats()]
    parts[0].counts["train"].update(read=3, empty=1)
    parts[0].rows["train"][0] = 2
    parts[0].pieces.add(table(a1=1, b2=2))
    parts[0].characters.update("ab中")
    parts[1].counts["train"].update(read=4)
    parts[1].counts["valid"].update(read=1)
    parts[1].rows["train"][7] = 4
    parts[1].rows["valid"][9] = 1
    parts[1].pieces.add(table(b2=3))
    parts[1].characters.update("b😀")
    for order in ((0, 1, 2), (2, 1, 0)):
        whole = PrepareStats()
        for number in order:
            whole.add(pickle.loads(pickle.dumps(parts[number])))
        assert whole.counts == {"train": {"read": 7, "empty": 1}, "valid": {"read": 1}, "test": {}}
        assert whole.rows == {"train": {0: 2, 7: 4}, "valid": {9: 1}, "test": {}}
        assert pieces_of(whole.pieces.table()) == {Piece("a", 1): 1, Piece("b", 2): 5}
        assert whole.characters == set("ab中😀")
