"""BERT tokenizers for the tests: a hand-made vocabulary, the golden one, and one trained on given lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from bertkd_ray.corpus.bert_tokenizer import SPECIAL_NAMES, bert_tokenizer_of
from bertkd_ray.corpus.segmentation import Piece, Segmenter
from bertkd_ray.corpus.tokenizer import PieceCounter, pieces_of
from tests.helpers.shared_files import golden_path


def bert_of(
    vocabulary: Sequence[str], *, lowercase: bool = True, chinese: bool = True, strip_accents: bool | None = None
) -> Tokenizer:
    """BERT's fast tokenizer over a vocabulary, without post-processing; accents go with the case unless stated."""
    ids = {piece: number for number, piece in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=lowercase, handle_chinese_chars=chinese, strip_accents=strip_accents
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def segmenter_of(tokenizer: Tokenizer) -> Segmenter:
    return Segmenter(bert_tokenizer_of(tokenizer, "test"))


def pieces_of_words(segmenter: Segmenter, words: Sequence[str]) -> list[list[Piece]]:
    """The pieces of every word, with names for their fields."""
    return [[Piece(*piece) for piece in pieces] for pieces in segmenter.segment(words)]


def count_words(lines: Iterable[str]) -> Counter[str]:
    """Occurrences of the space-separated words of normalised lines."""
    return Counter(word for line in lines for word in line.split())


def count_pieces(counter: PieceCounter, words: Mapping[str, int]) -> Counter[Piece]:
    """Occurrences of the pieces of a text, given the counts of its words."""
    return pieces_of(counter.table(list(words), np.fromiter(words.values(), np.int64, len(words))))


def golden_vocabulary() -> list[str]:
    return golden_path("bert_uncased_vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]


def trained_cased_bert(lines: Sequence[str], size: int) -> Tokenizer:
    """A cased WordPiece vocabulary learned from the lines."""
    return trained_bert(lines, size, lowercase=False)


def trained_bert(lines: Sequence[str], size: int, **options: bool) -> Tokenizer:
    """A WordPiece vocabulary learned from the lines; the options are those of `bert_of`."""
    tokenizer = bert_of(SPECIAL_NAMES, **options)
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=list(SPECIAL_NAMES), continuing_subword_prefix="##", show_progress=False
    )
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


# Enough for hand-made expectations: letters in both roles where named, a Hangul syllable's parts, one CJK character.
HAND_VOCABULARY = [
    *SPECIAL_NAMES,
    *("man", "##ner", "s", "'", "er", "##st", "a", "##a", "b", "##b", "u", "##u", "=", "-", "<", ">", "#", "unk"),
    *("ᄒ", "##ᅡ", "##ᆫ", "中", "soft", "##ly", "##ing", "!"),
]
