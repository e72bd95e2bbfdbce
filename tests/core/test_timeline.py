"""Spans are lines that any process may append; without the variable nothing is written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bertkd_ray.core.timeline import VARIABLE, span


def test_a_span_is_a_line_with_its_begin_and_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "spans"))
    before = time.time()
    with span("outer"), span("inner"):
        time.sleep(0.02)
    inner, outer = (json.loads(line) for line in (tmp_path / "spans").read_text().splitlines())
    assert [inner["name"], outer["name"]] == ["inner", "outer"]
    assert inner["pid"] == outer["pid"] == os.getpid()
    assert 0 <= inner["cpu"] <= outer["cpu"]
    assert before <= outer["begin"] <= inner["begin"] <= inner["end"] - 0.02 <= outer["end"] <= time.time()


def test_a_block_that_raises_is_marked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "spans"))
    with pytest.raises(KeyError), span("fails"):
        raise KeyError
    assert json.loads((tmp_path / "spans").read_text())["name"] == "fails"


def test_nothing_is_written_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    with span("unseen"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_many_processes_append_whole_lines(tmp_path: Path) -> None:
    code = "from bertkd_ray.core.timeline import span\nfor _ in range(200):\n    with span('work' * 20): pass"
    environment = {**os.environ, VARIABLE: str(tmp_path / "spans")}
    children = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(3)]
    assert [child.wait(60) for child in children] == [0, 0, 0]
    spans = [json.loads(line) for line in (tmp_path / "spans").read_text().splitlines()]
    assert len(spans) == 600
    assert {entry["pid"] for entry in spans} == {child.pid for child in children}
