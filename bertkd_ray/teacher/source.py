"""Where the pretrained BERT comes from, and what of it enters a fingerprint. Reads files only, without torch."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bertkd_ray.core.errors import UserError
from bertkd_ray.teacher.masking import BertSpecials

TOKENIZER_FILES = (
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)
MODEL_FILES = ("config.json", "model.safetensors.index.json")

_PACKAGE = "package:"
_CHUNK_BYTES = 1 << 20


def resolve_model(source: str) -> str:
    """The local directory of a pretrained model.

    source: a directory; `package:NAME/SUBDIR`, a directory inside an installed Python package; or a Hugging Face hub
    id, of which only the top-level JSON, text and safetensors files are fetched into the hub's cache.

    Raises UserError when it cannot be had or has no `config.json`. Not supported: pickled weights.
    """
    if source.startswith(_PACKAGE):
        directory = _package_directory(source)
    elif Path(source).expanduser().is_dir():
        directory = Path(source).expanduser().absolute()
    elif source.startswith((".", "/", "~")):
        raise UserError(f"teacher.model: there is no directory {source}; name a model directory or a hub id")
    else:
        directory = _hub_directory(source)
    if not (directory / "config.json").is_file():
        raise UserError(f"teacher.model: {source} has no config.json; name a directory that save_pretrained wrote")
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
        found = snapshot_download(
            model_id, allow_patterns=["*.json", "*.txt", "*.safetensors"], ignore_patterns=["*/*"]
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        offline = os.environ.get("HF_HUB_OFFLINE")
        hint = (
            f"HF_HUB_OFFLINE={offline} is set, so only the cache was searched"
            if offline
            else "check the id and the network"
        )
        raise UserError(
            f"teacher.model: {model_id} is neither a directory nor a hub model that can be had ({hint}): {reason}"
        ) from error
    return Path(found)


def bert_config(directory: str | Path) -> dict[str, Any]:
    """The `config.json` of a BERT directory, as far as the teacher needs it checked.

    Raises UserError for anything but an encoder of model type `bert` with absolute positions.
    """
    path = Path(directory) / "config.json"
    config = _read_json(path)
    kind = config.get("model_type")
    if kind != "bert":
        raise UserError(f"teacher.model: {path} is of type {kind}; supported is bert (any size, any language)")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise UserError(
            f"teacher.model: {path} has relative positions; only absolute position embeddings are supported"
        )
    if config.get("is_decoder"):
        raise UserError(f"teacher.model: {path} is a left-to-right decoder; name a BERT encoder")
    return config


def bert_specials(directory: str | Path) -> BertSpecials:
    """The ids of `[PAD] [CLS] [SEP] [MASK]`, by the names in `tokenizer_config.json`, or BERT's usual names.

    Raises UserError when the directory has no vocabulary or the vocabulary lacks one of them.
    """
    directory = Path(directory)
    vocabulary = _vocabulary(directory)
    config_path = directory / "tokenizer_config.json"
    config = _read_json(config_path) if config_path.is_file() else {}
    ids = []
    for key, usual in (
        ("pad_token", "[PAD]"),
        ("cls_token", "[CLS]"),
        ("sep_token", "[SEP]"),
        ("mask_token", "[MASK]"),
    ):
        declared = config.get(key) or usual
        token = declared["content"] if isinstance(declared, dict) else declared
        if token not in vocabulary:
            raise UserError(
                f"teacher.model: the vocabulary in {directory} lacks the {key} {token}; name a complete BERT directory"
            )
        ids.append(vocabulary[token])
    return BertSpecials(*ids)


def model_hash(directory: str | Path) -> str:
    """sha256 over the names and contents of a model's configuration, tokenizer and safetensors files, as hex.

    Other files (README, pickled weights, anything in a subdirectory) are ignored: they cannot change the teacher.
    """
    directory = Path(directory)
    weights = [path.name for path in directory.glob("*.safetensors")]
    return _hash_files(directory, {*MODEL_FILES, *TOKENIZER_FILES, *weights})


def tokenizer_hash(directory: str | Path) -> str:
    """sha256 over the names and contents of the tokenizer and vocabulary files alone, as hex."""
    return _hash_files(Path(directory), TOKENIZER_FILES)


def _hash_files(directory: Path, names: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for name in sorted(names):
        path = directory / name
        if not path.is_file():
            continue
        # The size marks where a file ends, so that no two sets of files hash the same bytes.
        digest.update(f"{name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def _vocabulary(directory: Path) -> dict[str, int]:
    path = directory / "tokenizer.json"
    if path.is_file():
        content = _read_json(path)
        added = {token["content"]: int(token["id"]) for token in content.get("added_tokens", [])}
        return {**content["model"]["vocab"], **added}
    path = directory / "vocab.txt"
    if path.is_file():
        lines = path.read_text(encoding="utf-8").split("\n")
        return {line.rstrip("\r"): index for index, line in enumerate(lines)}
    raise UserError(
        f"teacher.model: {directory} has neither tokenizer.json nor vocab.txt; name a complete BERT directory"
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"teacher.model: {path} cannot be read as JSON ({error}); name a complete model directory"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"teacher.model: {path} is not a JSON object; name a complete model directory")
    return content
