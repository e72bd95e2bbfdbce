"""The corpus as a whole: what its text promises."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from tools.demo_corpus import demo_corpus
from tools.demo_corpus.corpus import punctuated

ROOT = Path(__file__).resolve().parents[3]
Corpus = dict[str, list[tuple[str, str]]]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return demo_corpus()


def digest(corpus: Corpus) -> str:
    return hashlib.sha256(repr(corpus).encode()).hexdigest()


def test_sizes(corpus: Corpus) -> None:
    assert {name: len(pairs) for name, pairs in corpus.items()} == {"train": 4000, "valid": 1000, "test": 3000}
    assert {name: len(pairs) for name, pairs in demo_corpus(2, 30, 0, 5).items()} == {
        "train": 30,
        "valid": 0,
        "test": 5,
    }


def test_no_sentence_occurs_twice_in_either_language(corpus: Corpus) -> None:
    pairs = [pair for split in corpus.values() for pair in split]
    for side in (0, 1):
        assert len({pair[side].casefold() for pair in pairs}) == len(pairs)


def test_the_same_seed_gives_the_same_text_and_another_seed_another() -> None:
    first = demo_corpus(seed=5, train=300, valid=20, test=20)
    assert digest(first) == digest(demo_corpus(seed=5, train=300, valid=20, test=20))
    other = demo_corpus(seed=6, train=300, valid=20, test=20)
    assert len(set(first["train"]) & set(other["train"])) < 15


def test_the_text_does_not_depend_on_the_hash_seed_of_the_process() -> None:
    script = "from tools.demo_corpus import demo_corpus; print(ascii(demo_corpus(1, 200, 10, 10)))"
    outputs = [
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1] == ascii(demo_corpus(1, 200, 10, 10)) + "\n"


@pytest.mark.parametrize(("sizes", "word"), [((-1, 1, 1), "train"), ((1, 1, -2), "test"), ((10**6, 0, 0), "fewer")])
def test_impossible_sizes_are_refused(sizes: tuple[int, int, int], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        demo_corpus(1, *sizes)


def test_text_is_clean(corpus: Corpus) -> None:
    well_formed = re.compile(r"[A-ZÄÖÜ0-9][^.!?]*[^ .,!?]((?<=\d)[.:][^.!?]+|\. [A-ZÄÖÜ][^.!?]*)*[.!?]")
    for pair in (pair for split in corpus.values() for pair in split):
        for text in pair:
            assert unicodedata.normalize("NFC", text) == text
            assert text.isprintable()
            assert not re.search(r"  | [,.!?]|,[^ \d]|,,|^ | $", text), text
            assert well_formed.fullmatch(text), text
        assert pair[0][-1] == pair[1][-1]


def test_sentence_lengths(corpus: Corpus) -> None:
    for side, low, high in ((0, 8.5, 11.0), (1, 9.0, 11.0)):
        lengths = [len(pair[side].split()) for pair in corpus["train"]]
        assert (min(lengths), max(lengths) <= 25) == (4, True)
        assert low < sum(lengths) / len(lengths) < high


def test_vocabulary_is_small_and_has_a_long_tail(corpus: Corpus) -> None:
    counts = Counter(word for german, _ in corpus["train"] for word in re.findall(r"[^\W\d]+", german.casefold()))
    assert 2000 < len(counts) < 3000
    assert sum(count == 1 for count in counts.values()) > 200
    test_words = [word for german, _ in corpus["test"] for word in re.findall(r"[^\W\d]+", german.casefold())]
    unseen = sum(word not in counts for word in test_words) / len(test_words)
    assert 0.001 < unseen < 0.013


# Each phenomenon: a pattern of the German text, one of the English text, how many of the 8,000 pairs must show both.
PHENOMENA = {
    "time first, verb second": (r"^(Gestern|Heute|Morgen|Jeden Tag|Nächste Woche|Am \w+tag|Bald) (\w+) ", "", 200),
    "place first": (r"^(Im|In|Am|Auf dem) [^.]* (\w+t|\w+en) ", r"^(In|At|On|By) ", 60),
    "object first": (r"^(Den|Diesen|Meinen|Deinen|Seinen) ", "", 20),
    "dative first": (r"^(Mir|Dir|Ihm|Uns|Euch|Dem|Meinem|Der) .* (ist|gef|schmeck|geh)", "", 40),
    "weil": (r", weil ", " because ", 150),
    "obwohl": (r"\b[Oo]bwohl ", r"\b[Aa]lthough ", 120),
    "dass": (r", dass ", " that ", 250),
    "wenn": (r"\b[Ww]enn ", r"\b([Ii]f|[Ww]henever) ", 250),
    "als with the past": (r"(^Als |, als )", r"\b[Ww]hen ", 100),
    "bevor": (r"\b[Bb]evor ", r"\b[Bb]efore ", 50),
    "nachdem with the pluperfect": (r"\b[Nn]achdem .* (hatten?|hattest|hattet|waren?|warst|wart)\b", r"\bhad \w+", 60),
    "während as conjunction": (r"(^W|, w)ährend .*,?", r"\b[Ww]hile .*\b(was|were) \w+ing", 40),
    "damit": (r", damit ", " so that ", 80),
    "indirect question": (r", (ob|warum|wann|wo|mit wem) ", r" (whether|why|when|where|with whom) ", 150),
    "particle at the end of the main clause": (
        r" (auf|an|ab|ein|mit|zu|aus|vor|um|zurück|weg|fern|teil|statt)[.!?]$",
        "",
        250,
    ),
    "particle joined at the end of the subordinate clause": (
        r", (weil|dass|ob|wenn|obwohl|warum|bevor|als) [^,]* (an|auf|aus|ein|ab|mit|um|zurück)"
        r"(kam|ging|stand|zog|rief|holte|machte|kommt|ruft|steht|kauft|holt|lädt|macht|zieht|geht|nimmt|bringt)[,.]",
        "",
        15,
    ),
    "separable zu infinitive": (r"\b(an|auf|aus|ein|ab|mit|um|zurück|vor|fern|teil|weg)zu\w+en\b", "", 30),
    "um ... zu": (r", um .*zu", r" to \w+", 100),
    "ohne ... zu": (r", ohne .*zu", r" without \w+ing", 40),
    "genitive": (r"\bdes \w+s\b|\b(meines|seines|deines) ", "", 50),
    "genitive prepositions": (r"^(Wegen|Trotz|Während) (des|der) ", r"^(Because of|Despite|During) ", 100),
    "two-way preposition, accusative": (r"\b(auf|unter|neben|hinter|in) (den|die|das|diesen|meinen) ", "", 120),
    "two-way preposition, dative": (r"\b(auf|unter|neben|hinter) (dem|diesem|meinem) ", "", 80),
    "contractions": (r"\b(im|ins|am|zum|zur) ", "", 600),
    "dative verbs": (r"\b(hilf|half|geholfen|helfen|dank|vertrau|gratulier)\w*", "", 200),
    "gefallen exchanges subject and object": (r"\bgef(äll|iel|all)", r"\blikes?d?\b", 60),
    "mixed adjective ending": (r"\b([Ee]in|[Mm]ein|[Kk]ein|[Dd]ein) \w{3,}er [A-ZÄÖÜ]\w+", "", 130),
    "strong adjective ending": (
        r"(?<![a-zäöüß] [dm]ein )\b(frisches|frischer|gutes|guten|starker|kalte\w) [A-Z]",
        "",
        40,
    ),
    "weak adjective ending": (r"\b([Dd]em|[Dd]en) \w{3,}en [A-ZÄÖÜ]", "", 200),
    "compounds": (r"[Kk]üchen\w|[Gg]eburtstags\w|Kinder\w|Haus[st]\w|Winter\w|Schul\w|Weihnachts\w|Apfel\w", "", 400),
    "numbers in words": (r"und(zwanzig|dreißig|vierzig|fünfzig|sechzig|siebzig|achtzig|neunzig)\b", r"\w+ty-\w+", 60),
    "prices": (r"\d Euro\b", r"\d euros\b", 80),
    "decimal comma": (r"\d,\d\d Euro", r"\d\.\d\d euros", 25),
    "thousands": (r"\d\.\d{3} Euro", r"\d,\d{3} euros", 10),
    "years": (r"\b(18|19|20)\d\d\b", r"\b[Ii]n (\w+ )?(18|19|20)\d\d", 60),
    "clock times": (r" um \w+ Uhr| um \d+:\d\d Uhr", r" at (\w+ o'clock|\d+:\d\d)", 40),
    "half hours": (r" um halb \w+|^Um halb", r"half past \w+", 30),
    "nicht": (r"\bnicht\b", r"\bnot\b", 500),
    "kein": (r"\b[Kk]eine?[nmrs]?\b", "", 150),
    "do-support": ("", r"\b(do|does|did) not\b", 250),
    "yes/no questions": (
        r"^(?!W)\w+ .*\?$",
        r"^(Do|Does|Did|Is|Are|Was|Were|Will|Can|Has|Have|Would|Must)\b.*\?$",
        240,
    ),
    "wh questions": (r"^(Wer|Wen|Wem|Was|Wann|Wo|Wohin|Warum|Wie|Welche\w?) .*\?$", r"^(Wh\w+|How) .*\?$", 240),
    "relative clauses": (r", (der|die|das|den|dem|denen|dessen|deren) ", r"\b(who|that|whose|whom)\b", 320),
    "relative clause after the verb bracket": (r"(ge\w+[tn]|\wen), (der|die|das|den|dem) ", "", 85),
    "modals with an infinitive": (
        r"\b(kann|können|muss|müssen|will|wollen|soll|sollen|darf|möchte)\b.*en[.,?]",
        "",
        480,
    ),
    "perfect with haben": (r"\b([Hh]at|[Hh]aben|[Hh]abe|[Hh]ast|[Hh]abt) .*(t|en)[.,?]", "", 700),
    "perfect with sein": (
        r"\b(ist|sind|bin|bist|seid) .*(gegangen|gefahren|gelaufen|geflogen|gekommen|gereist)\b",
        "",
        100,
    ),
    "present perfect": (r" schon ", r"\b(has|have|Has|Have)\b", 60),
    "since": (r"\b[Ss]eit ", r"\b(has|have) .*\b(for|since)\b|\b([Ff]or|[Ss]ince) .*\b(has|have)\b", 40),
    "future from the time": (r"\b([Mm]orgen|[Bb]ald|[Nn]ächste\w?) ", r"\bwill\b", 90),
    "progressive": ("", r"\b(is|are|am) (not )?\w+ing\b", 850),
    "gern": (r"\bgern\b", r"\blikes? to\b", 90),
    "imperatives": (r"!$", r"!$", 180),
    "formal imperatives": (r"^\w+en Sie .*!$", "", 50),
    "comparatives": (r"er als ", r" (more \w+|\w+er) than ", 90),
    "as ... as": (r"\bso \w+ wie ", r"\bas \w+.* as ", 60),
    "superlatives": (r"^Das ist .*ste ", r"^This is the (most |\w+st )", 28),
    "passive": (r"\b([Ww]ird|[Ww]erden|[Ww]urden?) .*(t|en)[.,?]| worden\.", r"\b(be|been|being|was|were) \w+", 250),
    "passive with agent": (r"\bvo[nm] .*(t|en|worden)\.$", r" by ", 45),
    "conditional": (r"\bw(ü|ä)r(d|e)", r"\bwould\b", 80),
    "es gibt": (
        r"\b([Gg]ibt|[Gg]ab) es\b|^Es (gibt|gab)",
        r"\b[Tt]here (is|are|was|were)\b|^(Is|Are|Was|Were) there",
        100,
    ),
    "er and sie for things": (r"(, (aber|und) .* (ihn|sie)\b|(weil|obwohl) (er|sie) )", r"\bit\b", 90),
    "an before a vowel": (
        "",
        r"\b[Aa]n (old|apple|honest|interesting|orange|umbrella|egg|hour|unusual|artist|engineer|evening)",
        120,
    ),
    "proper names": (r"\b(Anna|Peter|Maria|Paul|Lena|Felix|Müller|Schmidt)\b", "", 800),
    "possessive s": ("", r"\w's \w+", 100),
    "reflexive verbs": (r"\bsich\b", "", 100),
    "coordination": (r" und \w+(t|e|en) ", " and ", 100),
    "professions without an article": (r" (ist|war) [A-ZÄÖÜ]\w+\.$", r" (is|was) an? \w+", 12),
}


@pytest.mark.parametrize("name", PHENOMENA)
def test_phenomenon_occurs_often_enough(corpus: Corpus, name: str) -> None:
    german, english, least = PHENOMENA[name]
    source, target = re.compile(german), re.compile(english)
    pairs = [pair for split in corpus.values() for pair in split]
    assert len(pairs) == 8000
    count = sum(bool(source.search(pair[0]) and target.search(pair[1])) for pair in pairs)
    assert count >= least


def word_table(pairs: list[tuple[str, str]], rounds: int = 2) -> dict[str, str]:
    """The likeliest English word for each German one by IBM model 1."""
    tokens = [tuple(re.findall(r"\w+|[^\w\s]", side) for side in pair) for pair in pairs]
    scores: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        expected: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        totals: dict[str, float] = defaultdict(float)
        for german, english in tokens:
            for target in english:
                weights = [scores[source].get(target, 1e-9) if scores else 1.0 for source in german]
                total = sum(weights)
                for source, weight in zip(german, weights, strict=True):
                    expected[source][target] += weight / total
                    totals[source] += weight / total
        scores = {s: {t: c / totals[s] for t, c in row.items()} for s, row in expected.items()}
    return {source: max(row, key=lambda target: row[target]) for source, row in scores.items()}


def test_a_word_table_translates_few_sentences(corpus: Corpus) -> None:
    table = word_table(corpus["train"][:3000])
    exact = 0
    for german, english in corpus["test"]:
        words = [table.get(token, token) for token in re.findall(r"\w+|[^\w\s]", german)]
        exact += " ".join(words).casefold() == " ".join(re.findall(r"\w+|[^\w\s]", english)).casefold()
    assert exact / len(corpus["test"]) < 0.10
    assert (table["Tisch"], table["Peter"], table["Hund"]) == ("table", "Peter", "dog")


def test_punctuation_is_repaired() -> None:
    assert punctuated("der Mann , der lacht , , ist alt", ".") == "Der Mann, der lacht, ist alt."
    assert punctuated("er liest das Buch , das alt ist ,", "?") == "Er liest das Buch, das alt ist?"


def test_formal_address_never_opens_a_statement(corpus: Corpus) -> None:
    """*Sie* at the start with a plural verb is always "they", so that the pair can be translated."""
    for german, english in corpus["train"]:
        if re.match(r"Sie (sind|haben|\w+en) ", german) and german.endswith("."):
            assert re.match(r"They\b", english), (german, english)
