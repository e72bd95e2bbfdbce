"""Translate without Ray: the actor on a small store, the table of translations and its scores."""

from __future__ import annotations

import gzip
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import sacrebleu

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact, load
from bertkd_ray.core.errors import UserError
from bertkd_ray.corpus.moses import tokenise, unescape_moses
from bertkd_ray.decoding import seq2seq
from bertkd_ray.decoding.batches import Translation
from bertkd_ray.evaluation.metrics import legacy_bleu
from bertkd_ray.execution.dead_letters import ErrorBudget
from bertkd_ray.execution.resumable_map import FinishedFile
from bertkd_ray.translation import parts
from bertkd_ray.translation.parts import Part, TranslateJob
from bertkd_ray.translation.translate import StudentTranslator, best_hypotheses, read_translations
from tests.helpers.killable_processes import kills_until_done
from tests.helpers.local_project import InProcessRuntime, Project, translated
from tests.helpers.poison_records import NO_TOKEN, pending_on_corpus, with_poison_records

ROWS = 20


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    directory = tmp_path_factory.mktemp("project")
    project = Project(directory)
    # Line 3 of the test set has no source text.
    path = directory / "text" / "test.de.gz"
    lines = gzip.decompress(path.read_bytes()).decode().split("\n")
    path.write_bytes(gzip.compress("\n".join([*lines[:3], "", *lines[4:]]).encode()))
    project.corpus(), project.control()
    return project


def translator(project: Project, work: str = "scratch", **settings: Any) -> StudentTranslator:
    config = project.config
    job = TranslateJob(
        storage=project.store.uri,
        staging=work,
        corpus=project.corpus().directory,
        model=project.control().directory,
        config=config.model_copy(update={"translate": config.translate.model_copy(update=settings)}),
        budget=ErrorBudget("translate", 0.0, ROWS),
    )
    return StudentTranslator(job)


def part(project: Project, start: int = 0, rows: int = ROWS) -> Part:
    file = project.corpus().files_below("test/")[0].path
    return Part(file, start, rows, f"{start}-{rows}.parquet")


@pytest.fixture(scope="module")
def table(project):
    assert translator(project)(part(project)) == FinishedFile(part(project).name, ROWS, 0)
    return pq.read_table(project.store.path("scratch", f"0-{ROWS}.parquet"))


def test_source_reference_and_hypotheses_stand_side_by_side(project, table):
    corpus = pq.read_table(project.corpus().path("test"))
    assert table.column_names == ["id", "source", "reference", "hypotheses", "scores"]
    for ours, theirs in (("id", "id"), ("source", "src"), ("reference", "tgt")):
        assert table[ours].to_pylist() == corpus[theirs].to_pylist()


def test_the_n_best_hypotheses_come_best_first(table):
    for row in table.to_pylist():
        if row["source"]:
            assert len(row["hypotheses"]) == len(row["scores"]) == 2
            assert row["scores"][0] >= row["scores"][1]


def test_an_empty_line_gives_an_empty_translation(table):
    row = table.to_pylist()[3]
    assert (row["source"], row["hypotheses"], row["scores"]) == ("", [""], [0.0])
    assert best_hypotheses(table)[3] == ""


def test_a_part_of_the_split_gives_the_same_rows(project, table):
    translator(project)(part(project, 5, 9))
    some = pq.read_table(project.store.path("scratch", "5-9.parquet"))
    assert some["hypotheses"].to_pylist() == table["hypotheses"].to_pylist()[5:14]
    assert some["scores"].to_pylist() == [pytest.approx(row, rel=1e-5) for row in table["scores"].to_pylist()[5:14]]


def test_the_settings_reach_the_search(project, monkeypatch):
    seen: dict[str, Any] = {}

    def recorded(model: Any, src: Any, **options: Any) -> list[list[Translation]]:
        seen.update(options)
        return [[Translation([], 0.0)]] * len(src)

    monkeypatch.setattr(seq2seq, "translate_ids", recorded)
    translator(project, "settings", beam=3, n_best=1, length_penalty=0.9, forward_tokens=77)(part(project))
    assert {name: seen[name] for name in ("beam", "alpha", "n_best", "batch_tokens", "precision")} == {
        "beam": 3,
        "alpha": 0.9,
        "n_best": 1,
        "batch_tokens": 77,
        "precision": "float32",
    }


@pytest.mark.parametrize("rows", [6, 20, 256])
def test_parts_cover_the_split_once(project, monkeypatch, rows):
    monkeypatch.setattr(parts, "_PART_ROWS", rows)
    found = parts.parts_of(project.corpus(), "test")
    assert [row for part in found for row in range(part.start, part.start + part.rows)] == list(range(ROWS))
    assert all(part.rows <= rows for part in found)
    assert [part.name for part in found] == sorted({part.name for part in found})


@pytest.fixture(scope="module")
def translation(project) -> Artifact:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_PART_ROWS", 6)
        return translated(
            project.pending_translation(),
            project.with_max_rejects(0),
            project.runtime,
            project.corpus(),
            project.control(),
        )


def test_the_parts_come_together_in_the_order_of_the_input(translation, table):
    whole = read_translations(translation)
    assert whole.drop_columns("scores").equals(table.drop_columns("scores"))


def test_scores_are_sacrebleus_on_the_best_hypotheses(translation):
    whole = read_translations(translation)
    hypotheses, references = best_hypotheses(whole), whole["reference"].to_pylist()
    assert translation.metrics["test/bleu"] == sacrebleu.corpus_bleu(hypotheses, [references]).score
    assert translation.metrics["test/chrf"] == sacrebleu.corpus_chrf(hypotheses, [references]).score
    assert 0 <= translation.metrics["test/legacy_bleu"] <= 100
    assert translation.metrics["test/sentences"] == ROWS
    assert "tok:13a" in " ".join(translation.info["signatures"].values())


def test_the_precision_that_was_computed_in_is_recorded(project, translation):
    assert (translation.info["trained_in"], translation.info["precision"]) == ("float32", "float32")
    assert project.control().info["precision"] == "float32"


def test_a_chinese_target_is_scored_by_characters(project):
    corpus = project.corpus()
    chinese = replace(corpus, info={**corpus.info, "tgt_lang": "zh"})
    work = PendingArtifact(project.store, "translation", "0123456789abcdef", project.pending_translation().config, {})
    found = translated(work, project.with_max_rejects(0), project.runtime, chinese, project.control())
    assert found.info["tokenize"] == "zh"
    assert "|tok:zh|" in found.info["signatures"]["bleu_signature"]
    shutil.rmtree(found.uri)


@pytest.fixture(scope="module")
def moses(tmp_path_factory) -> Project:
    """The same kind of project on text that Moses has tokenised."""
    directory = tmp_path_factory.mktemp("moses")
    Project(directory)
    for path in (directory / "text").iterdir():
        language = path.name.split(".")[1]
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()
        path.write_bytes(gzip.compress("".join(tokenise(line, language) + "\n" for line in lines).encode()))
    return Project(directory, "corpus.text=moses")


def test_translations_of_moses_text_are_raw_with_their_tokens_beside_them(project, moses, monkeypatch):
    written = "the man &apos;s here , she says ."
    monkeypatch.setattr(parts, "decode", lambda _, ids: [unescape_moses(written)] * len(list(ids)))
    found = translated(
        moses.pending_translation(), moses.with_max_rejects(0), moses.runtime, moses.corpus(), moses.control()
    )
    table = read_translations(found)
    raw = pq.read_table(project.variant(moses.directory / "raw").corpus().path("test"))
    tokens = pq.read_table(moses.corpus().path("test"))
    assert table["source_tokens"].to_pylist() == tokens["src"].to_pylist()
    assert table["reference_tokens"].to_pylist() == tokens["tgt"].to_pylist()
    assert table["reference"].to_pylist() == raw["tgt"].to_pylist()
    assert table["source"].to_pylist()[:3] == raw["src"].to_pylist()[:3]
    assert best_hypotheses(table, "hypotheses_tokens") == ["the man 's here , she says ."] * ROWS
    assert best_hypotheses(table) == ["the man's here, she says."] * ROWS
    references, hypotheses = table["reference"].to_pylist(), best_hypotheses(table)
    assert found.metrics["test/bleu"] == sacrebleu.corpus_bleu(hypotheses, [references]).score
    assert found.metrics["test/chrf"] == sacrebleu.corpus_chrf(hypotheses, [references]).score
    sides = best_hypotheses(table, "hypotheses_tokens"), table["reference_tokens"].to_pylist()
    lines = [[line.lower() for line in side] for side in sides]
    assert found.metrics["test/legacy_bleu"] == legacy_bleu(*lines).score


@pytest.fixture(scope="module")
def poison(project) -> tuple[Artifact, list[int]]:
    """The corpus with two test sentences that hold a token that there is not."""
    return with_poison_records(project.corpus(), "test", "src_ids", [7, 12], "a" * 16)


def test_sentences_that_raise_have_an_empty_translation(project, poison, translation, monkeypatch, capsys):
    monkeypatch.setattr(parts, "_PART_ROWS", 6)
    corpus, ids = poison
    work = pending_on_corpus(corpus, project.pending_translation(), "b" * 16)
    runtime = InProcessRuntime()
    with pytest.raises(
        UserError, match=r"^translate: 1 of 20 pairs rejected \(5\.000%\), .*; pair 7: IndexError: index out of"
    ):
        translated(work, project.with_max_rejects(0.001), runtime, corpus, project.control())
    with pytest.raises(UserError, match=r"^translate: 2 of 20 pairs rejected"):
        translated(work, project.with_max_rejects(0.05), runtime, corpus, project.control())
    # What is translated is not translated again: the part with the second sentence was finished before it was counted.
    capsys.readouterr()
    last = InProcessRuntime()
    found = translated(work, project.with_max_rejects(0.1), last, corpus, project.control())
    assert [part.start for part in last.mapped] == [18]
    rejects = pq.read_table(found.path("rejects.parquet")).to_pylist()
    assert [(one["id"], one["fragment"]) for one in rejects] == [(pair, "test/fragment-000000.parquet") for pair in ids]
    assert found.metrics["rejects"] == 2
    assert "translate  2 of 20 pairs rejected (10.000%); pair 7: IndexError" in capsys.readouterr().err
    # A score is over every line.
    assert found.metrics["test/sentences"] == ROWS
    ours, theirs = read_translations(found).to_pylist(), read_translations(translation).to_pylist()
    for row in set(range(ROWS)) - {7, 12}:
        assert ours[row]["hypotheses"] == theirs[row]["hypotheses"]
        assert ours[row]["scores"] == pytest.approx(theirs[row]["scores"], rel=1e-5)
    for row in (7, 12):
        assert (ours[row]["hypotheses"], ours[row]["scores"]) == ([""], [0.0])
        assert ours[row]["reference"] == theirs[row]["reference"] != ""
    hypotheses, references = [row["hypotheses"][0] for row in ours], [row["reference"] for row in ours]
    assert found.metrics["test/chrf"] == sacrebleu.corpus_chrf(hypotheses, [references]).score
    assert project.store.files(work.staging) == []


def test_a_sentence_that_kills_has_an_empty_translation(project, poison, monkeypatch):
    corpus, _ = poison
    plain = seq2seq.translate_ids

    def deadly(model: Any, src: Any, **options: Any) -> list[list[Translation]]:
        if NO_TOKEN in src.values:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(model, src, **options)

    monkeypatch.setattr(seq2seq, "translate_ids", deadly)
    work = pending_on_corpus(corpus, project.pending_translation(), "c" * 16)

    def drive() -> None:
        translated(work, project.with_max_rejects(0.1), InProcessRuntime(), corpus, project.control())

    assert kills_until_done(drive) == 6
    found = load(project.store, work.directory)
    rejects = pq.read_table(found.path("rejects.parquet")).to_pylist()
    assert [one["reason"] for one in rejects] == ["its process died 4 times", "its process died 6 times"]
    # Line 3 has no source text.
    scores = read_translations(found)["scores"].to_pylist()
    assert [row for row in range(ROWS) if 0.0 in scores[row]] == [3, 7, 12]


def test_only_parts_that_are_missing_or_of_other_rows_are_translated(project, translation, monkeypatch):
    monkeypatch.setattr(parts, "_PART_ROWS", 6)
    work = pending_on_corpus(project.corpus(), project.pending_translation(), "d" * 16)
    actor = translator(project, work.staging)
    first, second, third, fourth = parts.parts_of(project.corpus(), "test")
    for part in (replace(first, rows=5), second, third):
        actor(part)
    data = project.store.read(work.staging, third.name)
    project.store.write(data[:-20], work.staging, third.name)
    runtime = InProcessRuntime()
    found = translated(work, project.with_max_rejects(0), runtime, project.corpus(), project.control())
    assert runtime.mapped == [first, third, fourth]
    assert read_translations(found).equals(read_translations(translation))


def test_nothing_but_the_table_and_the_manifest_is_left(project, translation):
    assert [name for name, _ in project.store.files(translation.directory)] == ["manifest.json", "translations.parquet"]
    assert project.store.files("work") == []
    assert translation.inputs == {
        "corpus": project.corpus().fingerprint,
        "student": project.control().fingerprint,
    }
    assert Path(translation.uri, "manifest.json").exists()
