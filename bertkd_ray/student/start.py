"""The finished student that a training goes on from (`student.start`).

Only its weights are taken. All else is that of a new training: optimizer, learning rates from the first step of the
warm-up, batches, dropout, and the choice among the checkpoints that it validates.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact
from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config.sections import StudentConfig
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.redaction import redacted
from bertkd_ray.student.lineage import artifact_at, student_at
from bertkd_ray.student.saved_model import student_config
from bertkd_ray.training.saving import MODEL

START = "start"
"""Name of the start among a student's inputs and in the directory of unfinished work."""
_CONFIG, _WEIGHTS, _TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
_SHAPE = {
    "encoder_layers": ("encoder_layers",),
    "decoder_layers": ("decoder_layers",),
    "width": ("d_model",),
    "ffn": ("encoder_ffn_dim", "decoder_ffn_dim"),
    "heads": ("encoder_attention_heads", "decoder_attention_heads"),
}
"""Keys of the configuration that shape the weights, each with its keys in `config.json`."""


@dataclass(frozen=True)
class Start:
    """A start that has been found."""

    directory: Path
    """Its `save_pretrained` directory."""
    artifact: Artifact | None
    """Its artifact; None for a model directory."""


def start_hash(student: StudentConfig) -> str | None:
    """sha256 of the weights that a student starts from, as hex, or None; raises UserError as `open_start`."""
    if student.start is None:
        return None
    with open_start(student) as start:
        return _weights_hash(start.directory)


def start_artifact(student: StudentConfig) -> Artifact | None:
    """The artifact of the start; None where there is none, or only a model directory."""
    return artifact_at(student.start) if student.start is not None else None


def check_start(student: StudentConfig) -> None:
    """Raises UserError as `open_start` where a student has a start that cannot be gone on from."""
    if student.start is not None:
        with open_start(student):
            pass


@contextmanager
def open_start(student: StudentConfig) -> Iterator[Start]:
    """The start of a student that has one, with its files on this machine.

    Raises UserError, in one line that names the key, where there is no student of this package, a file of its artifact
    is damaged, or its shape is another.
    """
    location = str(student.start)
    with scratch_directory("start-") as scratch:
        try:
            artifact = artifact_at(location)
            directory = student_at(location).local(MODEL, scratch) if artifact else _model_directory(location, scratch)
            config = student_config(directory)
        except UserError as error:
            raise UserError(f"student.start: {error}") from None
        if wrong := list(_differences(student, config)):
            raise UserError(f"student.start: {redacted(location)} has another shape: {', '.join(wrong)}")
        yield Start(directory, artifact)


def share_start(student: StudentConfig, pending: PendingArtifact, corpus: Artifact) -> Artifact | None:
    """Puts the weights where every worker finds them, in the directory of unfinished work; the start's artifact.

    Raises UserError as `open_start`, for another vocabulary than the corpus has, and for weights that have changed.
    """
    with open_start(student) as start, scratch_directory("start-") as scratch:
        _require_vocabulary(str(student.start), start, corpus)
        for name in (_CONFIG, _WEIGHTS):
            shutil.copy(start.directory / name, scratch)
        if _weights_hash(scratch) != pending.inputs[START]:
            raise UserError(
                f"student.start: {redacted(str(student.start))} changed while it was read; run the command again when "
                "nothing writes to it"
            )
        pending.store.upload(scratch, pending.staging, START)
        return start.artifact


def load_start(model: Any, store: Store, directory: str) -> None:
    """Gives a student of the same shape the weights that `share_start` put into a directory of the store."""
    from bertkd_ray.student.saved_model import load_student

    with scratch_directory("start-") as scratch:
        model.load_state_dict(load_student(store.local(scratch, directory)).state_dict())


def _weights_hash(directory: Path) -> str:
    from bertkd_ray.corpus.bert_tokenizer import hash_files

    return hash_files(directory, [_WEIGHTS])


def _model_directory(location: str, scratch: Path) -> Path:
    store = Store(location) if "://" in location else None
    if not (store.exists(_CONFIG) if store else Path(location).is_dir()):
        raise UserError(
            f"{redacted(location)}: no student is here; give a student artifact or a student's model directory"
        )
    if store is None:
        return Path(location)
    store.download(scratch, names=[name for name in (_CONFIG, _WEIGHTS, _TOKENIZER) if store.exists(name)])
    return scratch


def _differences(student: StudentConfig, config: dict[str, Any]) -> Iterator[str]:
    for key, names in _SHAPE.items():
        own = getattr(student, key)
        if other := [config[name] for name in names if config[name] != own]:
            yield f"student.{key} is {own} and must be {other[0]}"


def _require_vocabulary(location: str, start: Start, corpus: Artifact) -> None:
    from bertkd_ray.corpus.passes import TOKENIZER
    from bertkd_ray.corpus.tokenizer import load_tokenizer

    with scratch_directory("tokenizer-") as scratch:
        own = load_tokenizer(corpus.local(TOKENIZER, scratch)).get_vocab()
    try:
        other = load_tokenizer(start.directory).get_vocab()
    except UserError as error:
        raise UserError(f"student.start: {error}") from None
    if own != other:
        mine, theirs = (sorted(vocabulary, key=vocabulary.__getitem__) for vocabulary in (own, other))
        pairs = enumerate(zip(mine, theirs, strict=False))
        first = next((f"; token {number} is {a} there and {b} here" for number, (b, a) in pairs if a != b), "")
        raise UserError(
            f"student.start: the vocabulary of {redacted(location)} ({len(other):,} tokens) is not that of "
            f"{corpus.directory} ({len(own):,} tokens){first}; give a student of a corpus with the same vocabulary"
        )
