"""A student's model directory as somebody hands it over: what is checked of it before `transformers` reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from bertkd_ray.config.model_config import Activation, Count, ModelConfig, Share, TokenId, dividing
from bertkd_ray.core.errors import UserError, unreadable_as_user_error

if TYPE_CHECKING:
    import torch
    from transformers import M2M100ForConditionalGeneration


class _StudentShape(ModelConfig):
    """The keys of `config.json` that a student is built from."""

    vocab_size: Count
    max_position_embeddings: Count
    d_model: Count
    encoder_layers: Count
    encoder_ffn_dim: Count
    encoder_attention_heads: Annotated[Count, dividing("d_model")]
    decoder_layers: Count
    decoder_ffn_dim: Count
    decoder_attention_heads: Annotated[Count, dividing("d_model")]
    activation_function: Activation
    pad_token_id: TokenId
    bos_token_id: TokenId
    eos_token_id: TokenId
    decoder_start_token_id: TokenId
    dropout: Share = 0.1
    attention_dropout: Share = 0.1
    activation_dropout: Share = 0.0
    encoder_layerdrop: Share = 0.05
    decoder_layerdrop: Share = 0.05
    init_std: Share = 0.02
    scale_embedding: bool = True
    tie_word_embeddings: bool = True


def load_student(directory: Path, device: torch.device | str = "cpu") -> M2M100ForConditionalGeneration:
    """The model of a `save_pretrained` directory, in evaluation mode on a device; raises as `student_config`."""
    student_config(directory)
    from transformers import AutoModelForSeq2SeqLM

    from bertkd_ray.core.quiet import quiet_transformers

    with quiet_transformers(), unreadable_as_user_error(directory):
        loaded: Any = AutoModelForSeq2SeqLM.from_pretrained(
            directory, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
        model, info = loaded
        if wrong := sorted({*info["missing_keys"], *info["unexpected_keys"]}):
            raise ValueError(f"{wrong[0]} is missing or left over")
        if wrong := [name for name, weight in model.named_parameters() if not weight.isfinite().all()]:
            raise ValueError(f"NaN or infinity in {wrong[0]}")
    student: M2M100ForConditionalGeneration = model.eval().to(device)
    return student


def student_config(directory: Path) -> dict[str, Any]:
    """The `config.json` of a student's model directory.

    Raises UserError for another kind of model, for a value of another type, and for one that names code: a class of
    its own (`auto_map`) or an attention kernel of others. `transformers` would ask on the terminal whether to run it.
    """
    paths = [directory / name for name in ("config.json", "tokenizer_config.json", "generation_config.json")]
    trees = {path: read_json_object(path) for path in paths if path.is_file()}
    config = trees.get(paths[0], {})
    if config.get("model_type") != "m2m_100":
        raise UserError(f"{directory}: is no student of this package; give one, its model directory, or an export")
    for path, tree in trees.items():
        kernels = {str(tree.get(key)) for key in ("attn_implementation", "_attn_implementation")}
        if "auto_map" in tree or kernels - {"None", "eager", "sdpa"}:
            raise UserError(f"{path}: names code of its own, which no student has and which is not run; give another")
    if not (directory / "model.safetensors").is_file():
        raise UserError(f"{directory}: has no model.safetensors; no other form of weights is read, give another")
    _StudentShape.checked(config, str(paths[0]), "make the export again")
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
