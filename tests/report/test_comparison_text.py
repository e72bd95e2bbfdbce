from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bertkd_ray.report.comparison import StudentComparison, compare_students
from bertkd_ray.report.comparison_text import comparison_text
from tests.report.students import write_corpus, write_student, write_translation

FIRST = ["The dog sleeps in the garden.", "A cat sees the old house.", "We read.", "Yes."]
SECOND = ["The dog sleeps in the garden today.", "A horse.", "We read.", "Yes."]


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> StudentComparison:
    corpus = write_corpus(tmp_path_factory.mktemp("store"))
    students = [write_student(corpus), write_student(corpus, alpha=0.5)]
    translations = [write_translation(one, lines) for one, lines in zip(students, (FIRST, SECOND), strict=True)]
    found = compare_students(translations, samples=50)
    # What depends on the clock.
    return replace(found, metrics={key: of for key, of in found.metrics.items() if key != "seconds"})


def test_the_whole_page(comparison: StudentComparison) -> None:
    first, second = comparison.students
    delta = comparison.differences["B"]
    interval = f"{delta.interval[0]:+.2f} … {delta.interval[1]:+.2f}"
    scores = [comparison.metrics[f"test/{name}"].values() for name in ("bleu", "chrf")]
    bleu, chrf = ("   ".join(f"{value:.2f}" for value in values) for values in scores)
    text = comparison_text(comparison).splitlines()
    assert text[:4] == [
        f"A  {first.translation.directory}",
        f"   {first.translation.uri}",
        f"B  {second.translation.directory}",
        f"   {second.translation.uri}",
    ]
    assert text[4:20] == [
        "",
        "configuration    A    B",
        "─────────────  ───  ───",
        "teacher          –  yes",
        "extract          –  yes",
        "kd.alpha       0.0  0.5",
        "kd.topk          –    8",
        "",
        "metrics                     A       B",
        "──────────────────────  ─────  ──────",
        f"test/bleu               {bleu}",
        f"test/chrf               {chrf}",
        "parameters              1,234   1,234",
        "valid/bleu              30.50   30.50",
        "teacher/valid/accuracy      –  0.5000",
        "fidelity/topk_mass          –  0.9000",
    ]
    assert text[20] == ""
    assert text[21].split("  ")[0] == "test BLEU against A"
    assert text[23].split()[:2] == ["B", f"{delta.delta:+.2f}"]
    assert interval in text[23]
    assert text[23].split()[-3:] == ["1", "1", "2"]
    assert text[24] == "better, worse, equal: of the 4 sentences, by chrF"
    horse, dog = comparison.sentences
    assert text[25:] == [
        "",
        "the sentences that differ most, by chrF",
        "",
        "id 20",
        "  source     Eine Katze sieht das alte Haus.",
        "  reference  A cat sees the old house.",
        "  A   100.0  A cat sees the old house.",
        f"  B{horse.chrf['B']:8.1f}  A horse.",
        "",
        "id 10",
        "  source     Der Hund schläft heute im Garten.",
        "  reference  The dog sleeps in the garden today.",
        f"  A{dog.chrf['A']:8.1f}  The dog sleeps in the garden.",
        "  B   100.0  The dog sleeps in the garden today.",
        "",
        "bleu  nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0",
        "bootstrap  samples:50|over:sentences|tails:2",
    ]


def test_students_that_do_not_fit_stand_below_and_no_line_is_too_wide(comparison: StudentComparison) -> None:
    labels = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    one = comparison.students[0]
    many = replace(
        comparison,
        students=[replace(one, label=label, name=f"run-{label}") for label in labels],
        configuration={"corpus.input.train.src": dict.fromkeys(labels, "x" * 60), "kd.alpha": {"Z": 0.25}},
        metrics={"parameters": dict.fromkeys(labels, 123_456_789.0)},
        differences=dict.fromkeys(labels[1:], comparison.differences["B"]),
        sentences=[
            replace(comparison.sentences[0], source="Wort " * 60, hypotheses={"A": ""}, chrf={"A": 0.0}),
        ],
    )
    lines = comparison_text(many).splitlines()
    assert max(len(line) for line in lines if not line.startswith("   /")) <= 100
    headers = [line.split()[1:] for line in lines if line.startswith("configuration")]
    assert [label for header in headers for label in header] == list(labels)
    assert len(headers) > 1
    assert any(line.startswith("kd.alpha") and line.endswith("0.25") for line in lines)
    assert f"corpus.input.train.src  {'x' * 23}…" in "\n".join(lines)
    assert "  A     0.0  –" in lines


def test_nothing_to_tell(comparison: StudentComparison) -> None:
    alike = {"B": replace(comparison.differences["B"], better=0, worse=0)}
    text = comparison_text(replace(comparison, configuration={}, differences=alike, sentences=[]))
    assert "configuration: no key differs" in text.splitlines()
    assert "every sentence is translated alike" in text.splitlines()


def test_a_difference_of_nearly_nothing_has_no_minus(comparison: StudentComparison) -> None:
    alike = {"B": replace(comparison.differences["B"], delta=-0.001, interval=(-0.004, 0.004))}
    text = comparison_text(replace(comparison, differences=alike))
    assert "  +0.00  +0.00 … +0.00  " in text
    assert "-0.00" not in text


def test_no_sentence_was_asked_for(comparison: StudentComparison) -> None:
    text = comparison_text(replace(comparison, sentences=[]))
    assert "alike" not in text
    assert "that differ most" not in text


def test_text_of_another_direction_is_isolated(comparison: StudentComparison, tmp_path: Path) -> None:
    sentence = replace(comparison.sentences[0], source="שלום a")
    assert "  source     \u2068שלום a\u2069" in comparison_text(replace(comparison, sentences=[sentence])).splitlines()
