"""The student's vocabulary: the surfaces of BERT's pieces seen in training, as one standard `tokenizer.json`.

A token is a surface with its mark (`corpus.segmentation`), and has one BERT id: that of the piece most often behind it.
Greedy longest match over the surfaces seen in training gives, on the training text, BERT's own segmentation, since
BERT's vocabulary holds all of them and more. Every character of the training text is a token in every role it can play,
so that text made of these characters is never `<unk>` and comes back as it was.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from bertkd_ray.core.errors import UserError, unreadable_as_user_error
from bertkd_ray.core.ragged import Ragged, offsets_of
from bertkd_ray.corpus.bert_tokenizer import CONTINUATION, MAX_WORD_LETTERS
from bertkd_ray.corpus.segmentation import WORD_START, Piece, Segmenter, normalizer, split_pattern
from bertkd_ray.corpus.words import CACHED_WORDS, Numbering, WordCache, words_of

PAD_ID, UNK_ID, BOS_ID, EOS_ID = 0, 1, 2, 3
PAD_TOKEN, UNK_TOKEN, BOS_TOKEN, EOS_TOKEN = SPECIAL_TOKENS = ("<pad>", "<unk>", "<s>", "</s>")
VOCABULARY_MULTIPLE = 8  # matrix units want multiples of 8
BERT_IDS_FILE = "bert_ids.parquet"
BERT_IDS_SCHEMA = pa.schema([("token", pa.string()), ("bert_id", pa.int32()), ("count", pa.int64())])
"""A row is a token, in the order of the ids.

token: the surface with its mark (`▁` starts a word, `##` continues a piece's word), or a special token.
bert_id: id of the BERT piece behind it.
count: occurrences in the training text, as BERT segments it.
"""
TOKENIZER_FILE = "tokenizer.json"
MODEL_INPUT_NAMES = ["input_ids", "attention_mask"]
"""What a tokenizer gives a student; the class of transformers 4 would add `token_type_ids`."""
TOKENIZER_CLASS = "PreTrainedTokenizerFast"
"""What `tokenizer_config.json` names; transformers 5 would write a name that 4 does not know."""
TYPES_BY_COUNT = {"0": 0, "1": 1, "2": 2, "3-10": 3, "11-100": 11, "101-1000": 101, "over_1000": 1001}
"""Ranges of occurrences in the training text, each with the least of it."""
_FILLER = "<filler"
_LINE_WORDS = 64  # words that are encoded as one text


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The student's tokens and the BERT piece behind each.

    tokens: V strings, index = id; `<pad> <unk> <s> </s>`, then by count descending (ties: code points), then fillers.
    bert_ids: int32[V]; `<pad>`→[PAD], `<unk>`→[UNK], `<s>`→[CLS], `</s>`→[SEP], fillers→[UNK].
    counts: int64[V], occurrences in the training text as BERT segments it.
    lowercase: whether the tokenizer lower-cases; dotted_i: whether as Turkish does.
    isolated: characters that are words of their own, as the inside of a regular expression's character class.
    """

    tokens: tuple[str, ...]
    bert_ids: NDArray[np.int32]
    counts: NDArray[np.int64]
    lowercase: bool
    isolated: str
    dotted_i: bool = False

    def __len__(self) -> int:
        return len(self.tokens)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer: raw text → ids, `</s>` appended unless `add_special_tokens=False`; decoding gives `normalise`.

        The text of a special token (`</s>`) is ordinary text to it.
        """
        # The longest match is the mark and MAX_WORD_LETTERS letters; WordPiece never refuses one for its length.
        longest = MAX_WORD_LETTERS + len(WORD_START) + 1
        vocabulary = {token: token_id for token_id, token in enumerate(self.tokens)}
        tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNK_TOKEN, max_input_chars_per_word=longest))
        tokenizer.normalizer = normalizer(lowercase=self.lowercase, dotted_i=self.dotted_i)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.WhitespaceSplit(),
                pre_tokenizers.Metaspace(replacement=WORD_START, prepend_scheme="always", split=False),
                pre_tokenizers.Split(Regex(f"{WORD_START}?(?:{split_pattern(self.isolated)})"), "isolated"),
            ]
        )
        tokenizer.decoder = decoders.Sequence(
            [
                decoders.Replace(Regex(f"^{CONTINUATION}"), ""),
                decoders.Replace(WORD_START, " "),
                decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        )
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {EOS_TOKEN}",
            pair=f"$A {EOS_TOKEN} $B:1 {EOS_TOKEN}:1",
            special_tokens=[(EOS_TOKEN, EOS_ID)],
        )
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
        tokenizer.encode_special_tokens = True
        return tokenizer


class PieceCounter:
    """Counts the pieces of texts; caches those of the words it has met, which are most of the next text's words."""

    def __init__(self, segmenter: Segmenter, capacity: int = CACHED_WORDS) -> None:
        """capacity: as of `WordCache`."""
        numbers = self._numbers = Numbering()
        self._pieces_of = WordCache(
            lambda words: Ragged.from_lists([[numbers[piece] for piece in word] for word in segmenter.segment(words)]),
            capacity,
        )

    def table(self, words: Sequence[str], counts: NDArray[np.int64]) -> pa.Table:
        """Occurrences of the pieces of a text, schema `BERT_IDS_SCHEMA`, a row a piece in no fixed order.

        words: the different words of the text, normalised; counts: int64[len(words)], occurrences of each. Counts of
        the parts of a text add up to those of the whole, and there are never more pieces than the vocabulary has tokens
        and BERT ids behind them, while the words of a text grow with it.
        """
        numbers = self._pieces_of(words)
        totals = np.bincount(numbers.values, np.repeat(counts, numbers.lengths), len(self._numbers)).astype(np.int64)
        pieces = [piece for piece, count in zip(self._numbers, totals.tolist(), strict=True) if count]
        tokens, bert_ids = zip(*pieces, strict=True) if pieces else ((), ())
        return pa.table([tokens, bert_ids, totals[totals > 0]], schema=BERT_IDS_SCHEMA)


def pieces_of(table: pa.Table) -> Counter[Piece]:
    """The counts of a table as `PieceCounter.table` makes it, by piece."""
    pieces = map(Piece, table["token"].to_pylist(), table["bert_id"].to_pylist())
    return Counter(dict(zip(pieces, table["count"].to_pylist(), strict=True)))


class WordEncoder:
    """Encodes normalised lines word by word, with a cache of words; the same ids as `encode` gives."""

    def __init__(self, tokenizer: Tokenizer, capacity: int = CACHED_WORDS) -> None:
        """capacity: as of `WordCache`."""
        self._ids_of = WordCache(lambda words: _encode_words(tokenizer, words), capacity)

    def encode(self, lines: pa.StringArray) -> Ragged:
        """Ids (int32) of every line, without BOS and EOS; the lines are as `normalise` leaves them."""
        words = words_of(lines)
        ids = self._ids_of(words.distinct).take(words.indices)
        return Ragged(ids.values, ids.offsets[words.offsets])


def build_vocabulary(
    pieces: Mapping[Piece, int],
    characters: Iterable[str],
    segmenter: Segmenter,
    *,
    lowercase: bool,
    dotted_i: bool = False,
) -> Vocabulary:
    """The vocabulary of a training text, given the counts of its pieces (`PieceCounter`) and all its characters.

    A token's BERT id is that of the piece most often behind it (ties: the piece first in code point order). The
    character fallback adds, with count 0 where not seen, `▁c` and `c` for every character c, and `##c` unless c is
    isolated.
    """
    votes: dict[str, Counter[int]] = defaultdict(Counter)
    for piece, count in pieces.items():
        votes[piece.token][piece.bert_id] += count
    bert_id_of = {
        token: min(of_token, key=lambda bert_id: (-of_token[bert_id], segmenter.tokenizer.id_to_token(bert_id)))
        for token, of_token in votes.items()
    }
    counts = {token: of_token.total() for token, of_token in votes.items()}
    for character in characters:
        starting = segmenter.character_id(character, continues=False)
        bert_id_of.setdefault(WORD_START + character, starting)
        bert_id_of.setdefault(character, starting)
        if not segmenter.is_isolated(character):
            bert_id_of.setdefault(CONTINUATION + character, segmenter.character_id(character, continues=True))
    ordered = sorted(bert_id_of, key=lambda token: (-counts.get(token, 0), token))
    unpadded = len(SPECIAL_TOKENS) + len(ordered)
    # Text cannot give a filler: "<" is a word of its own.
    fillers = [f"{_FILLER}{number}>" for number in range(-unpadded % VOCABULARY_MULTIPLE)]
    ids = segmenter.special_ids
    special_ids = [ids.pad, ids.unk, ids.cls, ids.sep]
    return Vocabulary(
        tokens=(*SPECIAL_TOKENS, *ordered, *fillers),
        bert_ids=np.array(special_ids + [bert_id_of[t] for t in ordered] + [ids.unk] * len(fillers), np.int32),
        counts=np.array([0] * len(special_ids) + [counts.get(t, 0) for t in ordered] + [0] * len(fillers), np.int64),
        lowercase=lowercase,
        isolated=segmenter.isolated,
        dotted_i=dotted_i,
    )


def text_tokens(tokens: Sequence[str]) -> slice:
    """The ids of the tokens that text can give: of a vocabulary's all but special tokens and fillers."""
    fillers = sum(token.startswith(_FILLER) for token in tokens[-VOCABULARY_MULTIPLE:])
    return slice(len(SPECIAL_TOKENS), len(tokens) - fillers)


def types_by_count(tokens: Sequence[str], counts: NDArray[np.int64]) -> dict[str, int]:
    """How many types occur as often as each range of `TYPES_BY_COUNT` says, special tokens and fillers left out.

    counts: int64[V], occurrences of the tokens.
    """
    ranges = np.searchsorted(list(TYPES_BY_COUNT.values()), counts[text_tokens(tokens)], side="right") - 1
    return dict(zip(TYPES_BY_COUNT, np.bincount(ranges, minlength=len(TYPES_BY_COUNT)).tolist(), strict=True))


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> Ragged:
    """Ids (int32) of every text, without BOS and EOS."""
    encodings = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return Ragged.from_lists([encoding.ids for encoding in encodings])


def _encode_words(tokenizer: Tokenizer, words: Sequence[str]) -> Ragged:
    """Ids (int32) of normalised words; many are encoded as one text, which takes half the time of `encode`."""
    lines = [words[start : start + _LINE_WORDS] for start in range(0, len(words), _LINE_WORDS)]
    encodings = tokenizer.encode_batch([" ".join(line) for line in lines], add_special_tokens=False)
    ids = np.fromiter((i for encoding in encodings for i in encoding.ids), np.int32)
    lengths = []
    for line, encoding in zip(lines, encodings, strict=True):
        starts = np.fromiter((start for start, _ in encoding.offsets), np.int64, len(encoding))
        ends = np.cumsum([len(word) + 1 for word in line])
        lengths.append(np.diff(np.searchsorted(starts, ends), prepend=0))
    return Ragged(ids, offsets_of(np.concatenate([np.zeros(0, np.int64), *lengths])))


def decode(tokenizer: Tokenizer, rows: Iterable[Iterable[int]]) -> list[str]:
    """The text of every row of ids, special tokens (`<unk>` too) left out."""
    return tokenizer.decode_batch([[int(i) for i in row] for row in rows], skip_special_tokens=True)


def save_vocabulary(vocabulary: Vocabulary, directory: str | Path, *, model_max_length: int = 512) -> None:
    """Write a tokenizer that `transformers.AutoTokenizer` loads without this package, and `bert_ids.parquet`."""
    from transformers import PreTrainedTokenizerFast

    pretrained = PreTrainedTokenizerFast(
        tokenizer_object=vocabulary.tokenizer(),
        pad_token=PAD_TOKEN,
        unk_token=UNK_TOKEN,
        bos_token=BOS_TOKEN,
        eos_token=EOS_TOKEN,
        split_special_tokens=True,
        model_input_names=MODEL_INPUT_NAMES,
        clean_up_tokenization_spaces=False,
        model_max_length=model_max_length,
    )
    pretrained.save_pretrained(str(directory))
    config = Path(directory) / "tokenizer_config.json"
    tree = {**json.loads(config.read_bytes()), "tokenizer_class": TOKENIZER_CLASS}
    config.write_text(json.dumps(tree, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    table = pa.table([list(vocabulary.tokens), vocabulary.bert_ids, vocabulary.counts], schema=BERT_IDS_SCHEMA)
    pq.write_table(table, Path(directory) / BERT_IDS_FILE)


def load_bert_ids(directory: str | Path) -> NDArray[np.int32]:
    """int32[V], the BERT id behind each token of a directory that `save_vocabulary` wrote."""
    return np.asarray(pq.read_table(_existing(directory, BERT_IDS_FILE), columns=["bert_id"])["bert_id"], np.int32)


def load_tokenizer(directory: str | Path) -> Tokenizer:
    """The tokenizer that `save_vocabulary` wrote; the text of a special token is ordinary text to it."""
    path = _existing(directory, TOKENIZER_FILE)
    with unreadable_as_user_error(path):
        tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True
    return tokenizer


def _existing(directory: str | Path, name: str) -> Path:
    path = Path(directory) / name
    if not path.is_file():
        raise UserError(f"{path}: no such file; the directory holds no tokenizer of a student, run prepare again")
    return path
