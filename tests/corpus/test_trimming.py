"""Vocabulary trimming against a plain implementation, what of a tokenizer it leaves as it was, and prepare with it."""

from __future__ import annotations

import gzip
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from bertkd_ray.config import load_config
from bertkd_ray.core.errors import UserError
from bertkd_ray.corpus import prepare
from bertkd_ray.corpus.bert_tokenizer import load_bert_tokenizer, tokenizer_hash
from bertkd_ray.corpus.inspect import corpus_figures
from bertkd_ray.corpus.moses import unescape_moses
from bertkd_ray.corpus.passes import TOKENIZER
from bertkd_ray.corpus.sampling import shape_of_text
from bertkd_ray.corpus.segmentation import Segmenter, normalise
from bertkd_ray.corpus.tokenizer import (
    BERT_IDS_FILE,
    SPECIAL_TOKENS,
    UNK_ID,
    PieceCounter,
    Vocabulary,
    build_vocabulary,
    decode,
    save_vocabulary,
    types_by_count,
)
from bertkd_ray.corpus.trimming import surface_of, trimmed
from bertkd_ray.report.contents import types_rows
from bertkd_ray.report.corpus import corpus_text
from tests.corpus.berts import (
    HAND_VOCABULARY,
    bert_of,
    count_pieces,
    count_words,
    golden_vocabulary,
    segmenter_of,
)
from tests.helpers.local_project import Project
from tests.helpers.shared_files import data_path

HAND = segmenter_of(bert_of(HAND_VOCABULARY))


def vocabulary_of(lines: list[str], segmenter: Segmenter, *, lowercase: bool = False) -> Vocabulary:
    words = count_words(normalise(line, lowercase=lowercase) for line in lines)
    pieces = count_pieces(PieceCounter(segmenter), words)
    return build_vocabulary(pieces, set("".join(words)), segmenter, lowercase=lowercase)


def data_lines(name: str) -> list[str]:
    return gzip.decompress(data_path(name).read_bytes()).decode().split("\n")[:-1]


def rows(tokenizer: Tokenizer, lines: list[str]) -> list[list[int]]:
    return [row.ids for row in tokenizer.encode_batch(lines, add_special_tokens=False)]


def plain_trimmed(vocabulary: Vocabulary, size: int, segmenter: Segmenter) -> dict[str, int]:
    """Tokens and their counts, everything counted anew after every single token that is dropped."""
    bert, normalizer = segmenter.tokenizer.get_vocab(), segmenter.tokenizer.normalizer
    text = [token for token in vocabulary.tokens[4:] if not token.startswith("<filler")]
    occurrences = {token: int(vocabulary.counts[vocabulary.tokens.index(token)]) for token in text}
    characters = {token for token in text if len(token.removeprefix("▁").removeprefix("##")) == 1}
    dropped: set[str] = set()

    @cache
    def is_bert_s(token: str) -> bool:
        mark, surface = surface_of(token)
        return ("##" if mark == "##" else "") + normalizer.normalize_str(surface) in bert

    def is_there(token: str) -> bool:
        return token not in dropped and (token in occurrences or is_bert_s(token))

    def cut(token: str) -> list[str]:
        mark, rest = surface_of(token)
        parts = []
        while rest:
            length = max(n for n in range(1, len(rest) + 1) if is_there(mark + rest[:n]))
            parts.append(mark + rest[:length])
            mark, rest = "##", rest[length:]
        return parts

    while True:
        counts: Counter[str] = Counter()
        for token, count in occurrences.items():
            for part in cut(token):
                counts[part] += count
        live = sorted((n, -len(t), t) for t, n in counts.items() if n and t not in characters)
        if len(live) + len(characters) + 4 <= size // 8 * 8:
            return {token: counts[token] for token in {*characters, *(token for _, _, token in live)}}
        dropped.add(live[0][2])


def as_counts(vocabulary: Vocabulary) -> dict[str, int]:
    pairs = zip(vocabulary.tokens[4:], vocabulary.counts[4:].tolist(), strict=True)
    return {token: count for token, count in pairs if not token.startswith("<filler")}


# --- which tokens are kept -------------------------------------------------------------------------------------------


def test_a_rare_token_is_cut_into_what_bert_has() -> None:
    # Seven letters in three roles, four special tokens and eight words: one too many for 32. The longest of the rarest
    # goes, softing; ##ing is in BERT's vocabulary and takes its place, so that sting goes too.
    others = ["to", "of", "no", "go", "it"]
    segmenter = segmenter_of(bert_of([*HAND_VOCABULARY, "softing", "sting", *others]))
    vocabulary = vocabulary_of(["softing soft soft soft sting", *others, *others], segmenter)
    assert "##ing" not in vocabulary.tokens
    smaller = trimmed(vocabulary, 32, segmenter)
    kept = {token for token in smaller.tokens[4:] if len(surface_of(token)[1]) > 1 and not token.startswith("<filler")}
    assert kept == {"▁soft", "##ing", *(f"▁{word}" for word in others)}
    assert as_counts(smaller)["▁soft"] == 4
    assert as_counts(smaller)["##ing"] == 2
    assert smaller.bert_ids[smaller.tokens.index("##ing")] == HAND_VOCABULARY.index("##ing")
    assert smaller.tokenizer().encode("softing sting", add_special_tokens=False).tokens == (
        ["▁soft", "##ing", "▁s", "##t", "##ing"]
    )


WORDS = st.text("aabbsmnerutſüÄß'中", min_size=1, max_size=9)


@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=25), st.integers(1, 6))
def test_the_tokens_are_those_of_the_plain_implementation(words: list[str], smaller_by: int) -> None:
    pieces = ["ab", "##ab", "##man", "##er", "##bst", "ma", "##sm", "mann", "manner", "bab", "##bab", "##us", "ss"]
    segmenter = segmenter_of(bert_of([*HAND_VOCABULARY, *pieces, "m", "##m", "##n", "n", "##e", "e", "##r", "##t"]))
    vocabulary = vocabulary_of(words, segmenter)
    size = len(vocabulary) - smaller_by
    characters = sum(len(surface_of(token)[1]) == 1 for token in as_counts(vocabulary))
    if characters + 4 > size // 8 * 8:
        with pytest.raises(UserError, match=r"^corpus\.max_vocabulary: .* too few .* give \d+ or more"):
            trimmed(vocabulary, size, segmenter)
        return
    smaller = trimmed(vocabulary, size, segmenter)
    assert as_counts(smaller) == plain_trimmed(vocabulary, size, segmenter)


def test_captions_are_trimmed_as_the_plain_implementation_does() -> None:
    segmenter = segmenter_of(bert_of(golden_vocabulary()))
    lines = data_lines("multi30k/val.de.gz")[:15] + data_lines("multi30k/val.en.gz")[:15]
    vocabulary = vocabulary_of(lines, segmenter)
    for size in (len(vocabulary) - 1, 222):
        smaller = trimmed(vocabulary, size, segmenter)
        assert as_counts(smaller) == plain_trimmed(vocabulary, size, segmenter)
        assert size - 8 < len(smaller) <= size
        assert len(smaller) % 8 == 0


def test_a_vocabulary_that_is_small_enough_stays() -> None:
    vocabulary = vocabulary_of(["Männer's man softly"], HAND)
    for size in (len(vocabulary), len(vocabulary) + 1, 10**6):
        assert trimmed(vocabulary, size, HAND) is vocabulary


def test_too_few_for_the_characters_is_refused_with_the_least() -> None:
    vocabulary = vocabulary_of(["softly man softing unk Männer 中!"], HAND)
    with pytest.raises(UserError) as refused:
        trimmed(vocabulary, 8, HAND)
    assert str(refused.value).count("\n") == 0
    least = int(str(refused.value).split("give ")[1].split()[0])
    smallest = trimmed(vocabulary, least, HAND)
    assert len(smallest) == least
    assert {token for token in vocabulary.tokens if len(surface_of(token)[1]) == 1} <= set(smallest.tokens)
    with pytest.raises(UserError, match=f"give {least} or more, or null"):
        trimmed(vocabulary, least - 1, HAND)


def test_types_are_counted_by_how_often_they_occur() -> None:
    tokens = [*SPECIAL_TOKENS, *"abcdefghij", "<filler0>", "<filler1>"]
    counts = np.array([0, 0, 0, 0, 1001, 1000, 101, 100, 11, 10, 3, 2, 1, 0, 0, 0])
    assert list(types_by_count(tokens, counts).items()) == [
        ("0", 1),
        ("1", 1),
        ("2", 1),
        ("3-10", 2),
        ("11-100", 2),
        ("101-1000", 2),
        ("over_1000", 1),
    ]


# --- the tokenizer over them -----------------------------------------------------------------------------------------


NAMES = ["multi30k/train", "multi30k/val", "multi30k/test_2016_flickr", "iwslt14/train_sample"]
NAMES += ["iwslt14/valid", "iwslt14/test"]


@pytest.mark.parametrize(("size", "step"), [pytest.param(2000, 1, marks=pytest.mark.slow), (600, 20)])
def test_every_line_of_the_texts_comes_back(size: int, step: int, tmp_path: Path) -> None:
    raw = [line for name in NAMES for side in ("de", "en") for line in data_lines(f"{name}.{side}.gz")[::step]]
    lines = [unescape_moses(line) for line in raw]
    segmenter = segmenter_of(bert_of(golden_vocabulary()))
    vocabulary = trimmed(vocabulary_of(lines, segmenter), size, segmenter)
    tokenizer = vocabulary.tokenizer()
    ids = rows(tokenizer, lines)
    assert not any(UNK_ID in row for row in ids)
    assert decode(tokenizer, ids) == [normalise(line) for line in lines]
    # What anyone reads from the files alone.
    save_vocabulary(vocabulary, tmp_path)
    strangers = AutoTokenizer.from_pretrained(tmp_path)
    assert strangers(lines[::20], add_special_tokens=False)["input_ids"] == ids[::20]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("abmnerst'üßÄ中한é\u200d😀#_", max_size=30), max_size=5), st.integers(0, 5))
def test_text_of_known_characters_comes_back(texts: list[str], smaller_by: int) -> None:
    vocabulary = vocabulary_of(texts, HAND)
    characters = sum(len(surface_of(token)[1]) == 1 for token in as_counts(vocabulary))
    size = max(len(vocabulary) - 8 * smaller_by, (characters + 4 + 7) // 8 * 8)
    tokenizer = trimmed(vocabulary, size, HAND).tokenizer()
    lines = [*texts, *("".join(reversed(text)) for text in texts)]
    assert decode(tokenizer, rows(tokenizer, lines)) == lines


# --- prepare ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))


def table_of(corpus) -> dict[str, list]:
    return pq.read_table(Path(corpus.path(TOKENIZER)) / BERT_IDS_FILE).to_pydict()


def test_prepare_counts_the_tokens_of_its_text(project: Project, tmp_path: Path) -> None:
    full = project.corpus()
    corpus = project.variant(tmp_path, "corpus.max_vocabulary=340").corpus()
    table = table_of(corpus)
    assert full.info["vocabulary"] > 340 >= corpus.info["vocabulary"] == len(table["token"]) > 332
    rows = pq.read_table(corpus.path("train")).to_pylist()
    counts = Counter(i for row in rows for side in ("src", "tgt") for i in row[f"{side}_ids"])
    # The pair of a word of 10,000 letters is counted, and dropped for its length only then.
    tokenizer = AutoTokenizer.from_pretrained(corpus.path(TOKENIZER))
    for dropped in ("x" * 10_000, "a very long word"):
        counts.update(tokenizer(dropped, add_special_tokens=False)["input_ids"])
    assert table["count"] == [counts[i] for i in range(len(table["token"]))]
    assert table["count"][4:] == sorted(table["count"][4:], reverse=True)
    for row in rows[::10]:
        for side in ("src", "tgt"):
            assert tokenizer(row[side], add_special_tokens=False)["input_ids"] == row[f"{side}_ids"]
            assert tokenizer.decode(row[f"{side}_ids"]) == row[side]
    bert = load_bert_tokenizer(project.bert).tokenizer
    for token, bert_id in zip(table["token"][4:], table["bert_id"][4:], strict=True):
        mark, surface = surface_of(token)
        if len(surface) > 1 and not token.startswith("<filler"):
            # A cased BERT without normalisation of its letters: its piece is the token's own text.
            assert bert.id_to_token(bert_id) == ("##" if mark == "##" else "") + surface
    assert corpus.info["types"] == types_by_count(table["token"], np.array(table["count"]))
    assert corpus.info["untrimmed"] == {"vocabulary": full.info["vocabulary"], "types": full.info["types"]}
    assert "untrimmed" not in full.info
    assert [(row.label, row.cells[0]) for row in types_rows(corpus)] == [
        ("Types", str(corpus.info["types"]["0"])),
        ("Before trimming", str(full.info["types"]["0"])),
    ]
    lines = corpus_text(corpus_figures(corpus, seed=1)).splitlines()
    assert lines[1] == f"vocabulary  {len(table['token'])} tokens, trimmed from {full.info['vocabulary']}"
    assert [line.split()[0] for line in lines[4:8]] == ["types", "─" * 29, "vocabulary", "before"]


def test_other_chunks_give_the_same_tokenizer(project: Project, tmp_path: Path) -> None:
    first = project.variant(tmp_path / "a", "corpus.max_vocabulary=340").corpus()
    second = project.variant(tmp_path / "b", "corpus.max_vocabulary=340", "corpus.fragment_pairs=17").corpus()
    assert table_of(first) == table_of(second)
    names = [Path(corpus.path(TOKENIZER)) / "tokenizer.json" for corpus in (first, second)]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_weighted_sources_count_as_often_as_they_are_taken(project: Project, tmp_path: Path) -> None:
    files = "{src: train.de.gz, tgt: train.en.gz"
    train = f"corpus.train=[{files}, weight: 2}}]"
    once = project.variant(tmp_path / "a", "corpus.max_vocabulary=340").corpus()
    twice = project.variant(tmp_path / "b", "corpus.max_vocabulary=340", train).corpus()
    assert table_of(twice)["token"] == table_of(once)["token"]
    assert table_of(twice)["count"] == [2 * count for count in table_of(once)["count"]]


def test_a_bound_that_binds_nothing_changes_nothing(project: Project, tmp_path: Path) -> None:
    full, bounded = project.corpus(), project.variant(tmp_path, "corpus.max_vocabulary=100000").corpus()
    for name in ("tokenizer.json", "tokenizer_config.json", BERT_IDS_FILE):
        ours, theirs = (Path(corpus.path(TOKENIZER)) / name for corpus in (full, bounded))
        assert ours.read_bytes() == theirs.read_bytes()
    assert full.fingerprint != bounded.fingerprint
    assert {key: full.info[key] for key in full.info} == {key: bounded.info[key] for key in bounded.info}


def test_null_is_in_no_fingerprint(project: Project) -> None:
    assert "max_vocabulary" not in project.corpus().config
    inputs = {"bert_tokenizer": tokenizer_hash(project.bert)}
    for value in ("null", "340"):
        config = load_config(project.directory / "small.yaml", [f"corpus.max_vocabulary={value}"])
        digest = prepare.pending_artifact(config, project.store, inputs).fingerprint
        assert (digest == project.corpus().fingerprint) == (value == "null")


def test_too_few_tokens_end_prepare_in_one_line(project: Project, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^corpus\.max_vocabulary: 64 tokens are too few for the text's characters"):
        project.variant(tmp_path, "corpus.max_vocabulary=64").corpus()


def test_teacher_and_student_read_the_same_cut(project: Project, tmp_path: Path) -> None:
    smaller = project.variant(tmp_path, "corpus.max_vocabulary=340")
    labels = smaller.labels()
    assert labels.info["vocabulary"] == smaller.corpus().info["vocabulary"] <= 340
    assert smaller.distilled().info["vocabulary"] == labels.info["vocabulary"]


def test_a_plan_knows_the_bound(project: Project) -> None:
    full = shape_of_text(project.config.corpus, project.bert)
    bounded = shape_of_text(project.config.corpus.model_copy(update={"max_vocabulary": 340}), project.bert)
    assert full.vocabulary > 340 >= bounded.vocabulary
    assert bounded.splits["train"].src_tokens > full.splits["train"].src_tokens
