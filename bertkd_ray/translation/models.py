"""Opens a model to translate with: a student or teacher artifact, a student's model directory, or an export."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bertkd_ray.artifacts.artifact import Artifact, load_finished
from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config
from bertkd_ray.config.validation import validated
from bertkd_ray.core.console import log
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.paths import expand_home
from bertkd_ray.core.stages import FINETUNE, PREPARE
from bertkd_ray.corpus.passes import TOKENIZER
from bertkd_ray.corpus.tokenizer import load_bert_ids, load_tokenizer
from bertkd_ray.student.distill import MODEL
from bertkd_ray.student.lineage import Lineage, artifact_at, evaluations_of, lineage_of, student_at
from bertkd_ray.student.saved_model import read_json_object, student_config
from bertkd_ray.teacher.finetune import load_finished as load_teacher_of
from bertkd_ray.teacher.masking import SPECIAL_TOKENS_PER_PAIR
from bertkd_ray.translation.engines import (
    CT2_MODEL,
    CTranslate2Engine,
    TeacherEngine,
    TorchEngine,
    require_ctranslate2,
)
from bertkd_ray.translation.lines import Engine, LineSettings, LineTranslator

SETTINGS = "translation.json"
"""The file of an export with its `LineSettings`."""


def settings_of(lineage: Lineage, config: Config | None = None) -> LineSettings:
    """A student's settings: its corpus' languages and text, search and precision of its arm's configuration.

    config: None takes search and precision of the student's newest translation artifact, and says so where others
    differ.
    """
    tree: dict[str, Any] = {"positions": lineage.student.read_json(MODEL, "config.json")["max_position_embeddings"]}
    if lineage.corpus is None:
        log(f"{lineage.student.display_uri}: its corpus is not beside it; taken for a model of raw text")
    else:
        tree |= {key: lineage.corpus.info[key] for key in ("src_lang", "tgt_lang", "text")}
        tree["max_tokens"] = lineage.corpus.config["max_side_tokens"]
    tree["precision"] = lineage.student.config["precision"]
    configs = [of.config for of in lineage.translations] if config is None else [config.model_dump()]
    searches = [
        {**{key: of["translate"][key] for key in ("beam", "length_penalty")}, "precision": of["precision"]}
        for of in configs
    ]
    if any(search != searches[-1] for search in searches):
        taken = ", ".join(f"{key} {value}" for key, value in searches[-1].items())
        log(f"{lineage.student.display_uri}: of its {len(searches)} translations the newest's search is taken: {taken}")
    return LineSettings(**(tree | (searches[-1] if searches else {})))


def translate(
    model: Artifact | str | Path,
    lines: Sequence[str],
    *,
    beam: int | None = None,
    device: str = "auto",
    tokenised: bool = False,
) -> list[str]:
    """Translations of lines of text, one a line; that of an empty line is empty.

    model: a student artifact, its directory or URI, its model directory, an export, or the artifact of a left-to-right
    teacher with its corpus beside it. beam: beam size, 1 is greedy; None is the model's own. device: `auto`, `cpu`,
    `cuda` or `cuda:N`. tokenised: lines are Moses tokens, in and out, else raw text. Lines that are longer than the
    model has learned to read are split into sentences and joined again.
    The model is loaded for every call; `open_translator` keeps it. Raises UserError as `open_translator`.
    """
    location = model.uri if isinstance(model, Artifact) else str(model)
    return open_translator(location, beam=beam, device=device, tokenised=tokenised).translate(lines)


def open_translator(
    location: str, *, beam: int | None = None, device: str = "auto", tokenised: bool = False
) -> LineTranslator:
    """Translates lines with what lies at a directory or URI; beam: instead of its own.

    device: `auto`, `cpu`, `cuda` or `cuda:N`. tokenised: lines are Moses tokens (`LineTranslator`). Raises UserError,
    in one line, for what is no model of this package, for a bidirectional teacher, for a device that is not there, and
    for tokens that the model does not know.
    """
    location = expand_home(location)
    options = beam, device, tokenised
    artifact = artifact_at(location)
    if artifact is not None and artifact.stage == FINETUNE.artifact:
        return _teacher_translator(artifact, *options)
    if artifact is not None:
        student = student_at(location)
        with scratch_directory("student-") as scratch:
            return _translator(student.local(MODEL, scratch), settings_of(lineage_of(student)), *options)
    if "://" in location and (store := Store(location)).exists(SETTINGS):
        with scratch_directory("export-") as scratch:
            store.download(scratch)
            return _translator(scratch, _settings_in(scratch), *options)
    directory = Path(location)
    if not directory.is_dir():
        raise UserError(
            f"{location}: there is no such directory; give a student artifact, its model directory, an export, the "
            "artifact of a left-to-right teacher, or a CONFIG.yaml"
        )
    translator = _translator(directory, _settings_in(directory), *options)
    if not (directory / SETTINGS).exists():
        log(f"{directory}: is no export and no artifact; taken for a model of raw text")
    return translator


def _translator(
    directory: Path, settings: LineSettings, beam: int | None, device: str, tokenised: bool
) -> LineTranslator:
    """The translator of the model directory of a student, or of an export."""
    settings = _with_beam(settings, beam)
    if (directory / CT2_MODEL).is_file():
        gpus = require_ctranslate2().get_cuda_device_count()
        engine: Engine = CTranslate2Engine(directory, settings, _device(device, gpus))
    else:
        engine = TorchEngine(directory, settings, _device(device, torch.cuda.device_count()), settings.precision)
    return LineTranslator(engine, load_tokenizer(directory), settings, tokenised=tokenised)


def _teacher_translator(teacher: Artifact, beam: int | None, device: str, tokenised: bool) -> LineTranslator:
    """The translator of a left-to-right teacher; its corpus has the tokenizer."""
    teacher.require_intact("copy the teacher again, or move it elsewhere and run finetune")
    corpus = load_finished(teacher.store, name := f"{PREPARE.artifact}-{teacher.inputs[PREPARE.artifact]}")
    with scratch_directory("teacher-") as scratch:
        model, specials = load_teacher_of(teacher, scratch, _device(device, torch.cuda.device_count()))
        if model.config.direction != "left_to_right":
            raise UserError(
                f"{teacher.display_uri}: a bidirectional teacher cannot translate; give a student of it, or run "
                "finetune with teacher.direction=left_to_right"
            )
        if corpus is None:
            raise UserError(
                f"{teacher.display_uri}: its corpus {name}, which has the tokenizer, is not beside it; copy it there"
            )
        tokenizer = corpus.local(TOKENIZER, scratch)
        positions = int(model.config.max_position_embeddings)
        tree = {key: corpus.info[key] for key in ("src_lang", "tgt_lang", "text")}
        # The translation takes positions too.
        tree["max_tokens"] = min(corpus.config["max_side_tokens"], (positions - SPECIAL_TOKENS_PER_PAIR) // 2)
        tree |= {"positions": positions, "precision": teacher.config["precision"], **_search_of(teacher)}
        settings = _with_beam(LineSettings(**tree), beam)
        engine = TeacherEngine(model, load_bert_ids(tokenizer), specials, settings)
        return LineTranslator(engine, load_tokenizer(tokenizer), settings, tokenised=tokenised)


def _search_of(teacher: Artifact) -> dict[str, Any]:
    """The search of the teacher's newest evaluation; nothing where it has none."""
    evaluations = evaluations_of(teacher)
    return {key: evaluations[-1].config["translate"][key] for key in ("beam", "length_penalty")} if evaluations else {}


def _with_beam(settings: LineSettings, beam: int | None) -> LineSettings:
    return settings if beam is None else validated(LineSettings, {**settings.model_dump(), "beam": beam}, "--beam")


def _settings_in(directory: Path) -> LineSettings:
    """The settings of an export, else the defaults for a student's model directory."""
    if (directory / SETTINGS).is_file():
        return validated(LineSettings, read_json_object(directory / SETTINGS), str(directory / SETTINGS))
    return LineSettings(positions=student_config(directory)["max_position_embeddings"])


def _device(name: str, gpus: int) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if gpus else "cpu")
    kind, _, index = name.partition(":")
    if name != "cpu" and (kind != "cuda" or not (index or "0").isdecimal()):
        raise UserError(f"--device {name}: give auto, cpu, cuda or cuda:N")
    if kind == "cuda" and int(index or 0) >= gpus:
        raise UserError(f"--device {name}: this machine has {gpus} GPUs that can be used; give another, or auto")
    return torch.device(name)
