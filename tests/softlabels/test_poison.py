"""Pairs that raise or kill in stage 2: they end in the table of rejects, and the rest is scored."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact, load
from bertkd_ray.config.sections import ExtractConfig
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.execution.dead_letters import ErrorBudget
from bertkd_ray.execution.stage import StageContext
from bertkd_ray.softlabels import scoring
from bertkd_ray.softlabels.extract import ExtractJob, ShardWriter, shard_name
from bertkd_ray.softlabels.shards import decode_labels
from bertkd_ray.student import distill
from tests.helpers.killable_processes import is_killed, kills_until_done
from tests.helpers.local_project import InProcessRuntime, Project, extracted
from tests.helpers.poison_records import artifact_bytes, kill_on_poison_records, pending_on_corpus, with_poison_records

PAIRS = 242
FRAGMENT = 64
ROWS = [3, 40, 70]
"""Two pairs of the first fragment, one in each of its row groups, and one of the second."""


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    project = Project(tmp_path_factory.mktemp("project"))
    project.labels()
    return project


@pytest.fixture(scope="module")
def corpus(project) -> Artifact:
    return with_poison_records(project.corpus(), "train", "tgt_ids", ROWS, "a" * 16)[0]


def pending_labels_on(project: Project, corpus: Artifact, fingerprint: str) -> PendingArtifact:
    return pending_on_corpus(corpus, project.pending_labels(), fingerprint)


def made(project: Project, corpus: Artifact, fingerprint: str, share: float, runtime: Any = None) -> Artifact:
    pending = pending_labels_on(project, corpus, fingerprint)
    return extracted(pending, project.with_max_rejects(share), runtime or InProcessRuntime(), corpus, project.teacher())


def table_of(artifact: Artifact) -> list[dict[str, Any]]:
    return pq.read_table(artifact.path("rejects.parquet")).to_pylist()


@pytest.fixture(scope="module")
def labels(project, corpus) -> Artifact:
    return made(project, corpus, "b" * 16, 0.02)


def test_raising_pairs_end_in_the_table(labels, corpus):
    rejects = table_of(labels)
    # An id is the line's position in the input, and none of the first lines is dropped.
    assert [one["id"] for one in rejects] == ROWS
    for one in rejects:
        assert one["reason"].startswith("IndexError: index 60000 is out of bounds for axis 0 with size ")
        assert one["tries"] > 1
        assert one["fragment"] == f"train/fragment-{one['id'] // FRAGMENT:06d}.parquet"
        assert "in cmlm_batch" in one["traceback"]
    assert labels.metrics["rejects"] == 3
    assert labels.metrics["pairs"] == PAIRS - 3


def test_the_rest_is_scored_as_it_would_be_without_them(project, labels):
    for entry in project.labels().files_below("shard-"):
        ours = pq.read_table(labels.path(entry.path))
        theirs = pq.read_table(project.labels().path(entry.path))
        keep = [row for row, pair in enumerate(theirs["id"].to_pylist()) if pair not in ROWS]
        theirs = theirs.take(keep).combine_chunks()
        assert ours.select(["id", "src_ids", "tgt_ids"]).equals(theirs.select(["id", "src_ids", "tgt_ids"]))
        soft, expected = decode_labels(ours), decode_labels(theirs)
        assert np.array_equal(soft.offsets, expected.offsets)
        # Float32 sums over other paddings differ in the last bits alone.
        np.testing.assert_allclose(soft.logsumexp, expected.logsumexp, rtol=1e-5)
        np.testing.assert_allclose(soft.topk_logits, expected.topk_logits, rtol=2.0**-10, atol=1e-5)


def test_the_row_groups_lose_the_rejected_pairs_and_the_manifest_says_so(labels):
    groups = {entry.path: entry.row_groups for entry in labels.files_below("shard-")}
    assert groups == {
        "shard-000000.parquet": [31, 31],
        "shard-000001.parquet": [31, 32],
        "shard-000002.parquet": [32, 32],
        "shard-000003.parquet": [32, 18],
    }
    assert list(labels.problems(checksums=True)) == []


def test_making_it_again_gives_the_same_bytes(project, corpus, labels):
    assert artifact_bytes(made(project, corpus, "c" * 16, 0.5).uri) == artifact_bytes(labels.uri)


def test_it_is_said_on_the_terminal(project, corpus, capsys):
    pending = pending_labels_on(project, corpus, "d" * 16)
    extracted(pending, project.with_max_rejects(0.02), InProcessRuntime(), corpus, project.teacher())
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "rejected" in line]
    assert said.startswith(
        "extract  3 of 242 pairs rejected (1.240%); pair 3: IndexError: index 60000 is out of bounds"
    )
    assert said.endswith(f"; all of them: {project.store.root}/{pending.directory}/rejects.parquet")


def test_without_rejects_there_is_no_table(project):
    assert project.labels().metrics["rejects"] == 0
    assert not Path(project.labels().path("rejects.parquet")).exists()


def test_too_many_fail_the_stage_and_a_greater_share_finishes_it(project, corpus, labels):
    pending = pending_labels_on(project, corpus, "e" * 16)
    runtime = InProcessRuntime()
    with pytest.raises(UserError) as error:
        # Two are borne, so the first fragment is finished, and the second is not.
        extracted(pending, project.with_max_rejects(2 / PAIRS), runtime, corpus, project.teacher())
    said = str(error.value)
    assert said.startswith(
        "extract: 3 of 242 pairs rejected (1.240%), more than max_rejects 0.00826446; pair 3: IndexError: index"
    )
    table = f"{project.store.root}/{pending.staging}/rejects.parquet"
    assert said.endswith(f"; all of them: {table}; mend the cause, or raise max_rejects, and run again to go on")
    assert "\n" not in said
    assert pq.read_table(table)["id"].to_pylist() == ROWS
    assert "manifest.json" not in artifact_bytes(pending.store.path(pending.directory))
    # The same limit fails again at once, and a greater one has two fragments left to score.
    again = InProcessRuntime()
    with pytest.raises(UserError, match=r"^extract: 3 of 242 pairs rejected"):
        extracted(pending, project.with_max_rejects(2 / PAIRS), again, corpus, project.teacher())
    assert again.mapped == []
    raised = InProcessRuntime()
    found = extracted(pending, project.with_max_rejects(3 / PAIRS), raised, corpus, project.teacher())
    left = ["shard-000002.parquet", "shard-000003.parquet", "valid-shard-000000.parquet"]
    assert [shard_name(item) for item in raised.mapped] == left
    assert artifact_bytes(found.uri) == artifact_bytes(labels.uri)
    assert pending.store.files(pending.staging) == []


def test_one_fragment_with_too_many_is_given_up_at_once(project, monkeypatch):
    """A teacher that can score nothing is no matter of single pairs, and should not cost days."""
    calls = []

    def nothing_works(self: Any, *arrays: Any) -> None:
        calls.append(arrays)
        raise RuntimeError("cuBLAS\nis not there")

    monkeypatch.setattr(scoring.Scorer, "_score_batch", nothing_works)
    with pytest.raises(
        UserError, match=r"^extract: 1 of 242 pairs rejected .*: RuntimeError: cuBLAS is not there; all"
    ):
        made(project, project.corpus(), "f" * 16, 0.001)
    assert len(calls) < 12


def test_a_fragment_without_any_pair_left_is_an_empty_shard_and_distil_can_be_run(project):
    rows = [*range(FRAGMENT), FRAGMENT + 32, *range(FRAGMENT + 33, 2 * FRAGMENT)]
    empty, ids = with_poison_records(project.corpus(), "train", "tgt_ids", rows, "1" * 16)
    labels = made(project, empty, "2" * 16, 0.9)
    assert [entry.row_groups for entry in labels.files_below("shard-")][:2] == [[], [32]]
    assert len(pq.read_table(labels.path("shard-000000.parquet"))) == 0
    assert [one["id"] for one in table_of(labels)] == ids
    arm = project.config.arm_configs()["distilled"]
    inputs = {"corpus": empty, "softlabels": labels}
    fingerprints = {kind: artifact.fingerprint for kind, artifact in inputs.items()}
    pending = distill.pending_artifact(arm, project.store, fingerprints)
    student = distill.make(pending, StageContext(arm, InProcessRuntime(), inputs))
    assert student.metrics["steps"] == 2


def test_a_pair_whose_logits_do_not_fit_float16_is_rejected(project, monkeypatch):
    plain = scoring.Scorer._score_batch

    def too_large(self: Any, src: Ragged, tgt: Ragged, mask: Any) -> Any:
        ids, logits, sums = plain(self, src, tgt, mask)
        if any(np.array_equal(tgt.row(row), target) for row in range(len(tgt))):
            logits = torch.full_like(logits, 1e5)
        return ids, logits, sums

    entry = project.corpus().files_below("train/")[0]
    target = np.asarray(pq.read_table(project.corpus().path(entry.path))["tgt_ids"][5].as_py())
    monkeypatch.setattr(scoring.Scorer, "_score_batch", too_large)
    # One row a batch, so that the other pairs of a batch keep their logits.
    config = project.with_max_rejects(0.5).model_copy(update={"extract": ExtractConfig(topk=4, forward_tokens=1)})
    pending = PendingArtifact(project.store, "softlabels", "3" * 16, {}, project.pending_labels().inputs)
    labels = extracted(pending, config, InProcessRuntime(), project.corpus(), project.teacher())
    rejects = table_of(labels)
    assert 5 in [one["id"] for one in rejects]
    for one in rejects:
        said = f"OverflowError: pair {one['id']}, target position 0: the teacher has diverged, its logits do not fit "
        assert one["reason"].startswith(said)


def writer(project: Project, corpus: Artifact, artifact: str, share: float = 0.5) -> ShardWriter:
    pending = PendingArtifact(project.store, "softlabels", artifact, {}, {})
    job = ExtractJob(
        storage=project.store.uri,
        artifact=pending.directory,
        staging=pending.staging,
        corpus=corpus.directory,
        teacher=project.teacher().directory,
        config=project.config,
        budget=ErrorBudget("extract", share, PAIRS),
    )
    return ShardWriter(job)


def item(corpus: Artifact, number: int) -> str:
    return corpus.files_below("train/")[number].path


@pytest.fixture
def kills(monkeypatch) -> None:
    """From now on a token that there is not ends the process."""
    from bertkd_ray.teacher import masking

    monkeypatch.setattr(masking, "cmlm_batch", masking.cmlm_batch)
    kill_on_poison_records()
    monkeypatch.setattr(scoring, "cmlm_batch", masking.cmlm_batch)


def test_killing_pairs_end_in_the_table_of_the_next_driver(project, corpus, labels, kills):
    pending = pending_labels_on(project, corpus, "4" * 16)

    def drive() -> None:
        extracted(pending, project.with_max_rejects(0.02), InProcessRuntime(), corpus, project.teacher())

    # A driver that is its own actor: two pairs in one batch, the longer one first, and one in the other fragment.
    assert kills_until_done(drive) == 6 + 4
    found = load(project.store, pending.directory)
    rejects = table_of(found)
    assert [one["id"] for one in rejects] == ROWS
    assert [one["tries"] for one in rejects] == [6, 4, 4]
    assert [one["reason"] for one in rejects] == [f"its process died {one['tries']} times" for one in rejects]
    ours = artifact_bytes(found.uri)
    for entry in labels.files_below("shard-"):
        assert entry.path in ours
        rows = pq.read_table(found.path(entry.path))
        assert rows["id"].equals(pq.read_table(labels.path(entry.path), columns=["id"])["id"])
    # Fragments without poison have the bytes of any other run.
    assert ours["shard-000002.parquet"] == project.store.read(labels.directory, "shard-000002.parquet")


def test_an_actor_goes_on_where_the_one_before_it_died(project, corpus, kills):
    """The same with an actor alone, which begins the fragment again as often as Ray lets it."""
    actor = writer(project, corpus, "5" * 16)
    assert kills_until_done(lambda: actor(item(corpus, 1))) == 4
    # The shard is there: another call computes nothing.
    actor._scorer = None
    assert actor(item(corpus, 1)).name == "shard-000001.parquet"
    assert actor(item(corpus, 1)).dead_letters == 1


def test_what_kills_again_and_again_ends_in_the_limit(project, corpus, kills):
    actor = writer(project, corpus, "6" * 16, share=0.001)
    for _ in range(4):
        assert is_killed(lambda: actor(item(corpus, 1)))
    with pytest.raises(
        UserError, match=r"^extract: 1 of 242 pairs rejected \(0\.413%\), .*; pair 70: its process died 4 times"
    ):
        actor(item(corpus, 1))
    # With a greater share the fragment is finished, and does not kill again.
    assert not is_killed(lambda: writer(project, corpus, "6" * 16)(item(corpus, 1)))


@pytest.mark.parametrize("moments", [[1], [2, 1], [1, 3, 2], [1, 2, 3, 4]])
def test_a_fragment_whose_process_was_taken_away_has_the_same_bytes(project, labels, monkeypatch, moments):
    """Killed at some batch, again and again: an innocent fragment comes out as if nothing had happened."""
    actor = writer(project, project.corpus(), f"{len(moments)}" * 16)
    actor._scorer.batch_tokens = 700
    plain = scoring.Scorer._score_batch

    def killed_at(moment: int) -> Callable[..., Any]:
        calls = itertools.count(1)

        def score_batch(self: Any, *arrays: Any) -> Any:
            if next(calls) == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(self, *arrays)

        return score_batch

    for moment in moments:
        with monkeypatch.context() as patch:
            patch.setattr(scoring.Scorer, "_score_batch", killed_at(moment))
            assert is_killed(lambda: actor(item(project.corpus(), 0)))
    actor(item(project.corpus(), 0))
    undisturbed = writer(project, project.corpus(), "7" * 16)
    undisturbed._scorer.batch_tokens = 700
    undisturbed(item(project.corpus(), 0))
    name = "shard-000000.parquet"
    assert project.store.read(actor._job.artifact, name) == project.store.read(undisturbed._job.artifact, name)


@pytest.mark.parametrize("size", [0, 7, 4000])
def test_a_shard_that_was_cut_off_is_made_again(project, size):
    pending = PendingArtifact(project.store, "softlabels", "8" * 16, project.pending_labels().config, {})
    for entry in [*project.labels().files_below("shard-"), *project.labels().files_below("valid-shard-")]:
        data = project.store.read(project.labels().directory, entry.path)
        cut = entry.path == "shard-000001.parquet"
        project.store.write(data[:size] if cut else data, pending.directory, entry.path)
    runtime = InProcessRuntime()
    found = extracted(pending, project.with_max_rejects(0), runtime, project.corpus(), project.teacher())
    assert [shard_name(fragment) for fragment in runtime.mapped] == ["shard-000001.parquet"]
    assert artifact_bytes(found.uri) == artifact_bytes(project.labels().uri)
