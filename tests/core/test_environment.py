"""Environment variables that last as long as a block."""

from __future__ import annotations

import os

import pytest

from bertkd_ray.core.environment import default_variables


def test_what_is_not_set_is_set_for_the_block_and_what_is_set_stands(monkeypatch):
    monkeypatch.setenv("BERTKD_GIVEN", "mine")
    monkeypatch.delenv("BERTKD_NEW", raising=False)
    with default_variables({"BERTKD_GIVEN": "theirs", "BERTKD_NEW": "1"}):
        assert (os.environ["BERTKD_GIVEN"], os.environ["BERTKD_NEW"]) == ("mine", "1")
    assert os.environ["BERTKD_GIVEN"] == "mine"
    assert "BERTKD_NEW" not in os.environ


def test_they_go_when_the_block_raises(monkeypatch):
    monkeypatch.delenv("BERTKD_NEW", raising=False)
    with pytest.raises(ZeroDivisionError), default_variables({"BERTKD_NEW": "1"}):
        _ = 1 / 0
    assert "BERTKD_NEW" not in os.environ
