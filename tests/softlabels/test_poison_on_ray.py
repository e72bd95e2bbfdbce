"""A pair that kills every actor that scores it, in a real Ray session."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.helpers.local_project import Project
from tests.helpers.poison_records import artifact_bytes, pending_on_corpus, with_poison_records

pytestmark = [pytest.mark.slow, pytest.mark.ray]

ROOT = Path(__file__).resolve().parents[2]
# A program of its own: the hook is one of the whole session, and the tests share theirs.
PROGRAM = textwrap.dedent(
    """
    import sys
    from dataclasses import replace
    from pathlib import Path

    import ray

    from bertkd_ray.artifacts.artifact import load
    from bertkd_ray.execution.ray.session import RayRuntime
    from bertkd_ray.softlabels.extract import pending_artifact
    from tests.helpers.local_project import Project, extracted

    project = Project(Path(sys.argv[1]))
    corpus, teacher = load(project.store, sys.argv[2]), load(project.store, sys.argv[3])
    ray.init(
        address="local",
        num_cpus=2,
        log_to_driver=False,
        runtime_env={"worker_process_setup_hook": "tests.helpers.poison_records.kill_on_poison_records"},
    )
    runtime = RayRuntime(project.config)
    runtime.start()
    inputs = {"corpus": corpus.fingerprint, "teacher": teacher.fingerprint}
    labels = pending_artifact(project.config, project.store, inputs)
    extracted(replace(labels, fingerprint="b" * 16), project.with_max_rejects(0.01), runtime, corpus, teacher)
    """
)


def test_a_pair_that_kills_every_actor_is_rejected_and_the_rest_is_scored(tmp_path):
    project = Project(tmp_path)
    whole = project.labels()
    corpus, (pair,) = with_poison_records(project.corpus(), "train", "tgt_ids", [70], "a" * 16)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), corpus.directory, project.teacher().directory]
    # Where the workers find the hook.
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "1 of 242 pairs rejected (0.413%); pair 70: its process died 4 times" in done.stderr
    work = pending_on_corpus(corpus, project.pending_labels(), "b" * 16)
    directory = project.store.path(work.directory)
    assert pq.read_table(f"{directory}/rejects.parquet")["id"].to_pylist() == [pair]
    ours = artifact_bytes(directory)
    for entry in whole.files_below("shard-"):
        ids = pq.read_table(whole.path(entry.path))["id"].to_pylist()
        assert pq.read_table(f"{directory}/{entry.path}")["id"].to_pylist() == [one for one in ids if one != pair]
        if pair not in ids:
            assert ours[entry.path] == project.store.read(whole.directory, entry.path)
