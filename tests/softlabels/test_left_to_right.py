"""A left-to-right teacher, trained and read stage by stage."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from bertkd_ray.softlabels.shards import decode_labels
from tests.helpers.local_project import Project

pytestmark = pytest.mark.slow


def test_teacher_and_soft_labels_from_left_to_right(tmp_path):
    project = Project(tmp_path, "teacher.direction=left_to_right")
    teacher, labels = project.teacher(), project.labels()
    config = json.loads(Path(teacher.path("model", "config.json")).read_text())
    assert config["direction"] == "left_to_right"
    assert labels.info["mask_scheme"] == "all positions at once"
    table = pq.read_table(labels.path(labels.files[0].path))
    tgt = table["tgt_ids"].to_pylist()
    read = decode_labels(table)
    assert read.offsets.tolist() == np.cumsum([0, *(len(row) + 1 for row in tgt)]).tolist()
    assert np.isfinite(read.logsumexp).all()
