"""The teacher's translations of the training text, their soft labels, and students that train on them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact
from bertkd_ray.artifacts.row_groups import RowGroups
from bertkd_ray.config import Config
from bertkd_ray.core.errors import UserError
from bertkd_ray.corpus.passes import TOKENIZER
from bertkd_ray.corpus.tokenizer import decode, load_tokenizer
from bertkd_ray.execution.stage import StageContext
from bertkd_ray.softlabels import decode as decoding
from bertkd_ray.softlabels import label
from bertkd_ray.softlabels.shards import decode_labels
from bertkd_ray.student import distill
from bertkd_ray.student.task import StudentTask
from bertkd_ray.training.batch_plan import BatchPlan, Streams
from tests.helpers.local_project import InProcessRuntime, Project
from tests.helpers.plain_teacher import PlainTeacher
from tests.helpers.poison_records import artifact_bytes, with_poison_records

pytestmark = pytest.mark.slow

PAIRS = 242


@dataclass
class Speaking:
    """A project with a left-to-right teacher, and what it has made of the training text."""

    project: Project
    decoded: Artifact
    labels: Artifact


def pending_decoded(project: Project, fingerprint: str = "") -> PendingArtifact:
    inputs = {"corpus": project.corpus().fingerprint, "teacher": project.teacher().fingerprint}
    pending = decoding.pending_artifact(project.config, project.store, inputs)
    return replace(pending, fingerprint=fingerprint) if fingerprint else pending


def made(pending: PendingArtifact, config: Config, corpus: Artifact, project: Project, runtime: Any = None) -> Artifact:
    inputs = {"corpus": corpus, "teacher": project.teacher()}
    return decoding.make(pending, StageContext(config, runtime or InProcessRuntime(), inputs))


@pytest.fixture(scope="module")
def speaking(tmp_path_factory) -> Speaking:
    project = Project(
        tmp_path_factory.mktemp("project"),
        "teacher.direction=left_to_right",
        "decode.beam=1",
        "arms={distilled: {}, instead: {kd.sequence: instead}, beside: {kd.sequence: beside}, "
        "hard: {kd.sequence: beside, kd.alpha: 0}, control: {kd.alpha: 0}}",
    )
    decoded = made(pending_decoded(project), project.config, project.corpus(), project)
    inputs = {"decoded": decoded, "teacher": project.teacher()}
    pending = label.pending_artifact(
        project.config, project.store, {kind: artifact.fingerprint for kind, artifact in inputs.items()}
    )
    return Speaking(project, decoded, label.make(pending, StageContext(project.config, InProcessRuntime(), inputs)))


@pytest.fixture(scope="module")
def plain(speaking) -> PlainTeacher:
    return PlainTeacher(speaking.project)


def test_every_source_is_translated_under_its_id_in_the_fragments_of_the_corpus(speaking):
    corpus, decoded = speaking.project.corpus(), speaking.decoded
    for entry in corpus.files_below("train/"):
        ours, theirs = pq.read_table(decoded.path(entry.path)), pq.read_table(corpus.path(entry.path))
        assert ours.schema.remove_metadata() == decoding.DECODED_SCHEMA
        assert ours.select(["id", "src", "src_ids"]).equals(theirs.select(["id", "src", "src_ids"]))
    groups = {
        artifact.directory: [e.row_groups for e in artifact.files_below("train/")] for artifact in (corpus, decoded)
    }
    assert groups[decoded.directory] == groups[corpus.directory]
    assert decoded.info["vocabulary"] == corpus.info["vocabulary"]
    assert decoded.metrics["train/pairs"] == PAIRS


def test_a_translation_is_what_the_teacher_writes_from_left_to_right(speaking, plain):
    table = speaking.decoded.read_table("train/")
    tokenizer = load_tokenizer(Path(speaking.project.corpus().path(TOKENIZER)))
    for row in (0, 5, 77):
        src, tgt = table["src_ids"][row].as_py(), table["tgt_ids"][row].as_py()
        expected, total = plain.greedy(src, 2 * len(src) + 10)
        assert tgt == expected[:100]  # corpus.max_side_tokens
        length = len(expected) + 1 if len(expected) < 2 * len(src) + 10 else len(expected)
        penalty = ((5 + length + 1) / 6) ** 0.6
        assert table["score"][row].as_py() == pytest.approx(total / penalty, rel=1e-4)
        assert table["tgt"][row].as_py() == decode(tokenizer, [tgt])[0]


def test_figures_are_those_of_the_table(speaking):
    table, corpus = speaking.decoded.read_table("train/"), speaking.project.corpus().read_table("train/")
    ours, theirs = (of["tgt_ids"].to_pylist() for of in (table, corpus))
    src = [len(row) for row in table["src_ids"].to_pylist()]
    metrics = speaking.decoded.metrics
    assert metrics["train/tgt_tokens"] == sum(map(len, ours))
    assert metrics["length_ratio"] == pytest.approx(sum(map(len, ours)) / sum(map(len, theirs)))
    assert metrics["as_reference"] == np.mean([our == their for our, their in zip(ours, theirs, strict=True)])
    assert metrics["empty"] == np.mean([our == [] for our in ours])
    at_limit = [len(our) >= min(2 * length + 10, 100) for our, length in zip(ours, src, strict=True)]
    assert metrics["unended"] == np.mean(at_limit)


def test_no_translation_is_longer_than_a_target_of_the_corpus_may_be(speaking):
    """So that its soft labels fit into the teacher, and its batches into the student's budget."""
    project = speaking.project
    longest = max(map(len, project.corpus().read_table("train/")["src_ids"].to_pylist()))
    limits = {"max_side_tokens": 7, "max_pair_tokens": longest + 3}
    corpus = project.config.corpus.model_copy(update=limits)
    config = project.config.model_copy(update={"corpus": corpus})
    table = made(pending_decoded(project, "9" * 16), config, project.corpus(), project).read_table("train/")
    lengths = [len(row) for row in table["tgt_ids"].to_pylist()]
    sources = [len(row) for row in table["src_ids"].to_pylist()]
    allowed = [min(7, longest + 3 - length) for length in sources]
    assert all(length <= limit for length, limit in zip(lengths, allowed, strict=True))
    assert max(lengths) == 7
    assert min(allowed) == 3


def test_a_run_that_was_cut_off_goes_on_with_the_fragments_that_are_missing(speaking):
    project, pending = speaking.project, pending_decoded(speaking.project, "1" * 16)
    files = [entry.path for entry in speaking.decoded.files_below("train/")]
    for number, name in enumerate(files[:3]):
        data = project.store.read(speaking.decoded.directory, name)
        project.store.write(data[:900] if number == 1 else data, pending.directory, name)
    runtime = InProcessRuntime()
    decoded = made(pending, project.config, project.corpus(), project, runtime)
    assert runtime.mapped == [files[1], *files[3:]]
    for name in files:
        assert project.store.read(decoded.directory, name) == project.store.read(speaking.decoded.directory, name)
    assert decoded.metrics == speaking.decoded.metrics


def test_sources_that_cannot_be_translated_are_dead_letters_and_the_rest_is_translated(speaking):
    project = speaking.project
    rows = [3, 40, 70]
    corpus, ids = with_poison_records(project.corpus(), "train", "src_ids", rows, "a" * 16)
    with pytest.raises(UserError, match=r"^decode: 2 of 242 pairs rejected .* more than max_rejects 0\.005.*pair 3: "):
        made(pending_decoded(project, "2" * 16), project.with_max_rejects(0.005), corpus, project)
    decoded = made(pending_decoded(project, "2" * 16), project.with_max_rejects(0.02), corpus, project)
    rejects = pq.read_table(decoded.path("rejects.parquet")).to_pylist()
    assert [one["id"] for one in rejects] == ids
    assert {one["fragment"] for one in rejects} == {"train/fragment-000000.parquet", "train/fragment-000001.parquet"}
    assert (decoded.metrics["rejects"], decoded.metrics["train/pairs"]) == (3, PAIRS - 3)
    whole = speaking.decoded.read_table("train/")
    kept = [row for row, pair in enumerate(whole["id"].to_pylist()) if pair not in ids]
    ours, theirs = decoded.read_table("train/"), whole.take(kept)
    assert ours["id"].to_pylist() == theirs["id"].to_pylist()
    # Float32 sums over other paddings may break near ties the other way.
    same = [our == their for our, their in zip(ours["tgt_ids"].to_pylist(), theirs["tgt_ids"].to_pylist(), strict=True)]
    assert np.mean(same) > 0.95
    assert [entry.row_groups for entry in decoded.files_below("train/")][:2] == [[31, 31], [31, 32]]


def test_progress_is_counted_inside_of_a_fragment(speaking):
    class Counting(InProcessRuntime):
        def reporting(self, on_done: Any) -> Any:
            def note(name: str, done: int) -> None:
                counts.append((name, done))
                on_done(name, done)

            return super().reporting(note)

    counts: list[tuple[str, int]] = []
    project = speaking.project
    small = project.config.model_copy(
        update={"decode": project.config.decode.model_copy(update={"forward_tokens": 512})}
    )
    made(pending_decoded(project, "3" * 16), small, project.corpus(), project, Counting())
    first = [done for name, done in counts if name == "train/fragment-000000.parquet"]
    assert len(first) > 2
    assert first == sorted(first)
    assert first[-1] == 64


def test_soft_labels_are_the_teachers_of_its_own_translation(speaking, plain):
    table = pq.read_table(speaking.labels.path("shard-000001.parquet"))
    pairs = pq.read_table(speaking.decoded.path("train/fragment-000001.parquet"))
    assert table.select(["id", "src_ids", "tgt_ids"]).equals(pairs.select(["id", "src_ids", "tgt_ids"]))
    labels = decode_labels(table)
    for row in (0, 9):
        logits = plain.logits(table["src_ids"][row].as_py(), table["tgt_ids"][row].as_py())
        start, end = labels.offsets[row : row + 2]
        best = logits.topk(4, dim=1)
        assert np.allclose(labels.topk_logits[start:end], best.values.numpy(), rtol=2e-3, atol=2e-3)
        assert np.allclose(labels.logsumexp[start:end], logits.logsumexp(1).numpy(), rtol=1e-4)
    assert speaking.labels.inputs == {
        "decoded": speaking.decoded.fingerprint,
        "teacher": speaking.project.teacher().fingerprint,
    }


def test_a_label_that_cannot_be_made_is_said_of_the_label_stage(speaking, monkeypatch):
    from bertkd_ray.softlabels import scoring

    def nothing_works(self: Any, *arrays: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(scoring.Scorer, "_score_batch", nothing_works)
    project = speaking.project
    pending = PendingArtifact(project.store, "decodedlabels", "4" * 16, {}, {})
    inputs = {"decoded": speaking.decoded, "teacher": project.teacher()}
    with pytest.raises(UserError, match=r"^label: 1 of 242 pairs rejected"):
        label.make(pending, StageContext(project.config, InProcessRuntime(), inputs))


def inputs_of(speaking: Speaking) -> dict[str, Artifact]:
    project = speaking.project
    return {
        "corpus": project.corpus(),
        "softlabels": project.labels(),
        "decoded": speaking.decoded,
        "decodedlabels": speaking.labels,
    }


@pytest.mark.parametrize(
    ("arm", "kinds"),
    [
        ("control", []),
        ("distilled", ["softlabels"]),
        ("instead", ["decodedlabels"]),
        ("beside", ["softlabels", "decodedlabels"]),
        ("hard", ["decoded"]),
    ],
)
def test_a_student_is_made_from_what_it_trains_on(speaking, arm, kinds):
    config, inputs = speaking.project.config.arm_configs()[arm], inputs_of(speaking)
    fingerprints = {kind: artifact.fingerprint for kind, artifact in inputs.items()}
    pending = distill.pending_artifact(config, speaking.project.store, fingerprints)
    assert set(pending.inputs) == {"corpus", *kinds}
    student = distill.make(pending, StageContext(config, InProcessRuntime(), inputs))
    assert student.metrics["steps"] == 2, "every arm has the same number of updates"


def test_translations_of_another_corpus_are_refused(speaking):
    inputs = inputs_of(speaking)
    other = replace(speaking.decoded, inputs={**speaking.decoded.inputs, "corpus": "f" * 16})
    for arm, stage in (("instead", "label"), ("hard", "decode")):
        config = speaking.project.config.arm_configs()[arm]
        pending = PendingArtifact(speaking.project.store, "student", "5" * 16, {}, {})
        with pytest.raises(UserError, match=rf"belongs to corpus f{{16}}, not to .*; run {stage} again"):
            distill.make(pending, StageContext(config, InProcessRuntime(), {**inputs, "decoded": other}))


@pytest.mark.parametrize("workers", [1, 2])
def test_references_and_translations_count_the_same_in_batches_of_any_number_of_workers(speaking, workers):
    corpus, settings = speaking.project.corpus(), speaking.project.config.student
    columns = ["id", "src_ids", "tgt_ids"]
    groups = RowGroups(corpus, "train/", columns) + RowGroups(speaking.decoded, "train/", columns)
    assert groups.rows.sum() == 2 * PAIRS

    def steps(rank: int, workers: int) -> Iterator[list[pa.Table]]:
        streams = Streams(
            BatchPlan(groups.rows, settings.micro_batches, 1, window_pairs=64),
            budget=settings.batch_tokens // settings.micro_batches,
            read=groups.read,
            lengths=object.__new__(StudentTask).lengths,
            rank=rank,
            workers=workers,
        )
        with_close = itertools.islice(iter(streams.step, None), 60)
        yield from ([micro.rows for micro in micros] for micros in with_close)
        streams.close()

    alone = [rows for step in steps(0, 1) for rows in step]
    shared = [
        rows
        for step in zip(*(steps(rank, workers) for rank in range(workers)), strict=True)
        for of in step
        for rows in of
    ]
    assert len(alone) == len(shared) == 120
    assert all(one.equals(other) for one, other in zip(alone, shared, strict=True))
    # In an epoch every id stands there twice: with its reference and with its translation.
    epoch = pa.concat_tables([groups.read(np.arange(len(groups.rows)))])
    assert set(np.unique(epoch["id"].to_numpy(), return_counts=True)[1]) == {2}


def test_bytes_do_not_depend_on_the_order_of_fragments(speaking):
    class Backwards(InProcessRuntime):
        def map(self, items: Any, worker: Any, job: Any) -> Any:
            return super().map(list(reversed(items)), worker, job)

    project = speaking.project
    decoded = made(pending_decoded(project, "6" * 16), project.config, project.corpus(), project, Backwards())
    ours, theirs = (artifact_bytes(f"{artifact.uri}/train") for artifact in (decoded, speaking.decoded))
    assert ours == theirs
