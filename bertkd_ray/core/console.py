"""What people see on stderr while it runs: one live bar on a terminal, a plain line every so often elsewhere.

Results go to stdout and are none of this module's business. Nothing here is global, so a Ray worker may use it too.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TextIO

from bertkd_ray.core.redaction import redacted

_RATE_WINDOW = 6  # plain lines that the printed rate looks back over


def human_seconds(seconds: float) -> str:
    """A duration to two units: `0.4s`, `12s`, `6m12s`, `1h02m`, `3d04h`."""
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60}h{minutes % 60:02d}m"
    hours = round(seconds / 3600)
    return f"{hours // 24}d{hours % 24:02d}h"


def human_count(count: float) -> str:
    """A number of things to three digits: `950`, `9,500`, `12.3k`, `4.56M`, `7.89B`."""
    if abs(count) < 9_999.5:
        return f"{count:,.0f}"
    return _scaled(count, 1000.0, ["k", "M", "B", "T"])


def human_bytes(count: float) -> str:
    """A number of bytes to three digits in binary units: `512 B`, `1.50 KiB`, `9.70 GiB`."""
    if abs(count) < 1023.5:
        return f"{count:.0f} B"
    return _scaled(count, 1024.0, [" KiB", " MiB", " GiB", " TiB", " PiB"])


def _scaled(value: float, base: float, units: list[str]) -> str:
    for unit in units:
        value /= base
        if abs(value) < base - 0.5 or unit == units[-1]:
            break
    digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{digits}f}{unit}"


def is_live(stream: TextIO) -> bool:
    """Whether a line on this stream can be drawn over: a terminal, and not a dumb one."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def has_color(stream: TextIO) -> bool:
    """Whether to colour: a live terminal, and the user has not set NO_COLOR (https://no-color.org)."""
    return is_live(stream) and not os.environ.get("NO_COLOR")


def say(message: str, *, stage: str = "", stream: TextIO | None = None, quiet: bool = False) -> None:
    """Log one line to stderr, with the stage in front; line breaks in the message become spaces and
    credentials in URIs are hidden.
    """
    if quiet:
        return
    stream = sys.stderr if stream is None else stream
    text = " ".join(redacted(message).splitlines())
    if stage:
        text = f"\x1b[1m{stage}\x1b[0m  {text}" if has_color(stream) else f"{stage}  {text}"
    if is_live(stream):
        from tqdm import tqdm

        # A bar may be standing on this line.
        tqdm.write(text, file=stream)
    else:
        print(text, file=stream, flush=True)


class Progress:
    """Progress of one piece of work, drawn to stderr; a context manager.

    total: units of the whole work, None where unknown; what: e.g. "finetune"; unit: e.g. "steps"; initial: units that
    were done before (a resumed run), which do not count for the rate; every: seconds between plain lines.

        with Progress(900, "finetune", "steps") as progress:
            progress.update(120, loss=3.21)

    prints `finetune  120/900 steps  13%  2.1 steps/s  left 6m12s  loss 3.21` every 10 s where stderr is no terminal.
    """

    def __init__(
        self,
        total: int | None,
        what: str,
        unit: str = "steps",
        stream: TextIO | None = None,
        *,
        initial: int = 0,
        every: float = 10.0,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._what, self._unit = total, what, unit
        self._stream = sys.stderr if stream is None else stream
        self._initial, self._done = initial, initial
        self._every, self._quiet, self._clock = every, quiet, clock
        self._figures: dict[str, Any] = {}
        self._start = clock()
        self._printed: deque[tuple[float, int]] = deque([(self._start, initial)], maxlen=_RATE_WINDOW)
        self._bar = self._open_bar() if not quiet and is_live(self._stream) else None

    def _open_bar(self) -> Any:
        from tqdm import tqdm

        return tqdm(
            total=self._total,
            initial=self._initial,
            desc=self._what,
            unit=f" {self._unit}",
            file=self._stream,
            dynamic_ncols=True,
        )

    def update(self, done: int, **figures: Any) -> None:
        """Say that `done` units are done in all, with newest figures to show (numbers or text)."""
        self._done = done
        self._figures.update(figures)
        if self._bar is not None:
            self._bar.set_postfix_str("  ".join(self._figure_texts()), refresh=False)
            self._bar.update(done - self._bar.n)
        elif not self._quiet and self._clock() - self._printed[-1][0] >= self._every:
            self._print_line()

    def _figure_texts(self) -> list[str]:
        return [
            f"{name.replace('_', ' ')} {value:.4g}" if isinstance(value, float) else f"{name.replace('_', ' ')} {value}"
            for name, value in self._figures.items()
        ]

    def _counted(self) -> str:
        if self._total is None:
            return f"{self._done:,} {self._unit}"
        percent = f"  {100 * self._done // self._total}%" if self._total else ""
        return f"{self._done:,}/{self._total:,} {self._unit}{percent}"

    def _print_line(self) -> None:
        now = self._clock()
        since, done_then = self._printed[0]
        self._printed.append((now, self._done))
        rate = (self._done - done_then) / (now - since) if now > since else 0.0
        parts = [self._what, self._counted(), f"{_rate_text(rate)} {self._unit}/s"]
        if rate > 0 and self._total is not None:
            parts.append(f"left {human_seconds(max(self._total - self._done, 0) / rate)}")
        print("  ".join([*parts, *self._figure_texts()]), file=self._stream, flush=True)

    def close(self, *, failed: bool = False) -> None:
        """End the bar, or print the last line (not after a failure)."""
        if self._bar is not None:
            self._bar.close()
        elif not self._quiet and not failed:
            seconds = self._clock() - self._start
            parts = [self._what, self._counted(), f"in {human_seconds(seconds)}", *self._figure_texts()]
            print("  ".join(parts), file=self._stream, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(failed=kind is not None)


def _rate_text(rate: float) -> str:
    return human_count(rate) if rate >= 100 else f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}"
