"""Where rows are written down: at once, so that a run that is cut short has lost nothing, and within a deadline."""

from __future__ import annotations

import json
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HEADINGS = ("row", "variant", "rate", "TFLOP/s", "products", "share", "goal")
_GRACE = 2.0
_NOTHING = "–"


class SkippedError(Exception):
    """Something that cannot be measured here; its message says why."""


class ResultTable:
    """Rows, failures and what was left out, with the reason; every change is written to the file."""

    def __init__(self, path: Path, described: dict[str, Any], ends: float, *, in_miniature: bool = False) -> None:
        """ends: when, by `time.monotonic`. in_miniature: everything takes a small part of the time."""
        self._path, self._ends = path, ends
        self._started = time.monotonic()
        self._pace = 0.1 if in_miniature else 1.0
        self.product_seconds = 0.001 if in_miniature else 0.03
        """What the timing of one product may take, about."""
        self._lock = threading.Lock()
        self._now = ""
        nothing: dict[str, Any] = {"seconds": {}, "rows": [], "failed": {}, "left_out": [], "cut": None}
        self._tree: dict[str, Any] = {**described, **nothing}
        self._write()

    @property
    def failed(self) -> dict[str, Any]:
        """What was raised, by row."""
        return dict(self._tree["failed"])

    @property
    def not_passed(self) -> list[str]:
        """Rows with a check that did not pass, but for those that bind nobody."""
        checks = [row for row in self._tree["rows"] if row["details"].get("binding", True)]
        return [f"{row['row']}: {row['variant']}" for row in checks if row["details"].get("passed") is False]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All rows so far."""
        return list(self._tree["rows"])

    def left(self) -> float:
        """Seconds until the deadline."""
        return self._ends - time.monotonic()

    def has_time(self, row: str, variant: str, needs: float = 6.0) -> bool:
        """Whether something that takes `needs` seconds may still begin; if not, that is written down."""
        if self.left() > needs * self._pace:
            return True
        self.leave_out(row, variant, f"it takes about {needs * self._pace:.0f} s, {max(0.0, self.left()):.0f} are left")
        return False

    def leave_out(self, row: str, variant: str, reason: str) -> None:
        """Writes down that something is not measured, and why."""
        print(f"{row}: {variant}: left out: {reason}", flush=True)
        with self._lock:
            self._tree["left_out"].append(f"{row}: {variant}: {reason}")
            self._write()

    def add(
        self,
        row: str,
        variant: str,
        rates: dict[str, float],
        *,
        flops: float | None = None,
        product_rate: float | None = None,
        goal: float | str | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        """Writes a row down. flops, product_rate: FLOP/s; goal: the share of the products that is wanted, or a text."""
        share = flops / product_rate if flops and product_rate else None
        entry = {
            "row": row,
            "variant": variant,
            "rates": rates,
            "flops": flops,
            "product_rate": product_rate,
            "share": share,
            "goal": goal,
            "at": round(time.monotonic() - self._started, 1),
            "details": details or {},
        }
        with self._lock:
            self._tree["rows"].append(entry)
            self._write()
        print("  ".join(_cells(entry)), flush=True)

    def run(self, name: str, measure: Callable[[], None], needs: float = 6.0) -> None:
        """Measures a row; what it raises is written down, and the others are measured all the same."""
        if not self.has_time(name, "all", needs):
            return
        started = time.monotonic()
        outer, self._now = self._now, name
        try:
            measure()
        except SkippedError as reason:
            self.leave_out(name, "all", str(reason))
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {str(error)[:300]}", flush=True)
            with self._lock:
                self._tree["failed"][name] = {"error": repr(error)[:2000], "trace": traceback.format_exc()[-6000:]}
        finally:
            self._now = outer
        with self._lock:
            self._tree["seconds"][name] = round(time.monotonic() - started, 1)
            self._write()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Ends this process shortly before the deadline, whatever it does then, unless the block has ended."""
        timer = threading.Timer(max(0.0, self.left() - _GRACE), self._end_early)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def table(self) -> str:
        """All rows, for the terminal."""
        cells = [HEADINGS, *map(_cells, self._tree["rows"])]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
        ]
        ends = [f"failed: {name}: {what['error'][:200]}" for name, what in self._tree["failed"].items()]
        ends += [f"not passed: {what}" for what in self.not_passed]
        ends += [f"left out: {what}" for what in self._tree["left_out"]]
        return "\n".join([*lines, *ends])

    def _end_early(self) -> None:
        with self._lock:
            self._tree["cut"] = self._now or "nothing"
            self._write()
            print(f"{self.table()}\ncut short in {self._tree['cut']}", flush=True)
        os._exit(3)

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        scratch = self._path.with_name(f"{self._path.name}.part")
        scratch.write_text(json.dumps(self._tree, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        scratch.replace(self._path)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    goal = row["goal"]
    return (
        row["row"],
        row["variant"],
        ", ".join(
            f"{value:,.4g} {unit}" if value < 1000 else f"{value:,.0f} {unit}" for unit, value in row["rates"].items()
        ),
        f"{row['flops'] / 1e12:.3g}" if row["flops"] else _NOTHING,
        f"{row['product_rate'] / 1e12:.3g}" if row["product_rate"] else _NOTHING,
        f"{row['share']:.1%}" if row["share"] else _NOTHING,
        (f"≥ {goal:.0%}" if isinstance(goal, float) else goal) or _NOTHING,
    )
