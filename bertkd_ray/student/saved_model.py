"""A student's model directory as somebody hands it over: what is checked of it before `transformers` reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertkd_ray.core.errors import UserError

if TYPE_CHECKING:
    import torch
    from transformers import M2M100ForConditionalGeneration


def load_student(directory: Path, device: torch.device | str = "cpu") -> M2M100ForConditionalGeneration:
    """The model of a `save_pretrained` directory, in evaluation mode on a device; raises as `student_config`."""
    student_config(directory)
    from transformers import AutoModelForSeq2SeqLM

    from bertkd_ray.core.quiet import quiet_transformers

    with quiet_transformers():
        model: Any = AutoModelForSeq2SeqLM.from_pretrained(directory, trust_remote_code=False)
    student: M2M100ForConditionalGeneration = model.eval().to(device)
    return student


def student_config(directory: Path) -> dict[str, Any]:
    """The `config.json` of a student's model directory.

    Raises UserError for another kind of model, and for one that names code: a class of its own (`auto_map`) or an
    attention kernel of the hub. `transformers` would ask on the terminal whether to run it.
    """
    paths = directory / "config.json", directory / "tokenizer_config.json"
    config, tokenizer = (read_json_object(path) if path.is_file() else {} for path in paths)
    if config.get("model_type") != "m2m_100":
        raise UserError(f"{directory}: is no student of this package; give one, its model directory, or an export")
    for path, tree in zip(paths, (config, tokenizer), strict=True):
        kernels = (str(tree.get(key, "")) for key in ("attn_implementation", "_attn_implementation"))
        if "auto_map" in tree or any("/" in kernel for kernel in kernels):
            raise UserError(f"{path}: names code of its own, which no student has and which is not run; give another")
    return config


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON object of a model directory. Raises UserError for anything else."""
    try:
        tree = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise UserError(f"{path}: not JSON; make the export again") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: not a JSON object; make the export again")
    return tree
