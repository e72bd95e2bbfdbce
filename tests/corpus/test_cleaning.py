from __future__ import annotations

import numpy as np
import pytest

from bertkd_ray.corpus.cleaning import ADMITTED, REASONS, admit, count_reasons, unescape_moses


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("&amp; &#124; &lt; &gt; &apos; &quot; &#91; &#93;", "& | < > ' \" [ ]"),
        ("it &apos;s n&apos;t r&amp;d", "it 's n't r&d"),
        ("&amp;lt; &amp;amp;", "&lt; &amp;"),  # once
        ("&nbsp; & &foo &APOS; &apos", "&nbsp; & &foo &APOS; &apos"),
        ("well @-@ known @-@", "well - known -"),
        ("@-@ @-@", "- -"),
        ("x@-@y @-@start end@-@ &quot;@-@", 'x@-@y @-@start end@-@ "@-@'),
        ("a\t@-@\u2028b", "a\t-\u2028b"),
    ],
)
def test_unescape_moses(text: str, expected: str) -> None:
    assert unescape_moses(text) == expected


def test_admission_names_the_first_reason() -> None:
    src = [1, 0, 5, 150, 151, 5, 0, 0, 300]
    tgt = [1, 5, 0, 150, 5, 151, 0, 999, 300]
    reasons = admit(src, tgt)
    assert reasons.dtype == np.int8
    names = [None if reason == ADMITTED else REASONS[reason - 1] for reason in reasons]
    long = "side_too_long"
    assert names == [None, "empty", "empty", None, long, long, "empty", "empty", long]
    assert count_reasons(reasons) == {"empty": 4, "side_too_long": 3, "pair_too_long": 0}


def test_a_pair_may_be_too_long_together() -> None:
    reasons = admit(np.array([255, 255, 400]), np.array([254, 255, 109]), max_side=400)
    assert reasons.tolist() == [ADMITTED, 1 + REASONS.index("pair_too_long"), ADMITTED]
    assert admit([3], [3], max_side=3, max_pair=5).tolist() == [3]


def test_no_pairs() -> None:
    reasons = admit(np.empty(0, np.int32), np.empty(0, np.int32))
    assert reasons.shape == (0,)
    assert count_reasons(reasons) == {"empty": 0, "side_too_long": 0, "pair_too_long": 0}
