"""Where line-aligned files part."""

from __future__ import annotations

import pytest

from bertkd_ray.corpus.alignment_drift import drift_line
from tools.demo_corpus import demo_corpus

PAIRS = demo_corpus(seed=3, train=400, valid=1, test=1)["train"]
SRC, TGT = [pair[0] for pair in PAIRS], [pair[1] for pair in PAIRS]
EXTRA = ["Ein Satz, der zu keinem gehört: 4711 Kraniche.", ""]


@pytest.mark.parametrize("line", [0, 60, 200, 350, 400])
@pytest.mark.parametrize("extra", [EXTRA[:1], EXTRA[1:], EXTRA])
@pytest.mark.parametrize("side", ["src", "tgt"])
def test_the_place_of_the_surplus_is_told(line, extra, side):
    src, tgt = list(SRC), list(TGT)
    of = src if side == "src" else tgt
    of[line:line] = extra
    told = drift_line(src, tgt)
    assert told is not None
    # Neighbours of the place may fit either way by chance.
    assert abs(told - line) <= 2


def test_a_lost_line_is_a_surplus_of_the_other_side():
    told = drift_line(SRC[:123] + SRC[124:], TGT)
    assert told is not None
    assert abs(told - 123) <= 2


@pytest.mark.parametrize(
    ("src", "tgt"),
    [
        (["x"] * 5, ["x"] * 4),
        (["a", "b", "c"], ["d"]),
        ([], ["x"]),
        (SRC, list(reversed(TGT))[:-1]),
        (SRC, TGT),
    ],
    ids=["all alike", "too few", "nothing", "not aligned anywhere", "equally many"],
)
def test_where_it_cannot_be_told_nothing_is(src, tgt):
    assert drift_line(src, tgt) is None
