"""Models that are a BERT under other names: what their configuration and their parameters are called in BERT.

| model type | differs from BERT in | becomes BERT by |
| --- | --- | --- |
| `distilbert` | names; no token types | token-type embeddings of zero, which training may then fill |
| `ernie` | names; perhaps a task embedding of every token | adding the embedding of task 0 to the token types |

Both are exact: the hidden states are those of the model's own class. Not supported: anything that computes otherwise
(other positions, normalisation before the layers, shared or factorised parameters).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from bertkd_ray.config.model_config import Activation, Count, ModelConfig, Share, TokenId, dividing

if TYPE_CHECKING:
    from torch import Tensor

FAMILIES = ("bert", "distilbert", "ernie")


class BertShape(ModelConfig):
    """The keys of a BERT's `config.json` that a teacher is built from."""

    vocab_size: Count
    hidden_size: Count
    num_hidden_layers: Count
    max_position_embeddings: Count
    num_attention_heads: Annotated[Count, dividing("hidden_size")] = 12
    intermediate_size: Count = 3072
    type_vocab_size: Count = 2
    hidden_act: Activation = "gelu"
    hidden_dropout_prob: Share = 0.1
    attention_probs_dropout_prob: Share = 0.1
    initializer_range: Share = 0.02
    layer_norm_eps: Share = 1e-12
    pad_token_id: TokenId | None = 0


_DISTILBERT_CONFIG: dict[str, tuple[str, Any]] = {
    "vocab_size": ("vocab_size", 30522),
    "hidden_size": ("dim", 768),
    "num_hidden_layers": ("n_layers", 6),
    "num_attention_heads": ("n_heads", 12),
    "intermediate_size": ("hidden_dim", 3072),
    "hidden_act": ("activation", "gelu"),
    "hidden_dropout_prob": ("dropout", 0.1),
    "attention_probs_dropout_prob": ("attention_dropout", 0.1),
    "max_position_embeddings": ("max_position_embeddings", 512),
    "initializer_range": ("initializer_range", 0.02),
    "pad_token_id": ("pad_token_id", 0),
}
"""BERT's key: DistilBERT's, and its value where the file does not give one."""

_PARAMETERS: dict[str, tuple[tuple[str, str], ...]] = {
    "bert": (),
    "distilbert": (
        (r"^(?:distilbert\.)?embeddings\.", "bert.embeddings."),
        (r"^(?:distilbert\.)?transformer\.layer\.", "bert.encoder.layer."),
        (r"\.attention\.q_lin\.", ".attention.self.query."),
        (r"\.attention\.k_lin\.", ".attention.self.key."),
        (r"\.attention\.v_lin\.", ".attention.self.value."),
        (r"\.attention\.out_lin\.", ".attention.output.dense."),
        (r"\.sa_layer_norm\.", ".attention.output.LayerNorm."),
        (r"\.ffn\.lin1\.", ".intermediate.dense."),
        (r"\.ffn\.lin2\.", ".output.dense."),
        (r"\.output_layer_norm\.", ".output.LayerNorm."),
        (r"^vocab_transform\.", "cls.predictions.transform.dense."),
        (r"^vocab_layer_norm\.", "cls.predictions.transform.LayerNorm."),
    ),
    "ernie": ((r"^(?:ernie\.)?(embeddings|encoder)\.", r"bert.\1."),),
}
"""Rewritings of parameter names, applied in this order."""

_EMBEDDINGS = ("word", "token_type", "task_type")
_WORDS, _TOKEN_TYPES, _TASKS = (f"bert.embeddings.{name}_embeddings.weight" for name in _EMBEDDINGS)


def as_bert_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The `config.json` of a model of one of `FAMILIES` as that of a BERT."""
    if config["model_type"] == "distilbert":
        renamed = {key: config.get(name, default) for key, (name, default) in _DISTILBERT_CONFIG.items()}
        return {**renamed, "layer_norm_eps": 1e-12, "type_vocab_size": 2, "model_type": "bert"}
    return {**config, "model_type": "bert"}


def own_key(key: str, family: str) -> str:
    """What a family calls one of BERT's keys."""
    return _DISTILBERT_CONFIG.get(key, (key,))[0] if family == "distilbert" else key


def as_bert_state(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The parameters of a checkpoint under BERT's names; `config` is the model's own `config.json`.

    Parameters that BERT has not keep some name of their own.
    """
    family = config["model_type"]
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in _PARAMETERS[family]:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    if family == "distilbert" and _WORDS in renamed:
        words_VH = renamed[_WORDS]
        renamed[_TOKEN_TYPES] = words_VH.new_zeros(2, words_VH.shape[1])
    if family == "ernie" and config.get("use_task_id") and _TASKS in renamed and _TOKEN_TYPES in renamed:
        renamed[_TOKEN_TYPES] = renamed[_TOKEN_TYPES].float() + renamed.pop(_TASKS)[0].float()
    return renamed
