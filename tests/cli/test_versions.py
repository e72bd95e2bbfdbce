"""`bertkd --version`."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import time

import pytest

import bertkd_ray
from bertkd_ray.cli import main


def test_one_a_line_aligned(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    out, err = capsys.readouterr()
    assert (ended.value.code, err) == (0, "")
    lines = dict(re.fullmatch(r"(\S+) {2,}(\S.*)", line).groups() for line in out.splitlines())
    assert list(lines)[:4] == ["bertkd", "python", "ray", "torch"]
    assert {"transformers", "pyarrow", "mlflow", "sacrebleu"} < set(lines)
    assert (lines["bertkd"], lines["python"]) == (bertkd_ray.__version__, platform.python_version())
    import pyarrow

    assert lines["pyarrow"] == pyarrow.__version__
    assert len({line.index(version) for line, version in zip(out.splitlines(), lines.values(), strict=True)}) == 1


def test_it_is_quick_and_imports_nothing_heavy():
    """The best of three: others may be at work."""
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "bertkd_ray", "--version"], capture_output=True, text=True
        )
        seconds.append(time.perf_counter() - started)
        assert done.returncode == 0
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert imported.isdisjoint({"ray", "torch", "transformers", "pyarrow", "mlflow", "sacrebleu", "ctranslate2"})
    assert min(seconds) < 0.5
