"""The pretrained BERT: its directory, checks and hashes for a fingerprint. Reads files only, without torch."""

import importlib.util
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

from bertkd_ray.core.errors import UserError, one_line
from bertkd_ray.core.paths import expand_home
from bertkd_ray.corpus.bert_tokenizer import TOKENIZER_FILES, hash_files, load_bert_tokenizer, read_json
from bertkd_ray.teacher.families import FAMILIES, BertShape, as_bert_config, own_key
from bertkd_ray.teacher.masking import SPECIAL_TOKENS_PER_PAIR, BertSpecials

CONFIG_FILE, WEIGHTS_FILE, INDEX_FILE = "config.json", "model.safetensors", "model.safetensors.index.json"

_PACKAGE = "package:"
_TOKENS_PER_PIECE = 10
"""More than a vocabulary ever has: a piece is a token after a space and another one elsewhere, with accents a third."""


def resolve_model(source: str) -> str:
    """The local directory of a pretrained model.

    source: a directory; `package:NAME/SUBDIR`, a directory inside an installed Python package; or a Hugging Face hub
    id, of which only the top-level JSON, text and safetensors files are fetched into the hub's cache.

    Raises UserError when it cannot be had or has no `config.json`. Not supported: pickled weights.
    """
    if source.startswith(_PACKAGE):
        directory = _package_directory(source)
    elif (path := Path(expand_home(source))).is_dir():
        directory = path.absolute()
    elif source.startswith((".", "/", "~")):
        raise UserError(f"teacher.model: there is no directory {source}; name a model directory or a hub id")
    else:
        directory = _hub_directory(source)
    if not (directory / CONFIG_FILE).is_file():
        raise UserError(f"teacher.model: {source} has no {CONFIG_FILE}; name a directory that save_pretrained wrote")
    return str(directory)


def _package_directory(source: str) -> Path:
    name, _, subdirectory = source.removeprefix(_PACKAGE).partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"teacher.model: {source} needs the package {name}; install it: pip install {name.replace('_', '-')}"
        )
    directory = Path(next(iter(spec.submodule_search_locations))) / subdirectory
    if not directory.is_dir():
        raise UserError(f"teacher.model: the package {name} has no directory {subdirectory}; correct {source}")
    return directory


def _hub_directory(model_id: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        wanted = ["*.json", "*.txt", "*.safetensors"]
        return Path(snapshot_download(model_id, allow_patterns=wanted, ignore_patterns=["*/*"]))
    except (OSError, ValueError, RuntimeError) as error:  # the last where there is no home directory
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = "check the id and the network"
        if offline := os.environ.get("HF_HUB_OFFLINE"):
            hint = f"HF_HUB_OFFLINE={offline} is set, so only the cache was searched"
        raise UserError(
            f"teacher.model: {model_id} is neither a directory nor a hub model that can be had ({hint}): {reason}"
        ) from error


@contextmanager
def naming_teacher(name: str) -> Iterator[None]:
    """Errors of a key of `teacher` name that of one of several teachers, under this name if there is one."""
    try:
        yield
    except UserError as error:
        text = str(error)
        raise UserError(f"teachers.{name}{text[7:]}" if name and text.startswith("teacher.") else text) from None


def require_one_vocabulary(directories: Mapping[str, str]) -> None:
    """Raises UserError for BERTs, by the names of their teachers, that would give some text other ids."""
    (first, expected), *others = directories.items()
    for name, directory in others:
        if directory == expected:
            continue
        own, of_first = (load_bert_tokenizer(each).tokenizer for each in (directory, expected))
        if own.get_vocab() != of_first.get_vocab():
            what = "vocabulary"
        elif _normalizer(own) != _normalizer(of_first):
            what = "treatment of case and accents"
        else:
            continue
        raise UserError(
            f"teachers.{name}.model: {directory} has another {what} than {expected} of teachers.{first}; give all "
            "teachers BERTs whose vocabulary and tokenizer are the same, since a corpus has the ids of one"
        )


def _normalizer(tokenizer: Tokenizer) -> dict[str, Any] | None:
    """What a tokenizer does to a text before it cuts words, comparable: without a word on accents they go with case."""
    normalizer: dict[str, Any] | None = json.loads(tokenizer.to_str())["normalizer"]
    if normalizer and normalizer.get("strip_accents", True) is None:
        normalizer["strip_accents"] = normalizer.get("lowercase")
    return normalizer


def check_bert(
    directory: str | Path, *, weights: bool, layers: int = 0, pair_tokens: int = 0, topk: int = 0
) -> dict[str, Any]:
    """`bert_config` of a directory, after everything that can be known of it without loading its weights.

    weights: whether it must have weights; layers, tokens of the longest pair and logits a position: what is asked of it
    (`teacher.layers`, `corpus.max_pair_tokens`, `kd.topk`). Raises UserError for another kind of model or tokenizer, a
    vocabulary without the special tokens or larger than the model's, one that is too small, and for absent weights. How
    many tokens the student will have, and so how large `kd.topk` may be, only the corpus says, which finetune asks.
    """
    config = bert_config(directory)
    if layers > config["num_hidden_layers"]:
        raise UserError(f"teacher.layers: {layers}, but {directory} has {config['num_hidden_layers']}")
    if pair_tokens + SPECIAL_TOKENS_PER_PAIR > (positions := config["max_position_embeddings"]):
        raise UserError(
            f"corpus.max_pair_tokens: {pair_tokens} and {SPECIAL_TOKENS_PER_PAIR} special tokens are more than the "
            f"{positions} positions of {directory}; lower it"
        )
    pieces = max(load_bert_tokenizer(directory).tokenizer.get_vocab().values()) + 1
    if topk > _TOKENS_PER_PIECE * pieces:
        raise UserError(f"kd.topk: {topk} is more than the vocabulary of {pieces} pieces; lower it")
    if pieces > config["vocab_size"]:
        raise UserError(
            f"teacher.model: the vocabulary in {directory} has {pieces} pieces, the model {config['vocab_size']}; "
            "name a directory whose tokenizer and model belong together"
        )
    for path in weight_files(directory) if weights else []:
        try:
            # Opens if the header describes exactly the bytes that follow.
            with safe_open(path, framework="numpy"):
                continue
        except (SafetensorError, OSError) as error:
            message = f"{path} is damaged or cut off ({one_line(error)}); copy the file again"
            raise UserError(f"teacher.model: {message}") from None
    return config


def own_config(directory: str | Path) -> dict[str, Any]:
    """The `config.json` of a model directory as it stands.

    Raises UserError for anything but an encoder of one of `teacher.families` with absolute positions and two segments.
    """
    path = Path(directory) / CONFIG_FILE
    config = read_json(path)
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise UserError(
            f"teacher.model: {path} is of type {kind}; supported are {', '.join(FAMILIES)} (any size, any language)"
        )
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise UserError(
            f"teacher.model: {path} has {config['position_embedding_type']} positions; "
            "only absolute position embeddings are supported"
        )
    if config.get("is_decoder"):
        raise UserError(f"teacher.model: {path} is a left-to-right decoder; name a BERT encoder")
    segments = config.get("type_vocab_size", 2)
    if not isinstance(segments, int) or segments < 2:
        raise UserError(
            f"teacher.model: {path} has type_vocab_size {segments}; the teacher needs a segment for each language"
        )
    return config


def bert_config(directory: str | Path) -> dict[str, Any]:
    """What a teacher is built from, in BERT's terms (`num_hidden_layers`, …).

    Raises UserError as `own_config`, and for a value of another type or size.
    """
    own, path = own_config(directory), Path(directory) / CONFIG_FILE
    named = partial(own_key, family=own["model_type"])
    fix = "name a complete BERT directory"
    return BertShape.checked(as_bert_config(own), f"teacher.model: {path}", fix, named).model_dump()


def weight_files(directory: str | Path) -> list[Path]:
    """The safetensors files that hold the weights of a model, one or several. Raises UserError if one is absent."""
    directory = Path(directory)
    names = [WEIGHTS_FILE]
    if not (directory / WEIGHTS_FILE).is_file() and (directory / INDEX_FILE).is_file():
        names = _indexed_files(directory / INDEX_FILE) or names
    absent = [name for name in names if not (directory / name).is_file()]
    if absent:
        raise UserError(
            f"teacher.model: {directory} has no {absent[0]}; "
            "convert the model with save_pretrained, only safetensors weights are read"
        )
    return [directory / name for name in names]


def _indexed_files(index: Path) -> list[str]:
    """The files that an index names. Raises UserError for one that `model_hash` does not read: in another directory."""
    try:
        names = sorted(set(read_json(index)["weight_map"].values()))
        if all(Path(name).name == name and name.endswith(".safetensors") for name in names):
            return names
    except (AttributeError, KeyError, TypeError):
        names = []
    wrong = f" ({names[0]})" if names else ""
    raise UserError(f"teacher.model: {index} names no safetensors files beside it{wrong}; save the model again")


def bert_specials(directory: str | Path) -> BertSpecials:
    """The ids of `[PAD] [CLS] [SEP] [MASK]`; raises as `load_bert_tokenizer`."""
    ids = load_bert_tokenizer(directory).special_ids
    return BertSpecials(pad=ids.pad, cls=ids.cls, sep=ids.sep, mask=ids.mask)


def model_hash(directory: str | Path) -> str:
    """sha256 over the names and contents of a model's configuration, tokenizer and safetensors files, as hex.

    Other files (README, pickled weights, anything in a subdirectory) are ignored: they cannot change the teacher.
    """
    directory = Path(directory)
    weights = [path.name for path in directory.glob("*.safetensors")]
    return hash_files(directory, {CONFIG_FILE, INDEX_FILE, *TOKENIZER_FILES, *weights})
