from __future__ import annotations

import json
import logging
import math
import re
from dataclasses import replace

import pytest
import sacrebleu

from bertkd_ray.config.languages import language_code
from bertkd_ray.core.errors import UserError
from bertkd_ray.evaluation import metrics
from bertkd_ray.evaluation.metrics import corpus_bleu, legacy_bleu, score, tokenizer_for, validation_tokenizer
from tests.helpers.shared_files import golden_path

REFERENCES = [
    "The cat sits on the mat, does it not?",
    "A dog runs through the green park.",
    "Two men play chess in the afternoon.",
    "It is raining, so we stay at home today.",
]
GOOD = [
    "The cat sits on the mat, does it?",
    "A dog runs through the park.",
    "Two men play chess in the afternoon.",
    "It is raining, so we stay home today.",
]
BAD = ["The cat lies on a mat.", "Dog in park.", "Men play chess in the evening.", "We stay at home today."]


@pytest.mark.golden
def test_legacy_bleu_is_the_script() -> None:
    cases = json.loads(golden_path("multibleu.json").read_text())
    assert cases
    for case in cases:
        result = legacy_bleu(case["hyp"], case["ref"], lowercase=case["lowercase_flag"])
        precisions = "/".join(f"{precision:.1f}" for precision in result.precisions)
        assert case["stdout"] == (
            f"BLEU = {result.score:.2f}, {precisions} (BP={result.bp:.3f}, ratio={result.ratio:.3f}, "
            f"hyp_len={result.sys_len}, ref_len={result.ref_len})"
        ), case["name"]
        assert result.score == pytest.approx(case["bleu"], abs=0.01)
        assert (result.sys_len, result.ref_len) == (case["hyp_len"], case["ref_len"])


def test_legacy_bleu_by_hand() -> None:
    # Unigrams 5/6 ("the" is clipped to 2), bigrams 3/5, trigrams 2/4, 4-grams 1/3; 6 tokens for 7.
    result = legacy_bleu(["the cat sat on the the"], ["the cat sat on the old mat"])
    assert result.precisions == pytest.approx((500 / 6, 80.0, 75.0, 200 / 3))
    assert result.bp == pytest.approx(math.exp(1 - 7 / 6))
    assert result.score == pytest.approx(100 * math.exp(1 - 7 / 6) * (5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25)
    assert (result.ratio, result.sys_len, result.ref_len) == (6 / 7, 6, 7)


def test_legacy_bleu_is_of_lower_cased_tokens_and_a_zero_precision_gives_zero() -> None:
    assert legacy_bleu(["Ä B C D"], ["ä b c d"]).score == pytest.approx(100.0)
    assert legacy_bleu(["Ä B C D"], ["ä b c d"], lowercase=False).score == 0.0
    assert legacy_bleu(["a b c x"], ["a b c d"]).score == 0.0


def test_legacy_bleu_without_any_token() -> None:
    result = legacy_bleu([""], ["a b"])
    assert (result.score, result.bp, result.ratio) == (0.0, 0.0, 0.0)
    assert legacy_bleu([""], [""]).score == 0.0


def test_score_is_sacrebleu() -> None:
    scores = score(GOOD, REFERENCES)
    assert scores.bleu == sacrebleu.corpus_bleu(GOOD, [REFERENCES]).score
    assert scores.chrf == sacrebleu.corpus_chrf(GOOD, [REFERENCES]).score
    assert scores.bleu == corpus_bleu(GOOD, REFERENCES)
    version = sacrebleu.__version__
    assert scores.bleu_signature == f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{version}"
    assert scores.chrf_signature == f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:{version}"
    assert scores.sentences == 4
    assert 0 < scores.brevity_penalty < 1
    assert scores.length_ratio == pytest.approx(35 / 38)


def test_legacy_figure_of_raw_text_is_lower_cased_and_tokenised() -> None:
    by_hand = legacy_bleu(["the cat , it sits ."], ["the cat , it sits ."])
    scores = score(["THE cat, it sits."], ["the Cat, it sits."])
    assert scores.legacy_bleu == by_hand.score == pytest.approx(100.0)
    assert scores.bleu < 100


def test_legacy_figure_of_a_tokenised_corpus_is_of_its_tokens() -> None:
    raw, reference = ["The cat's here."], ["The cat is here."]
    tokens = ["the Cat 's here ."], ["The cat is here ."]
    scores = score(raw, reference, tokens=tokens)
    assert scores.legacy_bleu == legacy_bleu(["the cat 's here ."], ["the cat is here ."]).score
    assert scores == replace(score(raw, reference), legacy_bleu=scores.legacy_bleu)


def test_chinese_is_scored_by_characters() -> None:
    # Seven characters, six of them right: 6/7, 5/6, 4/5, 3/4; 13a sees one word, and it is wrong.
    hypotheses, references = ["我喜欢吃苹果!"], ["我喜欢吃苹果。"]
    by_hand = 100 * (6 / 7 * 5 / 6 * 4 / 5 * 3 / 4) ** 0.25
    scores = score(hypotheses, references, tokenize="zh")
    assert scores.bleu == pytest.approx(by_hand)
    assert scores.legacy_bleu == pytest.approx(by_hand)
    assert scores.length_ratio == 1.0
    assert "|tok:zh|" in scores.bleu_signature
    assert corpus_bleu(hypotheses, references, tokenize="zh") == pytest.approx(by_hand)
    assert corpus_bleu(hypotheses, references) < 20
    assert score(hypotheses, references).chrf == scores.chrf


@pytest.mark.parametrize(
    ("language", "installed", "expected"),
    [
        *[(language, False, "13a") for language in ("en", "de", "ar", "hi", "tr")],
        *[(language, False, "13a") for language in ("eng", "deu", "ger", "arb_Arab", "vie", "xx")],
        *[(language, False, "zh") for language in ("zh", "ZH", "zh-TW", "zh_cn")],
        *[(language, False, "zh") for language in ("zho", "chi", "cmn", "zho_Hans", "yue", "wuu", "nan", "lzh")],
        *[(language, False, "zh") for language in ("och", "ltc", "cnp")],
        *[(language, False, "char") for language in ("ojp", "okz", "obr", "omx", "otb", "xct", "khg", "adx", "txg")],
        *[(language, False, "char") for language in ("ja", "ko", "th", "my")],
        *[(language, False, "char") for language in ("jpn", "kor", "tha", "mya", "bur", "lao", "khm", "bod", "shn")],
        *[("jpn", True, "ja-mecab"), ("kor", True, "ko-mecab")],
        *[("ja", True, "ja-mecab"), ("ko", True, "ko-mecab"), ("th", True, "char")],
    ],
)
def test_the_tokenizer_follows_the_language(
    language: str, installed: bool, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(metrics.importlib.util, "find_spec", lambda name: object() if installed else None)
    tokenizer_for.cache_clear()
    assert {tokenizer_for(language) for _ in range(2)} == {expected}
    tokenizer_for.cache_clear()
    told = capsys.readouterr().err
    wanted = language in ("ja", "ko", "jpn", "kor") and not installed
    assert told.count("\n") == wanted
    assert (f'pip install "sacrebleu[{language_code(language)}]"' in told) == wanted


@pytest.mark.parametrize(("language", "expected"), [("ja", "char"), ("kor", "char"), ("zh", "zh"), ("en", "13a")])
def test_valid_bleu_does_not_depend_on_what_is_installed(
    language: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for installed in (object(), None):
        monkeypatch.setattr(metrics.importlib.util, "find_spec", lambda name, found=installed: found)
        assert validation_tokenizer(language) == expected


@pytest.mark.parametrize(
    ("tokenize", "message"),
    [
        ("ja-mecab", 'BLEU of ja-mecab cannot be computed without it; pip install "sacrebleu[ja]"'),
        ("flores200", "BLEU has no tokenizer 'flores200' here"),
        (["13a"], "BLEU has no tokenizer ['13a'] here"),
    ],
)
def test_a_tokenizer_that_cannot_be_had_is_one_line(
    tokenize: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=re.escape(message)):
        score(REFERENCES, REFERENCES, tokenize=tokenize)


def test_one_sentence_and_empty_output() -> None:
    assert corpus_bleu(REFERENCES[:1], REFERENCES[:1]) == pytest.approx(100.0)
    scores = score([""], REFERENCES[:1])
    assert (scores.bleu, scores.chrf, scores.legacy_bleu) == (0.0, 0.0, 0.0)


def test_output_that_looks_tokenised_is_scored_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    lines = ["a b c d ."] * 200
    with caplog.at_level(logging.WARNING, logger="sacrebleu"):
        assert score(lines, lines).bleu == pytest.approx(100.0)
        assert legacy_bleu(lines, lines).score == pytest.approx(100.0)
    assert not caplog.records


@pytest.mark.parametrize("function", [score, corpus_bleu, legacy_bleu])
def test_counts_are_checked(function) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="3 hypotheses for 4 references"):
        function(GOOD[:3], REFERENCES)
    with pytest.raises(ValueError, match="empty corpus"):
        function([], [])
