"""What is told of the machine."""

from __future__ import annotations

import json
import re

from benchmarks import machine

CPUINFO = """processor\t: 0
model name\t: Some CPU 9000
flags\t\t: fpu avx2 avx512f avx512_bf16 amx_tile_not
processor\t: 1
model name\t: Another
flags\t\t: amx_bf16
"""


def test_the_first_processor_of_cpuinfo() -> None:
    assert machine.cpu_model(CPUINFO) == "Some CPU 9000"
    assert machine.cpu_features(CPUINFO) == ["avx512_bf16", "avx512f", "avx2"]
    assert machine.cpu_model("") is None
    assert machine.cpu_features("") == []


def test_the_description_is_json_and_names_no_host() -> None:
    found = machine.machine()
    json.dumps(found)
    assert found["cores"] >= 1
    assert found["libraries"]["torch"]
    assert "host" not in json.dumps(found).lower()


def test_the_commit_is_that_of_the_checkout() -> None:
    found = machine.commit()
    assert found["commit"] is None or re.fullmatch(r"[0-9a-f]{40}", found["commit"])


def test_without_git_there_is_no_commit(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert machine.commit() == {"commit": None, "changed": None}
