"""Extract without Ray: the actor on a small store, what a shard holds, and going on after a cut."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.execution.attempts import Attempt
from bertkd_ray.execution.dead_letters import ErrorBudget
from bertkd_ray.softlabels.extract import ExtractJob, ShardWriter, shard_name
from bertkd_ray.softlabels.fidelity import PARTS, Fidelity, fidelity, fidelity_by_part
from bertkd_ray.softlabels.scoring import Scorer
from bertkd_ray.softlabels.shards import decode_labels
from bertkd_ray.student.task import Validation
from tests.helpers.local_project import InProcessRuntime, Project, extracted

K, PASSES = 4, 7


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def labels(project) -> Artifact:
    return project.labels()


@pytest.fixture(scope="module")
def corpus(project, labels) -> Artifact:
    return project.corpus()


def writer(project: Project, artifact: str, **settings: Any) -> ShardWriter:
    """An actor that writes into a directory of the project's store."""
    return ShardWriter(job(project, project.corpus(), artifact, **settings))


def job(project: Project, corpus: Artifact, artifact: str, **settings: Any) -> ExtractJob:
    extract = project.config.extract.model_copy(update=settings)
    return ExtractJob(
        storage=project.store.uri,
        artifact=artifact,
        staging=f"work/{artifact}",
        corpus=corpus.directory,
        teacher=project.teacher().directory,
        config=project.config.model_copy(update={"extract": extract}),
        budget=ErrorBudget("extract", 0.0, 1),
    )


def test_one_shard_a_fragment_with_its_name_rows_and_row_groups(corpus, labels):
    fragments = {entry.path: entry.row_groups for entry in corpus.files_below("train/")}
    shards = {shard_name(fragment): row_groups for fragment, row_groups in fragments.items()}
    assert {entry.path: entry.row_groups for entry in labels.files_below("shard-")} == shards
    assert list(shards) == [f"shard-{number:06d}.parquet" for number in range(4)]
    for fragment in fragments:
        columns = ["id", "src_ids", "tgt_ids"]
        ours = pq.read_table(labels.path(shard_name(fragment)), columns=columns)
        theirs = pq.read_table(corpus.path(fragment))
        assert ours.equals(theirs.select(columns))


def test_every_position_has_k_sorted_logits_and_its_logsumexp(labels):
    for entry in labels.files_below("shard-"):
        table = pq.read_table(labels.path(entry.path))
        tgt, soft = Ragged.from_arrow(table["tgt_ids"]), decode_labels(table)
        assert soft.topk_ids.shape == soft.topk_logits.shape == (len(tgt.values) + len(tgt), K)
        logits = soft.topk_logits.astype(np.float32)
        assert (np.diff(logits, axis=1) <= 0).all()
        # A float16 is within 2^-11 of the logit, which is below the sum over the whole vocabulary.
        assert (logits[:, 0] <= soft.logsumexp + np.abs(logits[:, 0]) * 2.0**-11).all()
        assert soft.topk_ids.max() < labels.info["vocabulary"]


def test_the_measured_figures_stand_in_the_schema_and_sum_up_to_the_report(labels):
    total, pairs = Fidelity(), 0
    parts = dict.fromkeys(PARTS, Fidelity())
    for entry in labels.files_below("shard-"):
        stats = json.loads(pq.read_schema(labels.path(entry.path)).metadata[b"stats"])
        table = pq.read_table(labels.path(entry.path))
        tgt, soft = Ragged.from_arrow(table["tgt_ids"]), decode_labels(table)
        measured = Fidelity(**stats["fidelity"])
        assert measured == fidelity(soft, tgt)
        assert (stats["rows"], stats["rejects"]) == (len(tgt), 0)
        total, pairs = total + measured, pairs + stats["rows"]
        for part, of_part in fidelity_by_part(soft, tgt).items():
            assert Fidelity(**stats["fidelity_by_part"][part]) == of_part
            parts[part] += of_part
    assert labels.metrics["pairs"] == pairs == 242
    assert labels.metrics["rejects"] == 0
    for name, value in total.report().items():
        assert labels.metrics["positions" if name == "positions" else f"fidelity/{name}"] == value
    for part, of_part in parts.items():
        for name, value in of_part.report().items():
            # No perplexity where none of the references is among the k.
            assert labels.metrics.get(f"fidelity/{part}/{name}") == (value if math.isfinite(value) else None)
    assert labels.metrics["fidelity/end/positions"] == pairs


def test_the_valid_split_has_labels_that_no_figure_counts(project, corpus, labels):
    (fragment,) = corpus.files_below("valid/")
    (shard,) = labels.files_below("valid-shard-")
    assert shard.path == "valid-shard-000000.parquet"
    columns = ["id", "src_ids", "tgt_ids"]
    table, pairs = pq.read_table(labels.path(shard.path)), pq.read_table(corpus.path(fragment.path))
    assert table.select(columns).equals(pairs.select(columns))
    tgt, soft = Ragged.from_arrow(table["tgt_ids"]), decode_labels(table)
    assert soft.topk_ids.shape == (len(tgt.values) + len(tgt), K)
    # As the training text's are computed: the sums of a pair alone are those of all together.
    scorer = writer(project, "alone")._scorer
    rows = np.array([1])
    isolation = (
        job(project, corpus, "alone")
        .of_valid(1)
        .isolation(project.store, rows, Attempt(project.store, "alone", "one"), fragment.path, scorer.device)
    )
    one = scorer.score(Ragged.from_arrow(table["src_ids"]).take(rows), tgt.take(rows), rows, isolation)
    np.testing.assert_allclose(one.logsumexp, soft.take(rows).logsumexp, rtol=1e-5)
    assert labels.metrics["pairs"] == sum(entry.rows for entry in corpus.files_below("train/"))


def test_pairs_of_the_valid_split_that_cannot_be_scored_are_no_fault(project, corpus, monkeypatch):
    score = Scorer.score

    def fail_on_the_first(self, src, tgt, ids, isolation):
        if isolation._fragment.startswith("valid/"):
            isolation.add_dead_letter(0, "broken")
        return score(self, src, tgt, ids, isolation)

    monkeypatch.setattr(Scorer, "score", fail_on_the_first)
    work = project.pending_labels()
    elsewhere = PendingArtifact(work.store, work.stage, "3" * 16, work.config, work.inputs)
    made = extracted(elsewhere, project.with_max_rejects(0), InProcessRuntime(), corpus, project.teacher())
    assert made.metrics["rejects"] == 0
    assert not made.files_below("rejects")
    (shard,) = made.files_below("valid-shard-")
    assert shard.rows == corpus.files_below("valid/")[0].rows - 1
    # A curve of some of the pairs would be of others than the curve of the references beside it.
    assert Validation.of(corpus, made).labels is None


def test_shards_of_an_earlier_version_are_finished_without_figures_of_parts(project, labels):
    work = project.pending_labels()
    elsewhere = PendingArtifact(work.store, work.stage, "2" * 16, work.config, work.inputs)
    for entry in labels.files_below("shard-"):
        table = pq.read_table(labels.path(entry.path))
        stats = json.loads(table.schema.metadata[b"stats"])
        del stats["fidelity_by_part"], stats["fidelity"]["gold_nll"]
        earlier = table.replace_schema_metadata({**table.schema.metadata, b"stats": json.dumps(stats)})
        sink = pa.BufferOutputStream()
        pq.write_table(earlier, sink)
        work.store.write(bytes(sink.getvalue()), elsewhere.directory, entry.path)
    runtime: Any = InProcessRuntime()
    made = extracted(elsewhere, project.with_max_rejects(0), runtime, project.corpus(), project.teacher())
    assert runtime.mapped == ["valid/fragment-000000.parquet"]  # which that version had no labels of
    assert {name for name in made.metrics if name.startswith("fidelity/")} == {
        f"fidelity/{name}" for name in ("topk_mass", "gold_first", "gold_in_topk", "entropy_t1", "entropy_t10")
    }


def test_the_manifest_says_how_the_labels_were_made(project, labels):
    assert labels.inputs == {
        "corpus": project.corpus().fingerprint,
        "teacher": project.teacher().fingerprint,
    }
    assert labels.info == {
        "k": K,
        "mask_scheme": f"strided, {PASSES} passes",
        "vocabulary": project.corpus().info["vocabulary"],
        "topk_ids": "list<element: uint16>",
        "topk_logits": "float16",
        "logsumexp": "float32",
        "precision": "float32",
    }


def test_a_shard_is_byte_for_byte_the_same_when_computed_again(project, corpus, labels):
    fragment = corpus.files_below("train/")[1].path
    shard = writer(project, "again")(fragment)
    assert shard.name == "shard-000001.parquet"
    assert shard.rows == 64
    again = project.store.read("again", shard.name)
    assert again == project.store.read(labels.directory, shard.name)


def test_the_budget_changes_the_batches_and_not_the_labels(project, corpus, labels):
    """Float32 sums over other paddings differ in the last bits alone."""
    fragment = corpus.files_below("train/")[3].path
    writer(project, "small", forward_tokens=300)(fragment)
    soft = [
        decode_labels(pq.read_table(path))
        for path in (project.store.path("small", shard_name(fragment)), labels.path(shard_name(fragment)))
    ]
    np.testing.assert_allclose(soft[0].logsumexp, soft[1].logsumexp, rtol=1e-5)
    # One unit of the float16 at most.
    np.testing.assert_allclose(soft[0].topk_logits, soft[1].topk_logits, rtol=2.0**-10, atol=1e-5)


def test_only_what_is_missing_is_computed(project, labels):
    work = project.pending_labels()
    elsewhere = PendingArtifact(work.store, work.stage, "0" * 16, work.config, work.inputs)
    names = [entry.path for entry in labels.files_below("shard-")]
    kept = names[0], names[2], "valid-shard-000000.parquet"
    for name in kept:
        work.store.write(work.store.read(labels.directory, name), elsewhere.directory, name)
    runtime: Any = InProcessRuntime()
    made = extracted(elsewhere, project.with_max_rejects(0), runtime, project.corpus(), project.teacher())
    assert [shard_name(item) for item in runtime.mapped] == [names[1], names[3]]
    for name in names:
        assert pq.read_table(made.path(name)).equals(pq.read_table(labels.path(name)))
    assert {name: value for name, value in made.metrics.items() if name.startswith("fidelity/")} == {
        name: value for name, value in labels.metrics.items() if name.startswith("fidelity/")
    }


def test_nothing_missing_computes_nothing(project, labels):
    work = project.pending_labels()
    elsewhere = PendingArtifact(work.store, work.stage, "1" * 16, work.config, work.inputs)
    for entry in [*labels.files_below("shard-"), *labels.files_below("valid-shard-")]:
        work.store.write(work.store.read(labels.directory, entry.path), elsewhere.directory, entry.path)
    runtime: Any = InProcessRuntime()
    made = extracted(elsewhere, project.with_max_rejects(0), runtime, project.corpus(), project.teacher())
    assert runtime.mapped == []
    assert made.metrics == labels.metrics


def test_a_teacher_of_another_corpus_is_refused(project, labels, tmp_path):
    """A tenth of the text has fewer tokens than this teacher predicts."""
    other = project.variant(tmp_path, "corpus.train.src=valid.de.gz", "corpus.train.tgt=valid.en.gz").corpus()
    project.store.upload(Path(other.uri), other.directory)
    with pytest.raises(UserError, match="run finetune on this corpus"):
        ShardWriter(job(project, other, "scratch"))


def test_what_a_reader_of_a_window_gets(labels):
    """Row groups can be read by themselves: this is how the student's data is read."""
    file = pq.ParquetFile(labels.path("shard-000000.parquet"))
    parts = [file.read_row_group(index, columns=["tgt_ids", "logsumexp"]) for index in range(2)]
    for part in parts:
        assert len(part) == 32
        tgt, sums = Ragged.from_arrow(part["tgt_ids"]), Ragged.from_arrow(part["logsumexp"])
        assert np.array_equal(sums.lengths, tgt.lengths + 1)
