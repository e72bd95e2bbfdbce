"""The figures of a corpus as text: a table by split, what needs attention, and a few pairs."""

import textwrap
import unicodedata
from collections.abc import Iterator

from bertkd_ray.core.text_tables import NO_VALUE, TableRow, format_number, join_blocks, text_table
from bertkd_ray.corpus.inspect import CorpusFigures, SideFigures, SplitFigures, VocabularyFigures

_WIDTH = 100
_LABEL = 10
_DIRECTED = {"R", "AL", "AN", "RLE", "RLO", "RLI", "LRE", "LRO", "LRI"}
_ISOLATE, _END_OF_ISOLATE = "\u2068", "\u2069"


def corpus_text(figures: CorpusFigures) -> str:
    """The figures of a corpus, without colours; at most 100 columns wide but for long words and paths."""
    blocks = [
        [f"{figures.fingerprint}  {figures.path}", *_vocabulary(figures.vocabulary)],
        text_table(_types(figures.vocabulary)),
        [line.rstrip() for line in text_table(_table(figures.splits, figures.languages))],
        list(_warnings(figures.splits)),
        [f"{len(figures.samples)} pairs of train, drawn by --seed {figures.seed}"],
    ]
    for pair in figures.samples:
        source = [*wrapped("  source", pair.src.split(), whole=True), *wrapped("", pair.src_tokens, whole=False)]
        target = [*wrapped("  target", pair.tgt.split(), whole=True), *wrapped("", pair.tgt_tokens, whole=False)]
        blocks.append([f"id {pair.id}", *source, *target])
    return join_blocks(blocks)


def _vocabulary(vocabulary: VocabularyFigures) -> Iterator[str]:
    trimmed = f", trimmed from {vocabulary.untrimmed['vocabulary']:,}" if vocabulary.untrimmed else ""
    yield f"vocabulary  {vocabulary.tokens:,} tokens{trimmed}"
    if vocabulary.without_piece:
        share = f"{vocabulary.without_piece:,} of them, {_percent(vocabulary.without_piece_rate)} of train"
        yield f"BERT lacks  {share}, and sees [UNK]: {' '.join(map(_isolated, vocabulary.examples))}"
    else:
        yield "BERT lacks  none of them"


def _types(vocabulary: VocabularyFigures) -> list[TableRow]:
    rows = [["types by occurrences in train", *map(_words, vocabulary.types)]]
    rows.append(["vocabulary", *(f"{count:,}" for count in vocabulary.types.values())])
    if vocabulary.untrimmed:
        rows.append(["before trimming", *(f"{count:,}" for count in vocabulary.untrimmed["types"].values())])
    return rows


def _table(splits: dict[str, SplitFigures], languages: dict[str, str]) -> list[TableRow]:
    every = list(splits.values())
    rows = [
        ["", *splits],
        ["pairs", *(f"{split.pairs:,}" for split in every)],
        ["read", *(f"{split.read:,}" for split in every)],
        ["dropped", *(f"{sum(split.dropped.values()):,}" for split in every)],
    ]
    for reason in dict.fromkeys(reason for split in every for reason, count in split.dropped.items() if count):
        rows.append([f"  {_words(reason)}", *(format_number(split.dropped.get(reason), ",") for split in every)])
    for name in dict.fromkeys(name for split in every for name in split.counted):
        rows.append([_words(name), *(format_number(split.counted.get(name), ",") for split in every)])
    if any(split.with_empty_side for split in every):
        rows.append(["with an empty side", *(f"{split.with_empty_side:,}" for split in every)])
    for side, title in (("src", "source"), ("tgt", "target")):
        title = f"{title}, {languages[side]}" if side in languages else title
        rows += [[title, *[""] * len(every)], *_side_rows({name: getattr(splits[name], side) for name in splits})]
    rows.append(["source tokens a target token", *[""] * len(every)])
    for key, label in (("p1", "1%"), ("p5", "5%"), ("median", "median"), ("p95", "95%"), ("p99", "99%")):
        rows.append([f"  {label}", *(format_number(split.ratio.get(key), ",.2f") for split in every)])
    return rows


def _side_rows(sides: dict[str, SideFigures]) -> Iterator[TableRow]:
    yield ["  tokens", *(f"{side.tokens:,}" for side in sides.values())]
    yield ["  words", *(f"{side.words:,}" for side in sides.values())]
    yield ["  tokens a word", *(format_number(side.tokens_per_word, ",.2f") for side in sides.values())]
    yield ["  characters a token", *(format_number(side.characters_per_token, ",.2f") for side in sides.values())]
    yield ["  length, mean", *(f"{side.length['mean']:,.1f}" for side in sides.values())]
    for key, label in (("median", "median"), ("p95", "95%"), ("max", "longest")):
        yield [f"  length, {label}", *(f"{side.length[key]:,.0f}" for side in sides.values())]
    yield ["  unknown", *(_mark(name, side) + _percent(side.unknown_rate) for name, side in sides.items())]


def _mark(split: str, side: SideFigures) -> str:
    """Unknown tokens stand out where they cost something: train has none by construction."""
    return "! " if side.unknown and split != "train" else ""


def _warnings(splits: dict[str, SplitFigures]) -> Iterator[str]:
    for name, split in splits.items():
        sides = {"source": split.src, "target": split.tgt}
        unknown = {title: side for title, side in sides.items() if _mark(name, side)}
        if unknown:
            counts = " and ".join(f"{side.unknown:,} of {side.tokens:,} {title}" for title, side in unknown.items())
            seen = "  ".join(f"{_visible(char)} ×{count:,}" for char, count in split.unknown_characters.items())
            yield f"! {name}: {counts} tokens are unknown. Characters that train lacks: {seen or 'none'}"


def wrapped(label: str, words: list[str], *, whole: bool, indent: int = _LABEL) -> Iterator[str]:
    """Words on as many lines as they need, behind a label; directions are kept apart by line, or word by word."""
    lines = textwrap.wrap(" ".join(words), _WIDTH - indent, break_long_words=False, break_on_hyphens=False)
    for index, line in enumerate(lines or [NO_VALUE]):
        isolated = _isolated(line) if whole else " ".join(map(_isolated, line.split()))
        yield (label if index == 0 else "").ljust(indent) + isolated


def _visible(character: str) -> str:
    """The character, or its code point where it cannot stand alone."""
    if character.isprintable() and not unicodedata.combining(character):
        return _isolated(character)
    return f"U+{ord(character):04X}"


def _isolated(text: str) -> str:
    """Text between Unicode's isolates where it has letters or marks of another direction than the label's.

    A terminal that orders text by direction would otherwise carry the label, or a token's marks, to the other side.
    """
    if any(unicodedata.bidirectional(character) in _DIRECTED for character in text):
        return f"{_ISOLATE}{text}{_END_OF_ISOLATE}"
    return text


def _words(name: str) -> str:
    return name.replace("_", " ")


def _percent(rate: float | None) -> str:
    return "<0.01%" if rate and rate < 0.00005 else format_number(rate, ".2%")
