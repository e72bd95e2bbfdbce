"""`python -m benchmarks.gpu` in miniature on a CPU, and what it counts against what is done."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import gpu, gpu_checks, gpu_results
from benchmarks.extracting import padded_pass
from benchmarks.gpu_extract import Work, scorer_of
from benchmarks.gpu_results import ResultTable
from benchmarks.gpu_setting import LENGTHS, TINY, TOPK, GpuSetting, MemoryGroups, count_lengths, lengths
from benchmarks.gpu_timing import ProductRate, Products, Shape, kernels, student_products, teacher_products
from benchmarks.gpu_train import Distilling, Finetuning, timed
from benchmarks.gpu_variants import CastObjective
from benchmarks.loop import Updates
from bertkd_ray.plan.operations import StudentSize, TeacherSize, student_forward, teacher_forward
from bertkd_ray.softlabels.shards import SoftLabels
from bertkd_ray.teacher.model import ConditionalMaskedLM
from tests.helpers.shared_files import data_path

CPU = torch.device("cpu")
FEW = replace(TINY, pairs=120, fragment_pairs=10, steps=4)


@pytest.fixture(scope="module")
def setting() -> GpuSetting:
    return GpuSetting(FEW, CPU)


def results(path: Path, seconds: float = 100.0) -> ResultTable:
    return ResultTable(path / "gpu.json", {}, time.monotonic() + seconds, in_miniature=True)


def written(path: Path) -> dict[str, Any]:
    return json.loads((path / "gpu.json").read_text())


@pytest.mark.slow
def test_all_rows_in_miniature(tmp_path):
    arguments = ["--device", "cpu", "--tiny", "--deadline", "600", "--output", str(tmp_path / "gpu.json")]
    assert gpu.main(arguments) == 0
    found = written(tmp_path)
    assert found["failed"] == {}
    assert found["cut"] is None
    rows = found["rows"]
    assert {row["row"] for row in rows} == {
        "products",
        "extract",
        "finetune",
        "distill",
        "check",
        "translate",
        "data wait",
    }
    assert all(row["details"]["passed"] for row in rows if row["details"].get("binding", "passed" in row["details"]))
    for row in rows:
        if row["row"] in ("extract", "finetune", "distill"):
            assert row["share"] == row["flops"] / row["product_rate"]
            assert 0 < row["details"]["useful"] < 1
    profiled = {row["row"] for row in rows if "profile" in row["details"]}
    assert profiled == {"extract", "finetune", "distill", "translate"}


def test_the_lengths_are_those_of_the_text():
    directory = data_path("multi30k")
    assert json.loads(LENGTHS.read_text())["src, tgt, pairs"] == count_lengths(directory)


def test_lengths_come_as_often_as_they_were_counted():
    src, tgt = lengths(29_000)
    counted = {(s, t): n for s, t, n in json.loads(LENGTHS.read_text())["src, tgt, pairs"]}
    pairs, times = np.unique(np.stack([src, tgt]), axis=1, return_counts=True)
    assert dict(zip(map(tuple, pairs.T.tolist()), times.tolist(), strict=True)) == counted


def test_what_is_counted_of_extraction_is_what_torch_counts(setting):
    scorer = scorer_of(setting, setting.teacher(dropout=0.0, attention="eager"), 512, "float32")
    src, tgt = (side.take(np.arange(10)) for side in setting.pairs)
    work = Work.of(setting.sizes.teacher, src, tgt, scorer)
    # The GPU's bf16 pass has padding, as what is counted.
    padded = patch.object(ConditionalMaskedLM, "packed", padded_pass)
    with padded, FlopCounterMode(display=False) as counter:
        scorer.score(src, tgt, np.arange(10))
    assert work.operations.computed == counter.get_total_flops()
    assert work.batches > 1


@pytest.mark.parametrize("kind", ["finetune", "distill"])
def test_what_is_counted_of_training_is_what_torch_counts(setting, kind):
    if kind == "finetune":
        what: Any = Finetuning(setting.teacher_task(setting.teacher(attention="eager"), 512), 512)
    else:
        what = Distilling(setting.student_task(setting.student(attention="eager"), 256), 256)
    found = timed(setting, what)
    batch = found.batches[0][0]
    with FlopCounterMode(display=False) as counter:
        Updates(what.task, setting.precision, setting.device)(batch)
    assert what.operations(setting, batch).computed == pytest.approx(counter.get_total_flops(), rel=1e-3)
    assert len(found.batches) == len(found.seconds) == len(found.data_wait)
    assert all(seconds > 0 for seconds in found.seconds)
    assert what.tokens(batch) <= batch.padded_tokens


def test_products_are_all_but_attention():
    size = TeacherSize(layers=3, width=32, ffn=48, vocabulary=50)
    lengths_N, masked_N = np.array([16, 16]), np.array([3, 3])
    attention = 2 * 2 * 16 * 16 * 4 * 32 + 2 * 3 * 16 * 4 * 32
    total = sum(count * 2 * m * k * n for (m, k, n), count in teacher_products(size, 32, 6).items())
    assert total == teacher_forward(size, lengths_N, 16, masked_N).computed - attention
    student = StudentSize(encoder_layers=2, decoder_layers=3, width=32, ffn=48, vocabulary=50)
    attention = 2 * 2 * 8 * 8 * 4 * 32 + 3 * 2 * (8 * 8 + 8 * 8) * 4 * 32
    total = sum(count * 2 * m * k * n for (m, k, n), count in student_products(student, 16, 16, 16).items())
    assert total == student_forward(student, np.array([8, 8]), np.array([8, 8]), 8, 8).computed - attention


def test_the_rate_of_products_is_a_mean_over_time(monkeypatch):
    rate = ProductRate(CPU, training=True, spent=0.001)
    monkeypatch.setattr(rate, "_time", lambda left, right: 2.0 if left.shape == (8, 16) else 0.5)
    found, each = rate(Products({Shape(8, 16, 32): 3}))
    # Three products of 2 · 8 · 16 · 32 operations, in 2, 0.5 and 0.5 seconds.
    assert found == 3 * 2 * 8 * 16 * 32 / 3.0
    assert each[0]["tflops"][0] == pytest.approx(2e-12 * 8 * 16 * 32 / 2.0)


def test_groups_in_memory_are_read_by_number(setting):
    groups = MemoryGroups(setting.table, 50)
    assert groups.rows.tolist() == [50, 50, 20]
    assert groups.read(np.array([2, 0]))["id"].to_pylist() == [*range(100, 120), *range(50)]


def test_the_profile_says_what_took_longest():
    big, small = torch.randn(600, 600), torch.randn(2, 2)
    found = kernels(lambda: (big @ big, small + small), CPU)
    assert "mm" in found["top"][0]["kernel"]
    assert found["top"][0]["share_of_busy"] > 0.5
    assert 0 < found["busy_share"] <= 1


def test_in_bf16_gives_gradients_in_float32_that_are_about_the_same(setting):
    task = setting.student_task(setting.student(dropout=0.0), 256)
    batch = gpu_checks.labelled(setting)
    parameters = list(task.objective.parameters())
    found = []
    for objective in (task.objective, CastObjective(task.objective)):
        loss, _ = objective(batch)
        loss.backward()
        found.append((float(loss.detach()), [p.grad.clone() for p in parameters]))
        task.objective.zero_grad()
    assert all(gradient.dtype == torch.float32 for gradient in found[1][1])
    loss, gradient = gpu_checks.difference(found[1], found[0])
    assert loss < 1e-3
    assert gradient < 3e-2


def labels(ids: list[list[int]], logits: list[list[float]]) -> SoftLabels:
    return SoftLabels(
        topk_ids=np.array(ids),
        topk_logits=np.array(logits, np.float16),
        logsumexp=np.zeros(len(ids), np.float32),
        offsets=np.array([0, len(ids)]),
    )


def test_top_k_sets_differ_by_what_was_missed():
    exact = labels([[1, 2, 3, 4], [5, 6, 7, 8]], [[9, 8, 7, 6], [9, 8, 7, 6]])
    found = gpu_checks.topk_difference(exact, labels([[2, 1], [5, 7]], [[9, 8.5], [9, 7]]))
    assert found["% equal sets"] == 50
    assert found["% common"] == 75
    assert found["lost by at most"] == 1  # 6 has 8, and 7 with its 7 was taken
    assert found["largest error"] == 1  # 2 has 8, not 9
    assert found["largest logit"] == 9


def test_what_a_row_raises_is_written_and_the_next_is_measured(tmp_path, capsys):
    found = results(tmp_path)

    def fails() -> None:
        raise RuntimeError("no such kernel")

    found.run("first", fails)
    found.run("second", lambda: found.add("second", "a", {"pairs/s": 5.0}, flops=1e12, product_rate=4e12, goal=0.4))
    tree = written(tmp_path)
    assert "no such kernel" in tree["failed"]["first"]["error"]
    assert "in fails" in tree["failed"]["first"]["trace"]
    assert [row["row"] for row in tree["rows"]] == ["second"]
    assert tree["rows"][0]["share"] == 0.25
    assert "25.0%" in found.table()
    assert "≥ 40%" in found.table()
    assert "no such kernel" in capsys.readouterr().out


def test_there_is_no_time_after_the_deadline(tmp_path):
    found = results(tmp_path, seconds=0.0)
    found.run("late", lambda: pytest.fail("must not begin"))
    assert written(tmp_path)["left_out"] == ["late: all: it takes about 1 s, 0 are left"]


def test_a_row_that_outlasts_the_deadline_is_cut(tmp_path, monkeypatch):
    left, cut = [], threading.Event()
    monkeypatch.setattr(os, "_exit", lambda code: (left.append(code), cut.set()))
    # There is time for the row, and the watch ends at once.
    monkeypatch.setattr(gpu_results, "_GRACE", 1000.0)
    found = results(tmp_path)

    def endless() -> None:
        with found.watched():
            assert cut.wait(60)

    found.run("endless", endless)
    assert left == [3]
    assert written(tmp_path)["failed"] == {}
    assert written(tmp_path)["cut"] == "endless"


def test_a_run_that_has_ended_is_not_cut(tmp_path, monkeypatch):
    left = []
    monkeypatch.setattr(os, "_exit", left.append)
    before = set(threading.enumerate())
    with results(tmp_path).watched():
        (watch,) = set(threading.enumerate()) - before
    watch.join(60)
    assert not watch.is_alive()
    assert left == []


def test_rows_are_named(capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--only", "distil"])
    assert "choose from products, extract" in capsys.readouterr().err


def test_soft_labels_are_of_the_stored_form(setting):
    batch = setting.student_task(setting.student(), 256).collate(
        type("Micro", (), {"rows": setting.table.slice(0, 5), "epoch": 0})()
    )
    assert batch.topk_ids_Pk.shape == (batch.count, TOPK)
    assert batch.topk_logits_Pk.diff(dim=1).max() <= 0
    assert int(batch.topk_ids_Pk.max()) < setting.sizes.student.vocabulary
