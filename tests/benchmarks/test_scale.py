"""The arithmetic behind the scale rows by hand, and the corpus that is grown by copies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.copies import COLUMNS, grown
from benchmarks.scale_memory import peak
from benchmarks.scale_overhead import COMPUTE, OTHER, Mark, causes
from benchmarks.scale_workers import exchange_seconds, rate_of_both, seconds_an_update
from bertkd_ray.artifacts.row_groups import RowGroups
from bertkd_ray.training.curves import CurveRow
from tests.helpers.hand_made_corpus import write_corpus_artifact


def test_a_grown_corpus_has_every_pair_as_often_as_asked_under_ids_of_its_own(tmp_path: Path) -> None:
    corpus = write_corpus_artifact(tmp_path)
    large = grown(corpus, 3, fragment_pairs=2, valid_pairs=1)
    groups = RowGroups(large, "train/", COLUMNS)
    table = groups.read(np.arange(len(groups.rows)))
    assert table["id"].to_pylist() == [0, 10, 20, 21, 31, 41, 42, 52, 62]
    assert table["tgt"].to_pylist() == ["b", "ab", "b b"] * 3
    assert [len(large.files_below(split)) for split in ("train/", "valid/", "test/")] == [6, 1, 1]
    assert large.metrics["train/pairs"] == 9
    assert grown(corpus, 3, fragment_pairs=2, valid_pairs=1) == large


def test_each_moment_has_one_cause() -> None:
    marks = [
        Mark("ray.init", 1.0, 3.0, 0.0),
        Mark("Ray Train", 3.0, 9.0, 0.0),
        Mark("train function", 5.0, 8.5, 0.0),
        Mark("fit", 6.0, 8.0, 0.0),
        Mark("fit", 6.5, 8.25, 0.0),  # another worker: time that both compute counts once
        Mark("never heard of", 0.0, 10.0, 0.0),
    ]
    found = causes(marks, 0.0, 10.0)
    assert found[COMPUTE] == pytest.approx(2.25)
    assert found["workers: libraries and models"] == pytest.approx(1.25)
    assert found["Ray Train: controller and worker processes"] == pytest.approx(2.5)
    assert found["ray.init"] == pytest.approx(2.0)
    assert found[OTHER] == pytest.approx(2.0)
    assert sum(found.values()) == pytest.approx(10.0)


def _rows(*rows: tuple[float, float]) -> list[CurveRow]:
    return [CurveRow(0, when, {"train/positions_per_second": rate}) for when, rate in rows]


def test_two_trainings_count_while_both_go_on() -> None:
    first = _rows((1.0, 900.0), (2.0, 100.0), (3.0, 120.0), (4.0, 110.0))
    second = _rows((2.0, 50.0), (3.5, 70.0), (5.0, 900.0))
    assert rate_of_both(first, second) == 110.0 + 60.0
    with pytest.raises(ValueError, match="not at work at the same time"):
        rate_of_both(_rows((1.0, 1.0), (2.0, 1.0)), _rows((3.0, 1.0), (4.0, 1.0)))


def test_seconds_of_an_update_lie_between_rows() -> None:
    rows = [CurveRow(step, when, {}) for step, when in ((4, 10.0), (6, 13.0), (8, 15.0), (10, 25.0))]
    assert seconds_an_update(rows) == 1.5


def test_more_numbers_take_longer_to_add_up() -> None:
    assert 0 < exchange_seconds(1) < exchange_seconds(40_000_000)


def test_the_largest_memory_of_a_child_is_seen() -> None:
    code = "import time; held = bytearray(200 * 2**20); time.sleep(1.5)"
    with peak(Path(sys.executable).name) as largest:
        subprocess.run([sys.executable, "-c", code], check=True)
    assert 190 < largest() < 260
    with peak("no such process") as largest:
        pass
    with pytest.raises(ValueError, match="no process named no such process was seen"):
        largest()
