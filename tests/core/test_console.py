from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from bertkd_ray.core.console import Progress, has_color, human_bytes, human_count, human_seconds, is_live, log


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.04, "0.0s"),
        (9.94, "9.9s"),
        (9.95, "10s"),
        (59.6, "1m00s"),
        (372, "6m12s"),
        (3599.6, "1h00m"),
        (3720, "1h02m"),
        (86_399, "1d00h"),
        (273_600, "3d04h"),
    ],
)
def test_human_seconds(seconds: float, shown: str) -> None:
    assert human_seconds(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0"),
        (9_500, "9,500"),
        (12_345, "12.3k"),
        (4_560_000, "4.56M"),
        (999_600, "1.00M"),
        (7.89e9, "7.89B"),
        (-12_345, "-12.3k"),
    ],
)
def test_human_count(count: float, shown: str) -> None:
    assert human_count(count) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(512, "512 B"), (1536, "1.50 KiB"), (9.7 * 2**30, "9.70 GiB"), (2**20 - 1, "1.00 MiB"), (150 * 2**20, "150 MiB")],
)
def test_human_bytes(count: float, shown: str) -> None:
    assert human_bytes(count) == shown


def test_plain_lines_come_at_most_every_ten_seconds_and_one_at_the_end() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(900, "finetune", "steps", stream, clock=clock) as progress:
        for done in range(1, 901):
            clock.now += 0.5
            progress.update(done, loss=3.2149, lr=5e-5)
            if done == 50:
                break
    assert stream.getvalue().splitlines() == [
        "finetune  20/900 steps  2%  2.0 steps/s  left 7m20s  loss 3.215  lr 5e-05",
        "finetune  40/900 steps  4%  2.0 steps/s  left 7m10s  loss 3.215  lr 5e-05",
        "finetune  50/900 steps  5%  in 25s  loss 3.215  lr 5e-05",
    ]


def test_rate_leaves_out_what_a_resumed_run_had_done_and_follows_the_present() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(2000, "distill", "steps", stream, initial=1000, clock=clock) as progress:
        for line in range(1, 8):
            clock.now += 10
            progress.update(1000 + line * 10 if line == 1 else 1010 + (line - 1) * 100)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "distill  1,010/2,000 steps  50%  1.0 steps/s  left 16m30s"
    assert "  10.0 steps/s  left 39s" in lines[6], "the slow first ten seconds are forgotten"


def test_unknown_and_empty_totals() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(None, "translate", "sentences", stream, clock=clock) as progress:
        clock.now += 20
        progress.update(12_000, best_bleu=31.25, split="test")
    Progress(0, "prepare", "pairs", stream, clock=clock).close()
    assert stream.getvalue().splitlines() == [
        "translate  12,000 sentences  600 sentences/s  best bleu 31.25  split test",
        "translate  12,000 sentences  in 20s  best bleu 31.25  split test",
        "prepare  0/0 pairs  in 0.0s",
    ]


def test_no_last_line_after_a_failure() -> None:
    stream = io.StringIO()

    def work() -> None:
        with Progress(9, "finetune", "steps", stream) as progress:
            progress.update(3)
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        work()
    assert stream.getvalue() == ""


def test_no_rate_comes_from_what_was_done_before_the_first_report() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(300, "finetune", "steps", stream, clock=clock) as progress:
        clock.now += 12
        progress.resume(0)  # a worker has started, and its first report comes with this one
        clock.now += 0.00002
        progress.update(2)
        clock.now += 10
        progress.update(102)
    first, second, _ = stream.getvalue().splitlines()
    assert first == "finetune  2/300 steps  0%  after 12s"
    assert second == "finetune  102/300 steps  34%  10.2 steps/s  left 19s"


def test_plain_lines_come_while_nothing_happens_but_less_often() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(6, "extract", "pairs", stream, clock=clock, every=0.02) as progress:
        clock.now += 0.1
        time.sleep(0.1)
        assert stream.getvalue() == "", "six times as late"
        clock.now += 0.1
        wait_for(lambda: stream.getvalue() == "extract  0/6 pairs  0%  after 0.2s\n", stream)
        progress.update(1)
        clock.now += 0.05
        wait_for(lambda: stream.getvalue().endswith("\nextract  1/6 pairs  16%  4.0 pairs/s  left 1.2s\n"), stream)


def wait_for(condition: Callable[[], bool], stream: io.StringIO) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, stream.getvalue()
        time.sleep(0.01)


def test_what_was_done_before_makes_no_rate_and_what_is_lost_no_negative_one() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(900, "finetune", "steps", stream, clock=clock) as progress:
        clock.now += 20
        progress.resume(500, loss=3.0)
        for done in (520, 480, 490):
            clock.now += 10
            progress.update(done)
    assert stream.getvalue().splitlines() == [
        "finetune  520/900 steps  57%  2.0 steps/s  left 3m10s  loss 3",
        "finetune  480/900 steps  53%  after 40s  loss 3",
        "finetune  490/900 steps  54%  1.0 steps/s  left 6m50s  loss 3",
        "finetune  490/900 steps  54%  in 50s  loss 3",
    ]


def test_a_terminal_gets_one_live_line() -> None:
    stream, clock = Terminal(), Clock()
    with Progress(10, "finetune", "steps", stream, initial=4, clock=clock) as progress:
        for done in (5, 7, 10):
            clock.now += 2
            progress.update(done, loss=3.25)
            progress.update(done, loss=3.5)
    drawn = stream.getvalue()
    assert drawn.count("\n") == 1, "it stays on its line"
    assert [line for line in drawn.rstrip("\n").split("\r\x1b[K") if line] == [
        "finetune  5/10 steps  50%  0.5 steps/s  left 10s  loss 3.25",
        "finetune  7/10 steps  70%  0.75 steps/s  left 4.0s  loss 3.25",
        "finetune  10/10 steps  100%  1.0 steps/s  left 0.0s  loss 3.25",
        "finetune  10/10 steps  100%  in 6.0s  loss 3.5",
    ]


def test_a_live_line_stays_after_a_failure() -> None:
    stream, clock = Terminal(), Clock()
    progress = Progress(9, "finetune", "steps", stream, clock=clock)
    clock.now += 2
    progress.update(3)
    progress.close(failed=True)
    assert stream.getvalue().endswith("\r\x1b[Kfinetune  3/9 steps  33%  1.5 steps/s  left 4.0s\n")


ON_A_TERMINAL = """
import time
from bertkd_ray.core.console import Progress, log
with Progress(900, "distill/control", "steps") as progress:
    for done in (300, 600, 900):
        time.sleep(0.11)
        progress.update(done, loss=3.21456, lr=5e-05)
        if done == 300:
            log("a worker was lost", stage="distill")
"""


def on_a_terminal(columns: int) -> str:
    """What a process writes to a pseudo-terminal of so many columns (0: it does not say)."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {**os.environ, "NO_COLOR": "1"}
    with subprocess.Popen([sys.executable, "-c", ON_A_TERMINAL], stderr=theirs, env=environment) as process:
        os.close(theirs)
        written = b""
        # A terminal that all have left is an error to read, on Linux.
        with suppress(OSError):
            while block := os.read(ours, 1 << 16):
                written += block
    os.close(ours)
    assert process.returncode == 0
    return written.decode().replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("columns", "line", "last"),
    [
        (120, r"600/900 steps  66%  \S+ steps/s  left \S+s  loss 3\.215  lr 5e-05", "  in 0.3s  loss 3.215  lr 5e-05"),
        (62, r"600/900 steps  66%  \S+ steps/s  left \S+s", "  in 0.3s  loss 3.215"),
        (42, r"\S+ steps/s  left \S+s", "100%  in 0.3s"),
        (27, r"left \S+s", "  in 0.3s"),
        (12, "", ""),
        (0, r"600/900 steps  66%  \S+ steps/s  left \S+s  loss 3\.215", "  in 0.3s  loss 3.215  lr 5e-05"),
    ],
)
def test_the_live_line_fits_a_terminal(columns: int, line: str, last: str) -> None:
    """Time left and rate stay longest; a line that wrapped round could not be drawn over."""
    rows = on_a_terminal(columns).split("\n")
    drawn = [state for row in rows for state in row.split("\r\x1b[K")]
    assert len(rows) == 3, "the live line, what was said on it, and the line's end"
    assert rows[0].endswith("\r\x1b[Kdistill  a worker was lost")
    assert any(re.fullmatch(rf"distill/control  {line}" if line else "distill/con", state) for state in drawn)
    assert re.sub(r"in \S+s", "in 0.3s", drawn[-2]).endswith(last)
    assert max(len(state) for state in drawn if "a worker" not in state) < (columns or 80)


def test_the_live_line_is_drawn_while_nothing_happens() -> None:
    stream = Terminal()
    with Progress(9, "extract", "pairs", stream):
        wait_for(lambda: stream.getvalue().count("\r\x1b[Kextract  0/9 pairs  0%  after ") == 2, stream)


def test_dumb_terminals_get_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    Progress(10, "finetune", "steps", stream).close()
    assert stream.getvalue() == "finetune  0/10 steps  0%  in 0.0s\n"
    assert not is_live(stream)


def test_say_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    log("two\nlines", stage="finetune")
    log("bare")
    assert capsys.readouterr() == ("", "finetune  two lines\nbare\n")


def test_say_colours_a_terminal_unless_told_not_to(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    log("done", stage="prepare", stream=stream)
    monkeypatch.setenv("NO_COLOR", "1")
    log("done", stage="prepare", stream=stream)
    over = "\r\x1b[K"
    assert stream.getvalue() == f"{over}\x1b[1mprepare\x1b[0m  done\n{over}prepare  done\n"
    assert not has_color(stream)
