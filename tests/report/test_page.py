"""The page as a browser's parser sees it, without a browser."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.evaluation.metrics import corpus_bleu
from bertkd_ray.report.page import page_html
from tests.report.stages import FIDELITY, HOSTILE, REFERENCES, SAID, SIGNATURES, SOURCES, finished_stages, results_of

VOID = {"meta", "link", "br", "img", "input"}


class Parsed(HTMLParser):
    """Tags with their attributes, and the cells of every table by its caption."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text = ""
        self._open: list[str] = []
        self._caption = ""
        self._rows: list[list[str]] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self._caption, self._rows = "", []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style", "script"):
            self.text += data
        if "caption" in self._open:
            self._caption += data
        elif self._rows and self._rows[-1] and {"td", "th"} & set(self._open):
            self._rows[-1][-1] += f" {data}" if self._open[-1] == "small" else data

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]

    def row(self, caption: str, label: str) -> list[str]:
        (found,) = [row[1:] for row in self.tables[caption] if row and row[0].partition(" ")[0] and row[0] == label]
        return found


@pytest.fixture(scope="module")
def stages(tmp_path_factory) -> dict[str, Artifact]:
    return finished_stages(tmp_path_factory.mktemp("page") / "store")


@pytest.fixture(scope="module")
def html(stages) -> str:
    return page_html(results_of(stages), run_id="0123abcd")


@pytest.fixture(scope="module")
def page(html) -> Parsed:
    return Parsed(html)


def test_ids_are_unique_and_every_link_leads_somewhere(page):
    ids = Counter(attributes["id"] for _, attributes in page.tags if "id" in attributes)
    assert [name for name, count in ids.items() if count > 1] == []
    links = [attributes["href"] for tag, attributes in page.tags if "href" in attributes and tag != "link"]
    assert len(links) > 20
    assert [link for link in links if not (link and link.startswith("#") and link[1:] in ids)] == []
    clips = {str(attributes["clip-path"])[5:-1] for _, attributes in page.tags if "clip-path" in attributes}
    assert len(clips) >= 9
    assert clips <= set(ids)


def test_nothing_is_fetched(html, page):
    sources = [
        attributes[name] for _, attributes in page.tags for name in ("src", "srcset", "data") if name in attributes
    ]
    assert sources == []
    assert [link["href"] for link in page.all("link")] == ["data:,"]
    assert "@import" not in html
    assert "//" not in re.sub(r"<script>.*?</script>", "", html, flags=re.S)


def test_the_policy_admits_the_pages_own_script_alone(html, page):
    (script,) = re.findall(r"<script>(.*?)</script>", html, flags=re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert str(policy).startswith("default-src 'none'; ")
    assert re.findall(r"script-src ([^;]*)", str(policy)) == [f"'sha256-{digest}'"]


def test_figures_and_tables_can_be_read_aloud(page):
    figures = page.all("svg")
    assert len(figures) == 11
    assert all(figure["role"] == "img" and len(str(figure["aria-label"])) > 30 for figure in figures)
    assert "validation: from 0.3 nats per masked token at step 20 to 0.15" in str(figures[6]["aria-label"])
    heads = page.all("th")
    assert heads
    assert {head.get("scope") for head in heads} == {"row", "col", "colgroup"}
    assert "" not in page.tables
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(below - above <= 1 for above, below in pairwise(levels))
    for scrolling in (one for one in page.all("div") if one.get("class") == "scroll"):
        assert (scrolling["tabindex"], scrolling["role"]) == ("0", "region")
        assert scrolling["aria-label"]


def test_scores_are_those_of_the_artifacts(page, stages):
    results = results_of(stages)
    caption = "Scores of every student"
    assert page.tables[caption][0][1:] == ["distilled", "control"]
    assert page.row(caption, "Test BLEU beam 5") == ["60.25", "59.25"]
    assert page.row(caption, "Test chrF beam 5") == ["70.12", "69.12"]
    assert page.row(caption, "Test BLEU, legacy tokenised, lower case") == ["61.75", "60.75"]
    assert page.row(caption, "Valid BLEU greedy") == ["61.50", "62.50"]
    assert page.row(caption, "Valid accuracy target tokens, %") == ["75.0", "75.0"]
    assert page.row(caption, "Length ratio output over reference") == ["0.975", "0.975"]
    assert page.row(caption, "Parameters of the student") == ["1.28M", "1.28M"]
    assert page.row(caption, "Difference test BLEU against control") == [f"{results.arms[0].delta:+.2f}", "–"]
    assert page.row(caption, "Soft labels weight α, temperature T, k logits") == ["α 0.5, T 10, k 8", "none"]
    assert all(signature in page.text for signature in SIGNATURES.values())


def test_the_better_figure_stands_out_unless_all_are_equal(html):
    strong = re.findall(r"<strong>([\d.]+)</strong>", html)
    assert strong == ["60.25", "70.12", "61.75", "62.50"]


def test_fidelity_and_curves_as_numbers(page):
    caption = "Fidelity of the soft labels, means over target positions"
    rows = {row[0].partition(" of ")[0].partition(" share")[0]: row[1] for row in page.tables[caption][1:]}
    assert rows == {
        "Probability in the top 8": f"{100 * FIDELITY['topk_mass']:.1f}%",
        "Reference among the top 8": "93.8%",
        "Reference first": "75.0%",
        "Entropy at temperature 1": "0.50 nats",
        "Entropy at temperature 10": "1.25 nats",
    }
    steps = page.tables["Students by step, validation set"]
    assert steps[1][1:] == ["BLEU", "accuracy, %", "nats a token"] * 2
    assert steps[2:] == [
        ["20", "20.00", "62.5", "1.500", "30.00", "62.5", "1.500"],
        ["40", "40.00", "62.5", "1.500", "50.00", "62.5", "1.500"],
    ]
    assert page.tables["Teacher by step, validation set"][1:] == [["20", "0.300", "40.0"], ["40", "0.150", "80.0"]]


def test_what_became_of_the_corpus(page):
    caption = "Pairs and tokens by split"
    assert page.tables[caption][0][1:] == ["train", "valid", "test"]
    assert page.row(caption, "Pairs read") == ["9", "1", "12"]
    assert page.row(caption, "Pairs dropped") == ["6", "0", "0"]
    assert page.row(caption, "Empty dropped") == ["4", "–", "–"]
    assert page.row(caption, "Length ratio dropped") == ["2", "–", "–"]
    assert page.row(caption, "Not nfc") == ["5", "–", "–"]
    assert page.row(caption, "Pairs kept") == ["3", "1", "12"]
    assert "left out: 2 pairs of Translations, control." in page.text


def test_text_of_the_corpus_is_text(html, page):
    assert len(page.all("script")) == 1
    assert page.all("img") == page.all("b") == []
    assert html.count("&lt;script&gt;alert(1)") > 20
    assert [text for text in (SOURCES[3], REFERENCES[3], SAID["distilled"][3]) if text not in page.text] == []
    assert HOSTILE in page.text


def test_fidelity_stands_by_part_of_the_positions(page, stages):
    caption = "Fidelity by part of the positions"
    assert page.tables[caption][0] == ["fidelity", "all", "end of sentence", "elsewhere", "first", "not first"]
    assert page.row(caption, "positions") == ["56", "12", "44", "23", "33"]
    assert page.row(caption, "reference first, %") == ["75.0", "100.0", "25.0", "100.0", "0.0"]
    assert page.row(caption, "perplexity of the reference") == ["–", "1.25", "4.50", "1.50", "–"]
    labels = stages["extract"]
    earlier = {name: value for name, value in labels.metrics.items() if name.count("/") < 2}
    older = Parsed(page_html(results_of({**stages, "extract": replace(labels, metrics=earlier)})))
    assert caption not in older.tables


def test_bleu_stands_by_length_and_by_frequency(page, stages):
    results = results_of(stages)
    table = page.tables["By source length"]
    assert table[0] == ["source tokens", "sentences", "control", "Δ distilled", "95%", "p"]
    assert [row[:2] for row in table[1:]] == [["1–6", "6"], ["7–12", "6"]]
    for row, scores in zip(table[1:], results.buckets["source_length"], strict=True):
        lines = slice(int(row[0].split("–")[0]) - 1, int(row[0].split("–")[1]))
        control, distilled = (corpus_bleu(SAID[arm][lines], REFERENCES[lines]) for arm in ("control", "distilled"))
        assert row[2:4] == [f"{control:.2f}", f"{distilled - control:+.2f}"]
        low, high = scores.differences["distilled"].interval
        assert row[4] == f"{low:+.2f} … {high:+.2f}"
    by_frequency = page.tables["By frequency of the reference's tokens"]
    # Every third reference is of "b", three times in the training text; the others' token is not in it.
    assert [row[:2] for row in by_frequency[1:]] == [["1", "8"], ["4", "4"]]
    (figure,) = [one for one in page.all("svg") if str(one["aria-label"]).startswith("By source length. ")]
    assert f"distilled: {table[1][3]} at 1–6, {table[2][3]} at 7–12." in str(figure["aria-label"])


def test_samples_stand_side_by_side(page):
    sample = page.tables["Sentence 103"]
    assert [row[0] for row in sample] == ["source", "reference", "distilled", "control"]
    assert sample[0][1:] == [SOURCES[3]]
    assert sample[2][1] == SAID["distilled"][3]
    assert sample[3][1:] == [REFERENCES[3], "chrF 100"]
    # Six sentences of the control are lost, and two of the other's have a word too many.
    differing = page.text.partition("Where the students differ most, of 12 sentences")[2]
    assert differing.count("Sentence 1") == 8


def test_artifacts_and_their_origin(page, stages):
    rows = {row[0]: row[1:] for row in page.tables["Artifacts and what they were made from"][1:]}
    assert list(rows) == [
        "Corpus",
        "Teacher",
        "Soft labels",
        "Student, distilled",
        "Translations, distilled",
        "Student, control",
        "Translations, control",
    ]
    assert rows["Teacher"][:2] == [stages["finetune"].fingerprint, "Corpus, bert bbbbbbbb"]
    assert rows["Student, distilled"][1] == "Corpus, Soft labels"
    times = page.tables["Wall-clock time to make every artifact, in the order in which they were finished"]
    assert sorted(row[0] for row in times[1:]) == sorted(rows)


def test_what_was_run(page):
    assert "bertkd run small.yaml" in page.text
    assert "0123abcd" in page.text
    assert "label_smoothing: 0.1" in page.text
    assert "transformers" in page.text


def test_the_verdict_says_when_a_difference_may_be_chance(stages):
    results = results_of(stages)
    best = replace(results.arms[0], delta=0.5, p_value=0.2)
    results.arms[0] = best
    assert "0.50 more than “control”: a difference that may be chance (p = 0.200)." in Parsed(page_html(results)).text


def test_the_same_artifacts_give_the_same_page(stages, html):
    assert page_html(results_of(stages), run_id="0123abcd") == html


def test_what_is_not_finished_is_named_with_its_command(stages):
    absent = {"finetune": "bertkd finetune x.yaml", "translate/control": "bertkd translate x.yaml --arm control"}
    some = {name: stages[name] for name in ("prepare", "distill/control")}
    results = replace(results_of(stages), stages=some, unfinished=absent, command="bertkd run x.yaml")
    page = Parsed(page_html(results))
    assert "No student is translated yet" in page.text
    assert "Not finished yet: finetune, translate/control." in page.text
    assert all(f"This makes it: {command}" in page.text for command in absent.values())
    assert "Scores of every student" not in page.tables
    assert len(page.all("svg")) == 7


def test_without_a_teacher(stages):
    some = {
        name: stage for name, stage in stages.items() if name in ("prepare", "distill/control", "translate/control")
    }
    page = Parsed(page_html(replace(results_of(stages, "arms={control: {kd.alpha: 0}}"), stages=some)))
    assert page.text.count("No student of this pipeline learns from a teacher.") == 2
    assert "The student “control” scores 59.25 BLEU on the test set." in page.text
    assert "Where the students differ most" not in page.text
    assert [row[0] for row in page.tables["Scores of every student"] if "Difference" in row[0]] == []


def test_secrets_of_uris_stay_out(stages, tmp_path: Path):
    results = results_of(stages, "tracking.uri=postgresql://me:hunter2@host/db")
    html = page_html(results)
    assert "hunter2" not in html
    assert "host/db" in html
