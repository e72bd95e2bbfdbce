"""The benchmark of checkpoints, on two million parameters."""

from __future__ import annotations

import pytest

from benchmarks import checkpoint


def test_it_tells_bytes_and_seconds_of_a_checkpoint(tmp_path):
    found = checkpoint.measure(2_100_000, 2, str(tmp_path))
    assert found["parameters"] == 2 * 1024**2
    # A weight and two moments of four bytes each; the weights that are kept for the end once.
    assert found["bytes"] == pytest.approx(12 * found["parameters"], rel=0.01)
    assert found["bytes_kept"] == pytest.approx(4 * found["parameters"], rel=0.01)
    assert min(found["copied_seconds"], found["written_seconds"], found["written_seconds_with_kept"]) > 0
    assert found["interval_seconds"] >= 30
    assert not list(tmp_path.rglob("*.pt"))
