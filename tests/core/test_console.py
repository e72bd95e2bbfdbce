from __future__ import annotations

import io

import pytest

from bertkd_ray.core.console import Progress, has_color, human_bytes, human_count, human_seconds, is_live, say


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


def test_a_terminal_gets_one_live_bar() -> None:
    stream = Terminal()
    with Progress(10, "finetune", "steps", stream, initial=4) as progress:
        progress.update(7, loss=3.5)
        progress.update(10, loss=3.25)
    drawn = stream.getvalue()
    assert drawn.count("\n") == 1, "the bar stays on its line"
    last = drawn.rstrip("\n").rpartition("\r")[2]
    assert last.startswith("finetune: 100%")
    assert "10/10" in last
    assert last.rstrip().endswith("loss 3.25]")


def test_dumb_terminals_get_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    Progress(10, "finetune", "steps", stream).close()
    assert stream.getvalue() == "finetune  0/10 steps  0%  in 0.0s\n"
    assert not is_live(stream)


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_quiet_says_nothing(stream: io.StringIO) -> None:
    with Progress(10, "finetune", "steps", stream, every=0.0, quiet=True) as progress:
        progress.update(5)
    say("hello", stream=stream, quiet=True)
    assert stream.getvalue() == ""


def test_say_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    say("two\nlines", stage="finetune")
    say("bare")
    assert capsys.readouterr() == ("", "finetune  two lines\nbare\n")


def test_say_colours_a_terminal_unless_told_not_to(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    say("done", stage="prepare", stream=stream)
    monkeypatch.setenv("NO_COLOR", "1")
    say("done", stage="prepare", stream=stream)
    assert stream.getvalue() == "\x1b[1mprepare\x1b[0m  done\nprepare  done\n"
    assert not has_color(stream)
