"""A comparison of students as text for a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bertkd_ray.core.text_tables import NO_VALUE, TableRow, aligned, format_p
from bertkd_ray.report.comparison import Comparison
from bertkd_ray.report.corpus import wrapped
from bertkd_ray.report.sentences import Sentence
from bertkd_ray.report.tables import signature_lines

_WIDTH = 100
_CELL = 24
_LABEL = 13


def comparison_text(comparison: Comparison) -> str:
    """Everything, without colours; at most 100 columns wide but for paths, signatures and long words.

    Where the students do not fit beside each other, the tables go on below, with the other students.
    """
    labels = [side.label for side in comparison.sides]
    blocks = [
        list(_sides(comparison)),
        _table("configuration", labels, _texts(comparison.configuration), empty="no key differs"),
        _table("metrics", labels, _numbers(comparison.metrics)),
        list(_bootstrap(comparison)),
        *_sentences(comparison.sentences),
        signature_lines(comparison.signatures, "{}  {}"),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _sides(comparison: Comparison) -> Iterator[str]:
    for side in comparison.sides:
        run = f"  run {side.run_id}" if side.run_id else ""
        yield f"{side.label}  {side.name}{run}"
        yield f"   {side.translation.display_uri}"


def _texts(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    return {key: {label: _value(value) for label, value in of.items()} for key, of in rows.items()}


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"


def _numbers(rows: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, str]]:
    return {key: {label: _number(value) for label, value in of.items()} for key, of in rows.items()}


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}" if abs(value) >= 10 else f"{value:.4f}"


def _table(title: str, labels: Sequence[str], rows: Mapping[str, Mapping[str, str]], empty: str = "") -> list[str]:
    """A line a key, a column a student; students that do not fit beside the others stand in a table below."""
    if not rows:
        return [f"{title}: {empty}"] if empty else []
    rest = _WIDTH - max(map(len, [title, *rows])) - 2
    widths = {label: max([1, *(len(of.get(label, NO_VALUE)) for of in rows.values())]) + 2 for label in labels}
    lines: list[str] = []
    while labels:
        fitting = [label for n, label in enumerate(labels) if sum(widths[one] for one in labels[: n + 1]) <= rest]
        fitting = fitting or list(labels[:1])
        labels = labels[len(fitting) :]
        table: list[TableRow] = [[title, *fitting]]
        table += [[key, *(of.get(label, NO_VALUE) for label in fitting)] for key, of in rows.items()]
        lines += [*([""] if lines else []), *(line.rstrip() for line in aligned(table))]
    return lines


def _bootstrap(comparison: Comparison) -> Iterator[str]:
    first, *others = comparison.sides
    rows: list[TableRow] = [[f"test BLEU against {first.label}", "Δ", "95% interval", "p", "better", "worse", "equal"]]
    for side in others:
        one = comparison.differences[side.label]
        low, high = one.interval
        counts = [f"{count:,}" for count in (one.better, one.worse, one.equal)]
        rows.append([side.label, f"{one.delta:+.2f}", f"{low:+.2f} … {high:+.2f}", format_p(one.p_value), *counts])
    yield from aligned(rows)
    yield f"better, worse, equal: of the {comparison.test_sentences:,} sentences, by chrF"


def _sentences(sentences: Sequence[Sentence]) -> Iterator[list[str]]:
    if not sentences:
        yield ["every sentence is translated alike"]
        return
    yield ["the sentences that differ most, by chrF"]
    for one in sentences:
        lines = [f"id {one.id}"]
        said = {"source": one.source, "reference": one.reference}
        said |= {f"{label} {one.chrf[label]:7.1f}": text for label, text in one.hypotheses.items()}
        for label, text in said.items():
            lines += wrapped(f"  {label}", text.split(), whole=True, indent=_LABEL)
        yield lines
