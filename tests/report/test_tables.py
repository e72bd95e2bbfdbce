from __future__ import annotations

import csv
import io
import json
import math

import pytest

from bertkd_ray.core.text_tables import format_p
from bertkd_ray.report.tables import ArmResult, as_csv, as_markdown, delta_label, results_table

DISTILLED = ArmResult(
    arm="distilled",
    parameters=60_500_000,
    valid_bleu=36.934,
    test_bleu=35.63,
    chrf=58.149,
    legacy_bleu=36.2,
    delta=1.54,
    p_value=0.0004,
    seconds={"prepare": 12.0, "finetune": 3600.25, "extract": 90.0, "distill": 7200.0, "translate": 30.5},
)
CONTROL = ArmResult(
    arm="control",
    parameters=60_500_000,
    valid_bleu=35.27,
    test_bleu=34.09,
    chrf=math.nan,
    legacy_bleu=34.7,
    seconds={"prepare": 12.0, "distill": 7000.0, "translate": 31.0},
)
SIGNATURES = {"BLEU": "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0", "chrF": "nrefs:1|nc:6"}


@pytest.mark.parametrize(
    ("deltas", "label"),
    [
        ({"a": 1.0, "base": None}, "Δ base"),
        ({"an arm of many words": None, "b": -1.0}, "Δ an arm of m…"),
        ({"a": None, "b": None}, "Δ control"),
    ],
)
def test_the_difference_names_the_arm_that_it_is_from(deltas: dict[str, float | None], label: str) -> None:
    assert delta_label(deltas) == label


def test_results_table() -> None:
    assert results_table([DISTILLED, CONTROL], SIGNATURES).splitlines() == [
        "arm        params  valid BLEU  test BLEU  legacy BLEU   chrF  Δ control       p",
        "─────────  ──────  ──────────  ─────────  ───────────  ─────  ─────────  ──────",
        "distilled   60.5M       36.93      35.63        36.20  58.15      +1.54  <0.001",
        "control     60.5M       35.27      34.09        34.70      –          –       –",
        "",
        "seconds    prepare  finetune  extract  distill  translate       all",
        "─────────  ───────  ────────  ───────  ───────  ─────────  ────────",
        "distilled     12.0   3,600.2     90.0  7,200.0       30.5  10,932.8",
        "control       12.0         –        –  7,000.0       31.0   7,043.0",
        "",
        "BLEU  nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0",
        "chrF  nrefs:1|nc:6",
    ]


def test_long_arm_names_stay_within_100_columns() -> None:
    long = ArmResult("a" * 200, 10**12, 100.0, 100.0, 100.0, 100.0, -100.0, 0.5, {"prepare": 1.0})
    lines = results_table([long]).splitlines()
    assert max(map(len, lines)) == 100
    assert lines[2].startswith("a" * 20)
    assert "…" in lines[2]


def test_one_arm_without_seconds_or_signatures() -> None:
    table = results_table([ArmResult("only", 950, 1.0, 2.0, 3.0, 4.0)])
    assert len(table.splitlines()) == 3
    assert table.splitlines()[2].split() == ["only", "950", "1.00", "2.00", "4.00", "3.00", "–", "–"]


def test_markdown() -> None:
    lines = as_markdown([ArmResult("a|b", 950, 1.0, 2.0, 3.0, 4.0, -0.5, 0.042, {"distill": 2.0})], SIGNATURES)
    assert lines == (
        "| arm | params | valid BLEU | test BLEU | legacy BLEU | chrF | Δ control | p |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| a\\|b | 950 | 1.00 | 2.00 | 4.00 | 3.00 | -0.50 | 0.042 |\n"
        "\n"
        "| seconds | distill | all |\n"
        "| --- | ---: | ---: |\n"
        "| a\\|b | 2.0 | 2.0 |\n"
        "\n"
        "- BLEU: `nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0`\n"
        "- chrF: `nrefs:1|nc:6`\n"
    )


def test_csv_keeps_full_precision() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv([DISTILLED, CONTROL]))))
    assert rows[0]["valid_bleu"] == "36.934"
    assert rows[0]["p_value"] == "0.0004"
    assert rows[0]["seconds_finetune"] == "3600.25"
    assert rows[1]["delta"] == rows[1]["p_value"] == rows[1]["seconds_extract"] == ""
    assert rows[1]["seconds_translate"] == "31.0"


def test_json_has_every_field() -> None:
    entry = json.loads(json.dumps(DISTILLED.as_json()))
    assert entry["arm"] == "distilled"
    assert ArmResult(**entry) == DISTILLED


@pytest.mark.parametrize(
    ("p_value", "shown"),
    [
        (None, "–"),
        (math.nan, "–"),
        (0.0, "<0.001"),
        (0.000999, "<0.001"),
        (0.001, "0.001"),
        (0.0421, "0.042"),
        (1.0, "1.000"),
    ],
)
def test_format_p(p_value: float | None, shown: str) -> None:
    assert format_p(p_value) == shown
