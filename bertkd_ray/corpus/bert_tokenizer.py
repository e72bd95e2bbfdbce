"""BERT's own tokenizer, from the files of a model directory; reads files only, without transformers or torch.

Not supported: tokenizers other than WordPiece behind BERT's pre-tokenizer (RoBERTa's byte pairs, SentencePiece models,
words cut by MeCab or another analyser first). Tokens that were added to a vocabulary afterwards are not used: their
text is cut into pieces like any other.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from bertkd_ray.core.errors import UserError

CONTINUATION = "##"
MAX_WORD_LETTERS = 100  # BERT gives up ([UNK]) on words longer than this
SPECIAL_NAMES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TOKENIZER_FILES = (
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)
SUPPORTED = "a BERT-like teacher has a WordPiece vocabulary behind BERT's own split at spaces and punctuation"

# What `vocab.txt` may belong to; of a `tokenizer.json` the content is checked instead.
_WORDPIECE_CLASSES = ("BertTokenizer", "DistilBertTokenizer")
# The normaliser's field behind each key of `tokenizer_config.json`.
_NORMALIZER_FIELDS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
_CAPITAL = re.compile("[A-Z]")


class SpecialIds(NamedTuple):
    """BERT ids of the special tokens."""

    pad: int
    unk: int
    cls: int
    sep: int
    mask: int


class BertTokenizer(NamedTuple):
    """BERT's own fast tokenizer, without truncation, padding or added tokens, and the ids of its special tokens.

    The text of a special token (`[MASK]`) is ordinary text to it.
    """

    tokenizer: Tokenizer
    special_ids: SpecialIds


def load_bert_tokenizer(directory: str | Path) -> BertTokenizer:
    """The tokenizer of a BERT directory, from `tokenizer.json`, or else from `vocab.txt`.

    What `tokenizer_config.json` says about case, accents, Chinese characters and the names of the special tokens stands
    over `tokenizer.json`, as in transformers. Where it says nothing, `tokenizer.json` stands (`AutoTokenizer`
    lower-cases all the same), and a `vocab.txt` alone is cased where it has capital letters.

    Raises UserError if the files are absent or damaged, or describe another kind of tokenizer.
    """
    directory = Path(directory)
    config_path = directory / "tokenizer_config.json"
    config = read_json(config_path) if config_path.is_file() else {}
    wrong = [key for key in _NORMALIZER_FIELDS if not isinstance(config.get(key), bool | None)]
    wrong += [key for key in map(_token_key, SPECIAL_NAMES) if not isinstance(_content(config.get(key) or ""), str)]
    if wrong:
        value = config[wrong[0]]
        raise UserError(f"teacher.model: {config_path} has {wrong[0]} {value!r}; give what save_pretrained writes")
    if (directory / "tokenizer.json").is_file():
        tokenizer = _from_tokenizer_json(directory / "tokenizer.json", config)
    elif (directory / "vocab.txt").is_file():
        tokenizer = _from_vocabulary(directory, config)
    else:
        raise UserError(
            f"teacher.model: {directory} has neither tokenizer.json nor vocab.txt; name a complete BERT directory"
        )
    names = [_special_name(config, usual) for usual in SPECIAL_NAMES]
    return bert_tokenizer_of(tokenizer, str(directory), names)


def bert_tokenizer_of(tokenizer: Tokenizer, name: str, special_names: Sequence[str] = SPECIAL_NAMES) -> BertTokenizer:
    """A checked copy of a `tokenizers.Tokenizer`; `name` stands in the messages. Raises as `load_bert_tokenizer`.

    special_names: of padding, unknown, start, separator and mask; the model's own name for unknown pieces stands.
    """
    model = tokenizer.model
    if not isinstance(model, models.WordPiece) or model.continuing_subword_prefix != CONTINUATION:
        kind = type(model).__name__
        raise UserError(f"teacher.model: {name}: its tokenizer is {kind}, not BERT's WordPiece; {SUPPORTED}")
    if not isinstance(tokenizer.pre_tokenizer, pre_tokenizers.BertPreTokenizer):
        raise UserError(f"teacher.model: {name}: its tokenizer does not split words as BERT does; {SUPPORTED}")
    pad, _, *others = special_names
    names = [pad, model.unk_token, *others]
    # Without the added tokens: the model need not have rows for them.
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    missing = [token for token in names if token not in vocabulary]
    if missing:
        raise UserError(
            f"teacher.model: {name}: the vocabulary lacks {' '.join(missing)}; name a BERT with all special tokens"
        )
    content = json.loads(tokenizer.to_str())
    content.update(added_tokens=[], truncation=None, padding=None, post_processor=None)
    return BertTokenizer(Tokenizer.from_str(json.dumps(content)), SpecialIds(*(vocabulary[token] for token in names)))


def tokenizer_hash(directory: str | Path) -> str:
    """sha256 over the names and contents of the tokenizer and vocabulary files alone, as hex."""
    return hash_files(Path(directory), TOKENIZER_FILES)


def hash_files(directory: Path, names: Iterable[str]) -> str:
    """sha256 over the names and contents of those of the files that are there, as hex."""
    digest = hashlib.sha256()
    for path in (directory / name for name in sorted(names) if (directory / name).is_file()):
        # The size marks where a file ends, so that no two sets of files hash the same bytes.
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a model directory. Raises UserError if it cannot be read as one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"teacher.model: {path} cannot be read as JSON ({error}); name a complete model directory"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"teacher.model: {path} is not a JSON object; name a complete model directory")
    return content


def _from_tokenizer_json(path: Path, config: dict[str, Any]) -> Tokenizer:
    content = read_json(path)
    normalizer = content.get("normalizer")
    if isinstance(normalizer, dict) and normalizer.get("type") == "BertNormalizer":
        normalizer.update(_stated(config))
    try:
        return Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # what `tokenizers` raises for content it does not understand has no class of its own
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"teacher.model: {path} is not a tokenizer ({reason}); name a complete BERT directory"
        ) from error


def _from_vocabulary(directory: Path, config: dict[str, Any]) -> Tokenizer:
    path, model_config = directory / "vocab.txt", directory / "config.json"
    kind = config.get("tokenizer_class")
    if kind is None and model_config.is_file():
        kind = read_json(model_config).get("tokenizer_class")
    if kind is not None and str(kind).removesuffix("Fast") not in _WORDPIECE_CLASSES:
        raise UserError(f"teacher.model: {directory}: its tokenizer is {kind}, not BERT's WordPiece alone; {SUPPORTED}")
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, ValueError) as error:
        raise UserError(f"teacher.model: {path} cannot be read as UTF-8 ({error}); name a complete BERT") from error
    vocabulary = {piece: number for number, piece in enumerate(lines)}
    is_cased = any(_CAPITAL.search(piece) and not piece.startswith("[") for piece in vocabulary)
    unknown = _special_name(config, "[UNK]")
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown, max_input_chars_per_word=MAX_WORD_LETTERS))
    tokenizer.normalizer = normalizers.BertNormalizer(**_stated({"do_lower_case": not is_cased, **config}))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _stated(config: dict[str, Any]) -> dict[str, Any]:
    """The normaliser's fields that a configuration sets; of these, null has a meaning for accents alone."""
    return {
        field: config[key]
        for key, field in _NORMALIZER_FIELDS.items()
        if config.get(key) is not None or (key in config and key == "strip_accents")
    }


def _special_name(config: dict[str, Any], usual: str) -> str:
    return str(_content(config.get(_token_key(usual)) or usual))


def _token_key(usual: str) -> str:
    return f"{usual.strip('[]').lower()}_token"


def _content(declared: Any) -> Any:
    return declared.get("content") if isinstance(declared, dict) else declared
