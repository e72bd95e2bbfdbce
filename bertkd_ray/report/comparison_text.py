"""A comparison of students as text for a terminal."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bertkd_ray.core.text_tables import NO_VALUE, TableRow, format_p, join_blocks, text_table
from bertkd_ray.report.comparison import StudentComparison
from bertkd_ray.report.corpus import wrapped
from bertkd_ray.report.tables import signature_lines

_WIDTH = 100
_CELL = 24
_LABEL = 13


def comparison_text(comparison: StudentComparison) -> str:
    """Students, settings, metrics, bootstrap and sentences, without colours.

    At most 100 columns wide but for paths, signatures and long words. Where the students do not fit beside each other,
    the tables go on below, with the other students.
    """
    labels = [student.label for student in comparison.students]
    names = []
    for student in comparison.students:
        run = f"  run {student.run_id}" if student.run_id else ""
        names += [f"{student.label}  {student.name}{run}", f"   {student.translation.display_uri}"]
    blocks = [
        names,
        _table("configuration", labels, comparison.configuration, _value),
        _table("metrics", labels, comparison.metrics, _number),
        list(_bootstrap(comparison)),
        *_sentences(comparison),
        signature_lines(comparison.signatures, "{}  {}"),
    ]
    return join_blocks(blocks)


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}" if abs(value) >= 10 else f"{value:.4f}"


def _table(
    title: str, labels: Sequence[str], values: Mapping[str, Mapping[str, Any]], text: Callable[[Any], str]
) -> list[str]:
    """A line a key, a column a student; students that do not fit beside the others stand in a table below."""
    if not values:
        return [f"{title}: no key differs"]
    rows = {key: {label: text(value) for label, value in of.items()} for key, of in values.items()}
    rest = _WIDTH - max(map(len, [title, *rows])) - 2
    widths = {label: max([1, *(len(of.get(label, NO_VALUE)) for of in rows.values())]) + 2 for label in labels}
    lines: list[str] = []
    while labels:
        fitting = [label for n, label in enumerate(labels) if sum(widths[other] for other in labels[: n + 1]) <= rest]
        fitting = fitting or list(labels[:1])
        labels = labels[len(fitting) :]
        table: list[TableRow] = [[title, *fitting]]
        table += [[key, *(of.get(label, NO_VALUE) for label in fitting)] for key, of in rows.items()]
        lines += [*([""] if lines else []), *(line.rstrip() for line in text_table(table))]
    return lines


def _bootstrap(comparison: StudentComparison) -> Iterator[str]:
    first, *others = comparison.students
    rows: list[TableRow] = [[f"test BLEU against {first.label}", "Δ", "95% interval", "p", "better", "worse", "equal"]]
    for student in others:
        difference = comparison.differences[student.label]
        low, high = difference.interval
        counts = [f"{count:,}" for count in (difference.better, difference.worse, difference.equal)]
        delta, interval = f"{difference.delta:+z.2f}", f"{low:+z.2f} … {high:+z.2f}"
        rows.append([student.label, delta, interval, format_p(difference.p_value), *counts])
    yield from text_table(rows)
    yield f"better, worse, equal: of the {comparison.test_sentences:,} sentences, by chrF"


def _sentences(comparison: StudentComparison) -> Iterator[list[str]]:
    if not comparison.sentences:
        # Or none was asked for.
        if not any(difference.better or difference.worse for difference in comparison.differences.values()):
            yield ["every sentence is translated alike"]
        return
    yield ["the sentences that differ most, by chrF"]
    for sentence in comparison.sentences:
        lines = [f"id {sentence.id}"]
        texts = {"source": sentence.source, "reference": sentence.reference}
        texts |= {f"{label} {sentence.chrf[label]:7.1f}": text for label, text in sentence.hypotheses.items()}
        for label, text in texts.items():
            lines += wrapped(f"  {label}", text.split(), whole=True, indent=_LABEL)
        yield lines
