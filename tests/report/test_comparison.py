"""Students compared: settings and counts by hand, BLEU and chrF by sacrebleu's own functions."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import sacrebleu

from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.artifacts.store import Store
from bertkd_ray.core.errors import UserError
from bertkd_ray.report.comparison import StudentComparison, compare_students, open_students
from bertkd_ray.tracking import default_uri, open_tracker
from tests.report.students import REFERENCES, SOURCES, write_corpus, write_student, write_translation

FIRST = ["The dog sleeps in the garden.", "A cat sees the old house.", "We read.", "Yes."]
SECOND = ["The dog sleeps in the garden today.", "A horse.", "We read.", "Yes."]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return write_corpus(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def control(corpus: Artifact) -> Artifact:
    return write_translation(write_student(corpus), FIRST)


@pytest.fixture(scope="module")
def distilled(corpus: Artifact) -> Artifact:
    return write_translation(write_student(corpus, alpha=0.5), SECOND, beam=4)


def compared(*artifacts: Artifact, sentences: int = 5) -> StudentComparison:
    return compare_students(artifacts, sentences=sentences, samples=200)


@pytest.fixture(scope="module")
def pair(control: Artifact, distilled: Artifact) -> StudentComparison:
    return compared(control, distilled)


def test_only_settings_that_differ_are_told_and_a_missing_teacher_in_one_line(pair: StudentComparison) -> None:
    assert pair.configuration == {
        "teacher": {"B": "yes"},
        "extract": {"B": "yes"},
        "kd.alpha": {"A": 0.0, "B": 0.5},
        "kd.topk": {"B": 8},
        "translate.beam": {"A": 5, "B": 4},
    }


def test_two_teachers_differ_in_their_own_settings(corpus: Artifact, distilled: Artifact) -> None:
    other = write_translation(write_student(corpus, alpha=0.5, teacher_steps=200, width=64), SECOND, beam=4)
    assert compared(distilled, other).configuration == {
        "teacher.steps": {"A": 100, "B": 200},
        "student.width": {"A": 32, "B": 64},
    }


def test_another_corpus_with_the_same_test_text_compares(tmp_path: Path, control: Artifact) -> None:
    other = write_translation(write_student(write_corpus(tmp_path, clean={"max_words": 9})), SECOND)
    assert compared(control, other).configuration == {"corpus.clean.max_words": {"A": None, "B": 9}}


def test_metrics_stand_side_by_side(pair: StudentComparison) -> None:
    assert pair.metrics["test/bleu"] == {
        "A": pytest.approx(sacrebleu.corpus_bleu(FIRST, [REFERENCES]).score),
        "B": pytest.approx(sacrebleu.corpus_bleu(SECOND, [REFERENCES]).score),
    }
    assert pair.metrics["parameters"] == {"A": 1234, "B": 1234}
    assert pair.metrics["teacher/valid/accuracy"] == {"B": 0.5}
    assert pair.metrics["fidelity/topk_mass"] == {"B": 0.9}
    assert not {"teacher/parameters", "pairs"} & set(pair.metrics)


def test_the_difference_is_second_minus_first(pair: StudentComparison) -> None:
    one = pair.differences["B"]
    assert list(pair.differences) == ["B"]
    assert one.delta == pytest.approx(pair.metrics["test/bleu"]["B"] - pair.metrics["test/bleu"]["A"])
    assert (one.better, one.worse, one.equal) == (1, 1, 2)
    assert one.interval[0] <= one.delta <= one.interval[1]
    assert pair.signatures["bootstrap"] == "samples:200|over:sentences|tails:2"


def test_p_tells_luck_from_a_difference(tmp_path: Path) -> None:
    """Of 60 sentences one system has all but three right, the other half, the third another half."""
    words = ["the", "dog", "cat", "house", "garden", "sleeps", "sees", "reads", "old", "new", "small", "red", "blue"]
    draw = random.Random(5)
    references = [" ".join(draw.choices(words, k=9)) for _ in range(60)]
    wrong = ["no"] * 9
    good = [" ".join(wrong) if n % 20 == 0 else line for n, line in enumerate(references)]
    even = [" ".join(wrong) if n % 2 == 0 else line for n, line in enumerate(references)]
    odd = [" ".join(wrong) if n % 2 == 1 else line for n, line in enumerate(references)]
    corpus = write_corpus(tmp_path)
    sides = [
        write_translation(write_student(corpus, seed=n), lines, references=references, sources=references)
        for n, lines in enumerate((even, good, odd))
    ]
    found = compared(*sides).differences
    assert found["B"].p_value < 0.02
    assert found["B"].interval[0] > 0
    assert found["C"].p_value > 0.2
    assert found["C"].interval[0] < 0 < found["C"].interval[1]


def test_sentences_come_by_their_difference_and_equal_ones_not_at_all(pair: StudentComparison) -> None:
    horse, dog = pair.sentences
    assert (horse.id, horse.source, horse.reference) == (20, SOURCES[1], REFERENCES[1])
    assert horse.hypotheses == {"A": FIRST[1], "B": SECOND[1]}
    for sentence, row in ((horse, 1), (dog, 0)):
        expected = [sacrebleu.sentence_chrf(lines[row], [REFERENCES[row]]).score for lines in (FIRST, SECOND)]
        assert list(sentence.chrf.values()) == pytest.approx(expected)
        assert sentence.spread == pytest.approx(abs(expected[0] - expected[1]))
    assert horse.spread > dog.spread


def test_as_many_sentences_as_asked_for(control: Artifact, distilled: Artifact) -> None:
    assert [one.id for one in compared(control, distilled, sentences=1).sentences] == [20]
    assert compared(control, distilled, sentences=0).sentences == []


def test_three_against_the_first(corpus: Artifact, control: Artifact, distilled: Artifact) -> None:
    same = write_translation(write_student(corpus, width=16), FIRST)
    found = compared(control, distilled, same)
    assert [side.label for side in found.students] == ["A", "B", "C"]
    assert list(found.differences) == ["B", "C"]
    assert (found.differences["C"].delta, found.differences["C"].p_value, found.differences["C"].equal) == (0.0, 1.0, 4)
    # A and C have no teacher; B alone says which.
    assert found.configuration["teacher"] == {"B": "yes"}
    assert found.configuration["student.width"] == {"A": 32, "B": 32, "C": 16}
    assert found.sentences[0].hypotheses["C"] == FIRST[1]


def test_a_line_says_that_figures_of_two_corpora_do_not_compare(
    tmp_path: Path, control: Artifact, distilled: Artifact
) -> None:
    other = write_translation(write_student(write_corpus(tmp_path, clean={"max_words": 9})), FIRST)
    assert "valid" not in compared(control, distilled).signatures
    assert "do not compare" in compared(control, other).signatures["valid"]


def test_as_json_is_plain(pair: StudentComparison, control: Artifact) -> None:
    tree = json.loads(json.dumps(pair.as_json()))
    assert set(tree) == {"runs", "configuration", "metrics", "bootstrap", "sentences", "signatures"}
    assert tree["runs"]["A"] == {
        "name": control.directory,
        "run_id": "",
        "student": control.inputs["student"],
        "translation": control.fingerprint,
        "path": control.uri,
    }
    assert tree["bootstrap"]["B"]["worse"] == 1


@pytest.mark.parametrize(
    ("sources", "references", "why"),
    [
        (SOURCES[:3], REFERENCES[:3], "3 sentences against 4"),
        ([*SOURCES[:2], "Wir lasen.", "Ja."], REFERENCES, "the source of sentence 30 is another one"),
        (SOURCES, [*REFERENCES[:3], "Yes!"], "the reference of sentence 40 is another one"),
    ],
)
def test_another_test_set_is_refused(
    tmp_path: Path, control: Artifact, sources: list[str], references: list[str], why: str
) -> None:
    student = write_student(write_corpus(tmp_path))
    other = write_translation(student, FIRST[: len(sources)], sources=sources, references=references)
    with pytest.raises(UserError) as refused:
        compared(control, other)
    assert str(refused.value) == (
        f"{other.directory}: its test set is not that of {control.directory} ({why}), so that they do not compare; "
        "translate the same corpus.test with both"
    )


def test_translations_of_tokenizers_that_cannot_be_had_are_refused(tmp_path: Path, control: Artifact) -> None:
    student = write_student(write_corpus(tmp_path))
    strange, other = (write_translation(student, FIRST, beam=beam, tokenize="flores200") for beam in (1, 2))
    with pytest.raises(UserError) as refused:
        compared(strange, other)
    assert str(refused.value).startswith(f"{strange.display_uri}: BLEU has no tokenizer 'flores200' here")
    with pytest.raises(UserError) as refused:
        compared(control, strange)
    assert str(refused.value).startswith(
        f"{strange.directory}: its BLEU is of flores200, that of {control.directory} of 13a, so that they do not"
    )


# --- names ------------------------------------------------------------------------------------------------------------


def refusal(*names: str, **options: str) -> str:
    with pytest.raises(UserError) as refused:
        open_students(names, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_student_stands_for_its_newest_translation(
    tmp_path: Path, control: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    student = write_student(write_corpus(tmp_path))
    said = refusal(control.uri, student.uri)
    assert said == f"{student.directory}: has not been translated; run bertkd translate"
    only = write_translation(student, FIRST)
    (_, side) = open_students([control.uri, student.uri])
    assert side.translation.fingerprint == only.fingerprint
    other = write_translation(student, FIRST, beam=1)
    newest = max(only, other, key=lambda translation: (translation.created, translation.directory))
    (_, side) = open_students([control.uri, student.uri])
    assert side.translation.fingerprint == newest.fingerprint
    said = f"{student.directory}: of its 2 translations the newest is taken: {newest.uri}\n"
    assert capsys.readouterr().err == said


def test_other_artifacts_and_too_few_names_are_refused(corpus: Artifact, control: Artifact) -> None:
    assert refusal(control.uri, corpus.uri) == f"{corpus.directory}: is a corpus; give a student or a translation"
    assert refusal(control.uri).startswith("compare takes 2 to 26 runs, got 1")
    assert refusal(*[control.uri] * 27).startswith("compare takes 2 to 26 runs, got 27")


def test_a_translation_without_its_student_is_refused(tmp_path: Path, control: Artifact) -> None:
    other = write_translation(student := write_student(write_corpus(tmp_path)), FIRST)
    Path(student.path("manifest.json")).unlink()
    assert (
        refusal(control.uri, other.uri)
        == f"{other.uri}: its student {student.directory} is not beside it; copy it there"
    )


def test_runs_are_found_by_name_and_their_artifacts_where_they_are_now(
    tmp_path: Path, control: Artifact, distilled: Artifact
) -> None:
    uri = default_uri(str(tmp_path))
    tracker = open_tracker(uri, "demo")
    for name, artifact in (("demo/control", control.uri), ("demo/moved", f"/elsewhere/{distilled.directory}")):
        tracker.run(name, key=name, tags={"bertkd.kind": "arm", "bertkd.artifact": artifact})
    first, second = open_students(["demo/control", distilled.uri], tracking=uri)
    assert (first.name, len(first.run_id), first.translation.uri) == ("demo/control", 32, control.uri)
    assert (second.name, second.run_id) == (distilled.directory, "")
    said = refusal("demo/control", "demo/moved", tracking=uri)
    assert said.startswith(
        f"demo/moved: its artifact /elsewhere/{distilled.directory} is not there, or not finished; say"
    )
    students = open_students(["demo/control", "demo/moved"], tracking=uri, storage=control.store.uri)
    assert [side.translation.uri for side in students] == [control.uri, distilled.uri]


@pytest.mark.parametrize(
    "above",
    [
        "s3://bucket/store/{}?scheme=http&endpoint_override=127.0.0.1:9",
        "s3://bucket/store/{}?region=elsewhere",
        "abfss://container@127.0.0.1:9/store/{}",
        "hdfs://127.0.0.1:9/store/{}",
        "fsspec+http://127.0.0.1:9/store/{}",
    ],
)
def test_a_run_does_not_choose_the_server(
    tmp_path: Path, control: Artifact, distilled: Artifact, above: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, named = default_uri(str(tmp_path)), above.format(distilled.directory)
    tags = {"bertkd.kind": "arm", "bertkd.artifact": named}
    open_tracker(uri, "demo").run("demo/other", key="other", tags=tags)
    opened: list[str] = []
    open_store = Store.__init__

    def opening(store: Store, storage: str) -> None:
        opened.append(storage)
        open_store(store, storage)

    monkeypatch.setattr(Store, "__init__", opening)
    said = refusal("demo/other", distilled.uri, tracking=uri)
    assert said.startswith("demo/other: its artifact is said to be ")
    assert said.endswith("which server is spoken to; give its storage with --storage URI")
    assert not [storage for storage in opened if "://" in storage]
    first, _ = open_students(["demo/other", control.uri], tracking=uri, storage=distilled.store.uri)
    assert first.translation.uri == distilled.uri


def test_paths_need_no_mlflow(control: Artifact, distilled: Artifact, tmp_path: Path) -> None:
    students = open_students([control.uri, distilled.uri], tracking="http://127.0.0.1:9")
    assert len(students) == 2
    said = refusal(control.uri, "nowhere", storage=str(tmp_path / "none"))
    assert said.startswith(f"nowhere: no artifact is here, nor an MLflow database {tmp_path}/none/mlflow.db")
