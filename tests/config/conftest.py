"""Small trees of configurations, and what reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from bertkd_ray.config import Config, load_config

DEMO = {"name": "demo", "corpus": {"source": "demo"}}
FILES = {"src": "a.de", "tgt": "a.en"}
TEXT = {"source": "text", "train": FILES, "valid": FILES, "test": FILES}


@pytest.fixture
def load(tmp_path) -> Callable[..., Config]:
    """`load_config` of a tree, or of raw text, with overrides."""

    def call(tree: Any, *overrides: str) -> Config:
        path = tmp_path / "c.yaml"
        path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree), encoding="utf-8")
        return load_config(path, list(overrides))

    return call
