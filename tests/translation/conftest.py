"""A student that has learned its test text by heart, so that BLEU says something, and a distilled one that has not."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.student.lineage import Lineage, lineage_of
from tests.helpers.local_project import Project

KNOWN = 240
"""Sentences of the test text, which are the first of train."""


def known_project(directory: Path, *overrides: str) -> Project:
    """A project whose test text stands in train."""
    Project(directory)
    for side in ("de", "en"):
        lines = gzip.decompress((directory / "text" / f"train.{side}.gz").read_bytes()).decode().splitlines()
        (directory / "text" / f"test.{side}.gz").write_bytes(
            gzip.compress("".join(f"{line}\n" for line in lines[:KNOWN]).encode())
        )
    return Project(directory, *overrides)


@pytest.fixture(scope="session")
def known(tmp_path_factory) -> Project:
    """Its control is a student of few tokens that knows the test text."""
    return known_project(
        tmp_path_factory.mktemp("known"),
        "student.steps=600",
        "student.eval_every=600",
        "student.width=64",
        "student.ffn=128",
        "student.heads=4",
        "student.dropout=0",
        "student.attention_dropout=0",
        "student.micro_batches=1",
        "student.peak_lr=8.068715e-3",
        "student.warmup_steps=60",
        "translate.beam=4",
        "translate.n_best=1",
    )


@pytest.fixture(scope="session")
def student(known) -> Artifact:
    """The student that knows its test text."""
    return known.control()


@pytest.fixture(scope="session")
def translated(known, student) -> Lineage:
    """The same with its scores."""
    known.translation()
    return lineage_of(student)


@pytest.fixture(scope="session")
def distilled(known) -> Lineage:
    """A student with a teacher; both have seen two batches."""
    return lineage_of(known.variant(known.directory / "artifacts").distilled())
