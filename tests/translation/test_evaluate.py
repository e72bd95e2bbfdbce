"""Evaluate without Ray: a left-to-right teacher's translations of valid and test, their scores, and what is borne."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import sacrebleu

from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.corpus.tokenizer import decode, load_bert_ids, load_tokenizer
from bertkd_ray.teacher.decoding import translate_ids
from bertkd_ray.teacher.finetune import MODEL
from bertkd_ray.teacher.masking import BertSpecials
from bertkd_ray.teacher.model import load_teacher
from bertkd_ray.translation import parts
from bertkd_ray.translation.evaluate import VALID_TRANSLATIONS
from bertkd_ray.translation.translate import TRANSLATIONS, best_hypotheses, read_translations
from tests.helpers.local_project import InProcessRuntime, Project, evaluated
from tests.helpers.poison_records import pending_on_corpus, with_poison_records

VALID, TEST = 24, 20


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    directory = tmp_path_factory.mktemp("forward")
    Project(directory)
    steps = ["teacher.steps=60", "teacher.eval_every=60", "teacher.peak_lr=1e-2"]
    return Project(directory, "teacher.direction=left_to_right", *steps)


@pytest.fixture(scope="module")
def evaluation(project: Project) -> Artifact:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_PART_ROWS", 6)
        return evaluated(
            project.pending_evaluation(),
            project.with_max_rejects(0),
            project.runtime,
            project.corpus(),
            project.teacher(),
        )


@pytest.mark.parametrize(("split", "file", "beam"), [("valid", VALID_TRANSLATIONS, 1), ("test", TRANSLATIONS, 2)])
def test_valid_is_translated_greedily_and_test_as_configured(
    project: Project, evaluation: Artifact, split: str, file: str, beam: int
) -> None:
    table, corpus = pq.read_table(evaluation.path(file)), pq.read_table(project.corpus().path(split))
    tokenizer = project.corpus().path("tokenizer")
    directory = project.teacher().path(MODEL)
    specials = BertSpecials(**json.loads(Path(directory, "specials.json").read_text()))
    src = Ragged.from_arrow(corpus["src_ids"])
    model, bert_ids = load_teacher(directory), load_bert_ids(tokenizer)
    expected = translate_ids(model, bert_ids, specials, src, beam=beam, alpha=0.6, n_best=beam)
    assert table["id"].to_pylist() == corpus["id"].to_pylist()
    assert table["reference"].to_pylist() == corpus["tgt"].to_pylist()
    texts = [decode(load_tokenizer(tokenizer), [one.ids for one in of_row]) for of_row in expected]
    assert table["hypotheses"].to_pylist() == texts
    for ours, theirs in zip(table["scores"].to_pylist(), expected, strict=True):
        assert ours == pytest.approx([one.score for one in theirs], abs=1e-4)


def test_scores_are_sacrebleus_on_the_best_hypotheses(evaluation: Artifact) -> None:
    for split, table in (
        ("test", read_translations(evaluation)),
        ("valid", pq.read_table(evaluation.path(VALID_TRANSLATIONS))),
    ):
        hypotheses, references = best_hypotheses(table), table["reference"].to_pylist()
        assert evaluation.metrics[f"{split}/bleu"] == sacrebleu.corpus_bleu(hypotheses, [references]).score
        assert evaluation.metrics[f"{split}/chrf"] == sacrebleu.corpus_chrf(hypotheses, [references]).score
    assert (evaluation.metrics["valid/sentences"], evaluation.metrics["test/sentences"]) == (VALID, TEST)
    assert evaluation.metrics["test/sentences_per_second"] > 0
    assert (evaluation.info["trained_in"], evaluation.info["precision"]) == ("float32", "float32")


def test_the_artifact_names_what_it_was_made_from(project: Project, evaluation: Artifact) -> None:
    files = [name for name, _ in project.store.files(evaluation.directory)]
    assert files == ["manifest.json", "translations.parquet", "valid.parquet"]
    assert evaluation.inputs == {
        "corpus": project.corpus().fingerprint,
        "teacher": project.teacher().fingerprint,
    }


def test_what_is_translated_is_kept_and_bad_sentences_are_borne(
    project: Project, evaluation: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "_PART_ROWS", 6)
    corpus, ids = with_poison_records(project.corpus(), "test", "src_ids", [7, 12], "a" * 16)
    work = pending_on_corpus(corpus, project.pending_evaluation(), "b" * 16)
    with pytest.raises(UserError, match=r"^evaluate: 2 of 44 pairs rejected \(4\.545%\), .*; pair 7: IndexError"):
        evaluated(work, project.with_max_rejects(0.04), InProcessRuntime(), corpus, project.teacher())
    last = InProcessRuntime()
    found = evaluated(work, project.with_max_rejects(0.1), last, corpus, project.teacher())
    assert [(part.file.partition("/")[0], part.start) for part in last.mapped] == [("test", 18)]
    rejects = pq.read_table(found.path("rejects.parquet")).to_pylist()
    assert [(one["id"], one["fragment"]) for one in rejects] == [(pair, "test/fragment-000000.parquet") for pair in ids]
    assert found.metrics["rejects"] == 2
    ours, theirs = (read_translations(of).to_pylist() for of in (found, evaluation))
    assert [row for row in range(TEST) if ours[row]["hypotheses"] == [""]] == [7, 12]
    assert ours[3]["hypotheses"] == theirs[3]["hypotheses"]
    assert project.store.files(work.staging) == []


def test_a_source_that_fills_the_positions_is_told(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = project.corpus()
    longest = max(map(len, pq.read_table(corpus.path("test"))["src_ids"].to_pylist()))
    teacher = replace(project.teacher())
    read = teacher.read_json

    class Narrow(Artifact):
        def read_json(self, *path: str) -> dict[str, object]:
            return {**read(*path), "max_position_embeddings": longest + 2}

    narrow = Narrow(**vars(teacher))
    work = pending_on_corpus(corpus, project.pending_evaluation(), "c" * 16)
    evaluated(work, project.with_max_rejects(0), InProcessRuntime(), corpus, narrow)
    said = capsys.readouterr().err
    assert f"sources of test fill the teacher's {longest + 2} positions; their translations are empty" in said
