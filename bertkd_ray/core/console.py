"""What people see on stderr while it runs: one live line on a terminal, a plain line every so often elsewhere.

Results go to stdout and are none of this module's business. Nothing here is global, so a Ray worker may use it too.
"""

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TextIO

from bertkd_ray.core.redaction import escape_controls, redacted

_RATE_SECONDS = 0.05  # less gives none: what a worker did before it first said so counts as done at once
_RATE_WINDOW = 6  # plain lines that the rate looks back over
_REDRAWN_EVERY = 1.0  # seconds between drawings of a live line while nothing happens
_DRAWN_EVERY = 0.1  # and at the least between any two
_IDLE_LINES = 6  # a plain line that says nothing new comes this many times as late
_COLUMNS = 80  # of a terminal that does not say how wide it is
_ERASE = "\r\x1b[K"


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


def log(message: str, *, stage: str = "", stream: TextIO | None = None) -> None:
    """Log one line to stderr, the stage in front; line breaks become spaces, credentials in URIs are hidden."""
    stream = sys.stderr if stream is None else stream
    text = escape_controls(" ".join(redacted(message).splitlines()))
    if stage:
        text = f"\x1b[1m{stage}\x1b[0m  {text}" if has_color(stream) else f"{stage}  {text}"
    # A live line may be standing here; it is drawn again below this one.
    print(f"{_ERASE if is_live(stream) else ''}{text}", file=stream, flush=True)


class Progress(AbstractContextManager["Progress"]):
    """Progress of some work, on stderr; a context manager.

    total: units of the whole work, None where unknown; what: e.g. "finetune"; unit: e.g. "steps"; initial: units that
    were done before, which do not count for the rate; every: seconds between plain lines.

        with Progress(900, "finetune", "steps") as progress:
            progress.update(120, loss=3.21)

    prints `finetune  120/900 steps  13%  2.1 steps/s  left 6m12s  loss 3.21` every 10 s where stderr is no terminal,
    once a minute while nothing changes. On a terminal one line says the same, as far as it fits, and is drawn over. The
    rate is that of the last minute or so. `update` may be called by any thread.
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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._what, self._unit = total, what, unit
        self._stream = sys.stderr if stream is None else stream
        self._done = initial
        self._every, self._clock = every, clock
        self._figures: dict[str, Any] = {}
        self._start = self._refreshed = clock()
        self._changed = False
        self._points: deque[tuple[float, int]] = deque([(self._start, initial)], maxlen=_RATE_WINDOW)
        self._is_live = is_live(self._stream)
        self._lock, self._ended = threading.RLock(), threading.Event()
        # The work may take minutes for a unit, or wait for a cluster.
        threading.Thread(target=self._refresh_periodically, name="progress", daemon=True).start()

    def update(self, done: int, **figures: Any) -> None:
        """Say that `done` units are done in all, with newest figures to show (numbers or text)."""
        with self._lock:
            if done < self._done:  # work was lost with a worker and is done again
                self.resume(done)
            self._done, self._changed = done, True
            self._figures.update(figures)
            self._refresh()

    def resume(self, done: int, **figures: Any) -> None:
        """Set the units that were done before, which do not count for the rate."""
        with self._lock:
            self._points.clear()
            self._points.append((self._clock(), done))
            self._done, self._changed = done, True
            self._figures.update(figures)

    def _refresh_periodically(self) -> None:
        while not self._ended.wait(_REDRAWN_EVERY if self._is_live else self._every):
            with self._lock:
                if not self._ended.is_set():
                    self._refresh()

    def _refresh(self) -> None:
        """Draws or prints a line if it is time for one."""
        now = self._clock()
        pace = self._pace(now)
        if self._changed and now - self._points[-1][0] >= self._every:
            self._points.append((now, self._done))
        pause = _DRAWN_EVERY if self._is_live else self._every * (1 if self._changed else _IDLE_LINES)
        if now - self._refreshed < pause:
            return
        self._write(self._parts(*pace))
        self._refreshed, self._changed = now, False

    def _pace(self, now: float) -> list[str]:
        """Units a second of late and the time left; while nothing has been done, the time since the start."""
        since, done_then = self._points[0]
        if now - since < _RATE_SECONDS or self._done <= done_then:
            return [f"after {human_seconds(now - self._start)}"]
        rate = (self._done - done_then) / (now - since)
        digits = human_count(rate) if rate >= 100 else f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}"
        left = [] if self._total is None else [f"left {human_seconds(max(self._total - self._done, 0) / rate)}"]
        return [f"{digits} {self._unit}/s", *left]

    def _parts(self, *pace: str) -> list[str]:
        """The line's parts, in the order in which they are read."""
        total = "" if self._total is None else f"/{self._total:,}"
        percent = [f"{100 * self._done // self._total}%"] if self._total else []
        figures = [
            f"{name.replace('_', ' ')} {format(value, '.4g') if isinstance(value, float) else value}"
            for name, value in self._figures.items()
        ]
        return [self._what, f"{self._done:,}{total} {self._unit}", *percent, *pace, *figures]

    def _write(self, parts: list[str], *, last: bool = False) -> None:
        """Prints a plain line, or draws the live one over what stands there."""
        line, end = "  ".join(parts), "\n"
        if self._is_live:
            # In the last column some terminals would go on to the next line.
            line = _ERASE + _fitting(parts, len(self._figures), _columns(self._stream) - 1)
            end = "\n" if last else ""
        print(line, end=end, file=self._stream, flush=True)

    def close(self, *, failed: bool = False) -> None:
        """End the live line, or print the last plain one (not after a failure)."""
        self._ended.set()
        with self._lock:
            if failed and not self._is_live:
                return
            now = self._clock()
            pace = self._pace(now) if failed else [f"in {human_seconds(now - self._start)}"]
            self._write(self._parts(*pace), last=True)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(failed=kind is not None)


def _fitting(parts: list[str], figures: int, columns: int) -> str:
    """As many parts as have room. figures: how many of them are figures; these go first, the last before the others,
    then what is counted from its left; the name and the time left stay, cut off if need be.
    """
    kept = list(parts)
    while len(kept) > 2 and len("  ".join(kept)) > columns:
        if figures:
            kept.pop()
            figures -= 1
        else:
            kept.pop(1)
    return "  ".join(kept)[:columns]


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or _COLUMNS
    except OSError:
        return _COLUMNS
