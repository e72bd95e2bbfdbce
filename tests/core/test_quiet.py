"""Keeping a library's talk off the user's terminal."""

from __future__ import annotations

import pytest
from transformers.utils import logging

from bertkd_ray.core.quiet import quiet_transformers


def test_a_load_is_silent_and_afterwards_all_is_as_before(capsys):
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logger = logging.get_logger("transformers.modeling_utils")

    def load() -> None:
        with quiet_transformers():
            assert not logging.is_progress_bar_enabled()
            logger.warning("a report")
            raise KeyError

    with pytest.raises(KeyError):
        load()
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert capsys.readouterr().err == ""
