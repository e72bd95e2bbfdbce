"""Tables of text for a terminal and as Markdown, and numbers in their cells."""

import math

_WIDTH = 100
_GAP = "  "
NO_VALUE = "–"
TableRow = list[str]


def format_p(p_value: float | None) -> str:
    """`<0.001`, `0.042`, or a dash for None and NaN."""
    return "<0.001" if p_value is not None and p_value < 0.001 else format_number(p_value, ".3f")


def format_number(value: float | None, form: str) -> str:
    """A formatted number, or a dash for None and NaN."""
    return NO_VALUE if value is None or math.isnan(value) else format(value, form)


def text_table(table: list[TableRow]) -> list[str]:
    """The lines of a table in plain text: first column to the left, numbers to the right, a rule under the header."""
    if not table:
        return []
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    rest = sum(widths[1:]) + len(_GAP) * (len(widths) - 1)
    widths[0] = max(min(widths[0], _WIDTH - rest), len(table[0][0]))
    lines = []
    for name, *cells in table:
        fitted = name if len(name) <= widths[0] else name[: widths[0] - 1] + "…"
        numbers = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append(_GAP.join([fitted.ljust(widths[0]), *numbers]))
    return [lines[0], _GAP.join("─" * width for width in widths), *lines[1:]]


def markdown_table(table: list[TableRow]) -> list[str]:
    """The lines of a table in GitHub-flavoured Markdown."""
    if not table:
        return []
    header, *body = [[cell.replace("|", "\\|") for cell in row] for row in table]
    rule = ["---", *["---:"] * (len(header) - 1)]
    return [f"| {' | '.join(row)} |" for row in [header, rule, *body]]


def join_blocks(blocks: list[list[str]], end: str = "") -> str:
    """The text of blocks of lines, an empty line between them; empty blocks are left out."""
    return "\n\n".join("\n".join(block) for block in blocks if block) + end
