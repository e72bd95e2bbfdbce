"""A student as a directory of its own, for CTranslate2 or plain `transformers`, with its tokenizer and a model card.

The directory appears under its name in one step; at a URI each file does, `translation.json` as the last. What it holds
is enough to translate raw text without this package.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import Any

from bertkd_ray.artifacts.artifact import STAGING, Artifact
from bertkd_ray.artifacts.lock import LOCKS
from bertkd_ray.artifacts.storage_errors import scratch_directory, storage_errno, storage_error
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config
from bertkd_ray.core.console import human_bytes
from bertkd_ray.core.errors import ReportedError, UserError, one_line
from bertkd_ray.core.paths import expand_home
from bertkd_ray.core.quiet import quiet_transformers
from bertkd_ray.core.redaction import redacted
from bertkd_ray.core.stages import STAGES
from bertkd_ray.corpus.tokenizer import MODEL_INPUT_NAMES, TOKENIZER_CLASS, TOKENIZER_FILE
from bertkd_ray.student.distill import MODEL
from bertkd_ray.student.lineage import Lineage, lineage_of, student_at
from bertkd_ray.student.saved_model import student_config
from bertkd_ray.translation.engines import CT2_MODEL, require_ctranslate2
from bertkd_ray.translation.lines import LineSettings
from bertkd_ray.translation.measure import Measurement, measure, require_test_text
from bertkd_ray.translation.model_card import CARD, Form, model_card
from bertkd_ray.translation.models import SETTINGS, settings_of

QUANTIZATIONS = ("float32", "int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16", "float16", "bfloat16")
SENTENCES = 200
_TOKENIZER_CONFIG, _GENERATION_CONFIG = "tokenizer_config.json", "generation_config.json"
_WRITTEN = {SETTINGS, CARD, TOKENIZER_FILE, CT2_MODEL, "config.json", "shared_vocabulary.json", "model.safetensors"}
_WRITTEN |= {_TOKENIZER_CONFIG, _GENERATION_CONFIG}
_ARTIFACT = re.compile(rf"({'|'.join(stage.artifact for stage in STAGES.values())})-[0-9a-f]{{16}}")
_OF_A_STORE = re.compile(rf"{STAGING}|{LOCKS}|\.recorded|report-.*")


@dataclass(frozen=True)
class Exported:
    """An export, and what was measured of it."""

    path: Path | str
    """The directory, or the URI without credentials."""
    form: Form
    bytes: int
    measurement: Measurement | None = None

    def as_json(self) -> dict[str, Any]:
        """The object that `bertkd export --json` prints."""
        measured = asdict(self.measurement) if self.measurement else None
        return {"path": str(self.path), "to": self.form, "bytes": self.bytes, "measured": measured}

    def text(self) -> str:
        """The export and its measurement as text for a terminal."""
        summary = f"{self.path} ({human_bytes(self.bytes)})\nTranslate: bertkd translate {self.path} FILE"
        return f"Export:    {summary}" + (f"\n\n{self.measurement.table()}" if self.measurement else "")


def default_output(student: str, form: Form, quantization: str) -> Path:
    """The default directory of an export: in the working directory, named after the student and the form."""
    kind = "" if quantization == "float32" else f"-{quantization}"
    return Path(f"{student}-{form}{kind}")


def export_student(
    student: Artifact | str,
    output: str | Path | None = None,
    *,
    config: Config | None = None,
    to: Form,
    quantization: str = "float32",
    sentences: int = SENTENCES,
    license: str | None = None,
    force: bool = False,
) -> Exported:
    """A finished student as a directory for CTranslate2 or for plain `transformers`, with tokenizer and model card.

    student: the artifact, or its directory or URI. output: a directory or URI; None is `default_output`, named after
    the artifact. config: of the student's arm, for search and precision; None takes those of its newest translations.
    quantization: for CTranslate2, one of `QUANTIZATIONS`. sentences: of the test split with which an export for
    CTranslate2 is measured beside the student in PyTorch; 0 measures nothing. license: of the model card, as the hub
    calls it; None leaves it open. force: replaces an earlier export.

    Raises UserError for a student that is not there or not whole, an output that exists (unless it is an export and
    `force` replaces it) or lies in an artifact, and for CTranslate2 where that is not installed or the corpus to
    measure on is gone. An export that was cut off on its way to a URI counts as none.
    """
    if isinstance(student, str):
        student = student_at(student)
    output = str(output or default_output(student.directory, to, quantization))
    lineage = lineage_of(student)
    settings = settings_of(lineage, config)
    options = to, quantization, sentences if to == "ctranslate2" else 0, license, force
    store = Store(output)
    _require_outside_artifacts(redacted(output), store, student.store)
    if "://" not in output:
        return _export(lineage, settings, Path(expand_home(output)), *options)
    if store.files() or store.links():
        _require_replaceable(redacted(output), store, force=force)
    store.require_writable()
    with scratch_directory("export-") as scratch:
        exported = _export(lineage, settings, scratch / "export", *options)
        store.upload(scratch / "export")
    return replace(exported, path=store.display_uri())


def _export(
    lineage: Lineage,
    settings: LineSettings,
    output: Path,
    form: Form,
    quantization: str,
    sentences: int,
    license: str | None,
    force: bool,
) -> Exported:
    if form == "ctranslate2":
        require_ctranslate2()
    if sentences:
        require_test_text(lineage)
    with scratch_directory("student-") as scratch:
        student = lineage.student.local(MODEL, scratch)
        student_config(student)
        with _new_directory(output, force=force) as directory:
            if form == "ctranslate2":
                _convert(student, directory, quantization)
            else:
                lineage.student.copy(MODEL, directory)
                # So that plain `transformers` translates as this package does.
                changes = {"tokenizer_class": TOKENIZER_CLASS, "model_input_names": MODEL_INPUT_NAMES}
                _change_json(directory / _TOKENIZER_CONFIG, model_max_length=settings.max_tokens + 1, **changes)
                _change_json(directory / _GENERATION_CONFIG, **_generation(settings))
            (directory / SETTINGS).write_text(settings.model_dump_json(indent=1) + "\n", encoding="utf-8")
            (directory / CARD).write_text(model_card(lineage, settings, form, license=license), encoding="utf-8")
        measurement = measure(lineage, student, output, settings, sentences) if sentences else None
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    return Exported(output, form, size, measurement)


def _convert(student: Path, directory: Path, quantization: str) -> None:
    from ctranslate2.converters import TransformersConverter

    class Converter(TransformersConverter):  # type: ignore[misc]
        """Reads a student's positions where they begin."""

        def load_model(self, *arguments: Any, **options: Any) -> Any:
            model = super().load_model(*arguments, **options)
            for stack in (model.get_encoder(), model.get_decoder()):
                # The converter takes the rows from `offset` on, which fits M2M100's own padding id, 1. A student's is
                # 0, so its first token stands at row 1; taken from row 2 on, all would be one place further on.
                stack.embed_positions.offset = stack.embed_positions.padding_idx + 1
            return model

        def load_tokenizer(self, *arguments: Any, **options: Any) -> Any:
            return super().load_tokenizer(*arguments, **options, trust_remote_code=False)

    with quiet_transformers():
        Converter(str(student)).convert(str(directory), quantization=quantization, force=True)
    shutil.copy(student / TOKENIZER_FILE, directory)


def _generation(settings: LineSettings) -> dict[str, Any]:
    """`generate` warns of a length penalty where there is no beam."""
    if settings.beam == 1:
        return {"num_beams": 1, "length_penalty": None, "early_stopping": None}
    return {"num_beams": settings.beam, "length_penalty": settings.length_penalty}


def _change_json(path: Path, **changes: Any) -> None:
    """Sets keys of a JSON object; None removes one."""
    tree = json.loads(path.read_text(encoding="utf-8")) | changes
    tree = {key: value for key, value in tree.items() if value is not None}
    path.write_text(json.dumps(tree, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def _new_directory(target: Path, *, force: bool) -> Iterator[Path]:
    """A directory to fill, which stands at `target` once all is done; an earlier one stays until then."""
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        _require_replaceable(str(target), Store(str(target)), force=force)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-")
    except OSError as error:
        raise UserError(f"--output {target}: cannot be written: {one_line(error)}") from None
    with scratch as aside:
        directory = Path(aside) / "new"
        directory.mkdir()
        try:
            yield directory
        except ReportedError:
            raise
        except Exception as error:
            if storage_errno(error) is None:
                raise
            raise storage_error(f"--output {target}", "written", error, str(target.parent)) from error
        try:
            if target.exists():
                os.rename(target, Path(aside) / "old")
            os.rename(directory, target)
        except OSError as error:  # The working directory, a mounted one, a link to nothing.
            raise UserError(f"--output {target}: cannot be replaced ({error.strerror}); give another") from None


def _require_outside_artifacts(output: str, target: Store, storage: Store) -> None:
    """Raises UserError in any artifact, and in the directories that a pipeline keeps in the student's storage."""
    path, root = PurePosixPath(normpath(target.root)), PurePosixPath(storage.root)
    own = path.relative_to(root).parts[:1] if path.is_relative_to(root) else ()
    if any(map(_ARTIFACT.fullmatch, (*path.parent.parts, *own))) or any(map(_OF_A_STORE.fullmatch, own)):
        raise UserError(f"--output {output}: lies in an artifact, or where a storage keeps its own; give another")


def _require_replaceable(output: str, target: Store, *, force: bool) -> None:
    if not force:
        raise UserError(f"--output {output}: exists already; give another, or --force, which removes what is there")
    try:
        LineSettings.model_validate_json(target.read(SETTINGS) if target.exists(SETTINGS) else b"")
    except ValueError:
        raise UserError(f"--output {output}: --force replaces exports only, and this is none; give another") from None
    names = {name for name, _ in target.files()}.union(target.links())
    if other := min(names - _WRITTEN, default=None):
        raise UserError(f"--output {output}: --force replaces exports only, and {other} is of none; move it elsewhere")
