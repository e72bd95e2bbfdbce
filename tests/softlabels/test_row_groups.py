"""The soft labels of several teachers for the same pairs, read as the rows of one table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact
from bertkd_ray.artifacts.row_groups import RowGroups, write_parquet
from bertkd_ray.artifacts.store import Store
from bertkd_ray.core.ragged import Ragged, offsets_of
from bertkd_ray.execution.dead_letters import DEAD_LETTERS, DEAD_LETTERS_SCHEMA
from bertkd_ray.softlabels.row_groups import LabelledRowGroups
from bertkd_ray.softlabels.shards import SoftLabels, decode_labels, encode_shard, parquet_bytes, shard_schema

FRAGMENTS = {"shard-000000.parquet": [[10, 11, 12], [13, 14]], "shard-000001.parquet": [[20], [21, 22, 23]]}
"""Ids of the pairs by row group."""


def _label(pair: int, position: int, teacher: int) -> int:
    """A token that tells pair, position and teacher apart."""
    return (pair * 7 + position * 3 + teacher * 101) % 250


def labelled(
    store: Store, teacher: int, *, rejected: tuple[int, ...] = (), k: int = 2, beginning: str = "shard-"
) -> Artifact:
    """Soft labels of which every number says whose it is; a group without a pair left vanishes, as in extract.

    beginning: of the files' names.
    """
    pending = PendingArtifact(store, "softlabels", f"{teacher:016d}", {}, {})
    for name, groups in FRAGMENTS.items():
        kept = [[pair for pair in group if pair not in rejected] for group in groups]
        pairs = [pair for group in kept for pair in group]
        rows = [[pair % 200] * (1 + pair % 3) for pair in pairs]
        ids = [_label(pair, t, teacher) for pair, row in zip(pairs, rows, strict=True) for t in range(len(row) + 1)]
        lengths = np.array([len(row) + 1 for row in rows], np.int64)
        labels = SoftLabels(
            np.array([[token + j for j in range(k)] for token in ids], np.uint8).reshape(-1, k),
            np.array([[-j for j in range(k)] for _ in ids], np.float16).reshape(-1, k),
            np.array(ids, np.float32),
            offsets_of(lengths),
        )
        src = tgt = Ragged.from_lists(rows)
        table = encode_shard(np.array(pairs, np.int64), src, tgt, labels, shard_schema(256, k))
        data = parquet_bytes(table, [len(group) for group in kept if group])
        store.write(data, pending.directory, name.replace("shard-", beginning))
    made = [name.replace("shard-", beginning) for name in FRAGMENTS]
    if rejected:
        letters = [{"id": pair, "reason": "r", "tries": 1, "fragment": "f", "traceback": ""} for pair in rejected]
        write_parquet(
            store,
            DEAD_LETTERS_SCHEMA.empty_table().from_pylist(letters, DEAD_LETTERS_SCHEMA),
            pending.directory,
            DEAD_LETTERS,
        )
        made.append(DEAD_LETTERS)
    return pending.commit(made=made, metrics={}, info={})


def ids_and_labels(labels: list[Artifact], groups: list[int]) -> list[int]:
    """Ids of the rows; that each teacher's labels are those of its pairs is looked at here."""
    table = LabelledRowGroups(labels).read(np.array(groups))
    pairs = table["id"].to_pylist()
    for number in range(1, len(labels) + 1):
        of = decode_labels(table, number)
        expected = [
            _label(pair, t, number)
            for pair, row in zip(pairs, table["tgt_ids"].to_pylist(), strict=True)
            for t in range(len(row) + 1)
        ]
        assert of.topk_ids[:, 0].tolist() == of.logsumexp.tolist() == expected
        assert of.topk_ids.shape[1] == labels[number - 1].info.get("k", of.topk_ids.shape[1])
    return pairs


def test_the_labels_of_every_teacher_stand_beside_each_other(tmp_path: Path):
    store = Store(str(tmp_path))
    labels = [labelled(store, 1), labelled(store, 2, k=3), labelled(store, 3)]
    assert ids_and_labels(labels, [3, 0, 1]) == [21, 22, 23, 10, 11, 12, 13, 14]
    assert ids_and_labels(labels, [2, 3, 1, 0]) == [20, 21, 22, 23, 13, 14, 10, 11, 12]


def test_labels_of_an_earlier_version_have_other_names(tmp_path: Path):
    store = Store(str(tmp_path))
    labels = [labelled(store, 1), labelled(store, 2, beginning="part-")]
    assert ids_and_labels(labels, [3, 0, 1]) == [21, 22, 23, 10, 11, 12, 13, 14]
    labels.reverse()
    assert LabelledRowGroups(labels).read(np.array([2, 3]))["id"].to_pylist() == [20, 21, 22, 23]


def test_one_teachers_are_read_as_they_are(tmp_path: Path):
    labels = labelled(Store(str(tmp_path)), 1)
    columns = ["id", "src_ids", "tgt_ids", "topk_ids", "topk_logits", "logsumexp"]
    groups = np.array([2, 0])
    assert LabelledRowGroups([labels]).read(groups) == RowGroups(labels, "", columns).read(groups)


@pytest.mark.parametrize("first", [(), (11,), (13, 14)])
@pytest.mark.parametrize("second", [(), (10, 22), (20,), (13, 14), (10, 11, 12)])
def test_pairs_that_a_teacher_rejected_are_left_out(tmp_path: Path, first, second):
    """Wherever groups are shorter, or gone, with one of them."""
    store = Store(str(tmp_path))
    labels = [labelled(store, 1, rejected=first), labelled(store, 2, rejected=second)]
    groups = [group for of in FRAGMENTS.values() for group in of if not set(group) <= set(first)]
    for order in (range(len(groups)), reversed(range(len(groups)))):
        numbers = list(order)
        expected = [pair for number in numbers for pair in groups[number] if pair not in {*first, *second}]
        assert ids_and_labels(labels, numbers) == expected
