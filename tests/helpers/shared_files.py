"""Where golden vectors, real text and schemas are; tests that need what is absent are skipped, with the reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_BESIDE = Path(__file__).resolve().parents[3] / "shared"


def _existing(variable: str, default: Path, name: str) -> Path:
    path = Path(os.environ.get(variable, default)) / name
    if not path.exists():
        pytest.skip(f"{path} is absent; set {variable} to the directory that holds {name}")
    return path


def golden_path(name: str) -> Path:
    """A file of the golden vectors (`GOLDEN_DIR`, else `../shared/golden` beside the checkout)."""
    return _existing("GOLDEN_DIR", _BESIDE / "golden", name)


def data_path(name: str) -> Path:
    """A file of the real parallel text (`CORPUS_DIR`, else `../shared/data` beside the checkout)."""
    return _existing("CORPUS_DIR", _BESIDE / "data", name)


def schema_path(name: str) -> Path:
    """A schema of others' file formats (`SCHEMA_DIR`, else `../shared/schemas` beside the checkout)."""
    return _existing("SCHEMA_DIR", _BESIDE / "schemas", name)
