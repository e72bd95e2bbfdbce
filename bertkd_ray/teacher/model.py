"""The conditional masked language model: a BERT encoder that predicts target tokens in the student's vocabulary.

Of a bidirectional teacher these are masked; a left-to-right one predicts the token after each of its positions, which
are called masked here all the same.

Shapes: N rows, L padded tokens a row, M masked positions, H hidden size, V tokens of the student's vocabulary.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import BertConfig, BertModel, BertPreTrainedModel
from transformers.models.bert.modeling_bert import BertPredictionHeadTransform

from bertkd_ray.config.sections import LEFT_TO_RIGHT_LAYOUT, TeacherConfig
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.quiet import quiet_transformers
from bertkd_ray.teacher.families import as_bert_state
from bertkd_ray.teacher.last_layer import layer_at, masked_positions
from bertkd_ray.teacher.source import bert_config, own_config, weight_files
from bertkd_ray.training.packed import Packing, attended, projected

_WEIGHTS, _WEIGHT_TYPES = (".weight", ".bias"), {torch.float16, torch.bfloat16, torch.float32, torch.float64}
_TRANSFORM = "cls.predictions.transform."
_OUTPUT = "output."


class _Transform(BertPredictionHeadTransform):
    """BERT's, whose LayerNorm is computed in its own precision: CPU autocast leaves it in the product's bf16."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        activated: Tensor = self.transform_act_fn(self.dense(hidden_states))
        normalised: Tensor = self.LayerNorm(activated.to(self.LayerNorm.weight.dtype))
        return normalised


class ConditionalMaskedLM(BertPreTrainedModel):
    """BERT's encoder and MLM transform, then a linear layer of its own (tied to nothing) over the
    student's vocabulary.

    `config.target_vocab_size` is V; `config.direction`, and `config.layout` of a left-to-right one, say which input it
    was trained on. Parameters have the names of transformers' BERT models (`bert.…`, `cls.predictions.transform.…`), so
    that their checkpoints load here and `AutoModel` loads the encoder of a teacher. Not supported: pooling,
    next-sentence prediction.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        transform = _Transform(config)  # type: ignore[no-untyped-call] # transformers' own
        self.cls = nn.ModuleDict({"predictions": nn.ModuleDict({"transform": transform})})
        self.output = nn.Linear(config.hidden_size, config.target_vocab_size)
        self.post_init()  # type: ignore[no-untyped-call]

    @property
    def transform(self) -> nn.Module:
        """BERT's MLM transform: dense, activation, LayerNorm."""
        return self.get_submodule("cls.predictions.transform")

    def forward(
        self,
        input_ids_NL: Tensor,
        token_type_ids_NL: Tensor,
        attention_mask: Tensor | None,
        masked_index_M: Tensor,
        most: int | None = None,
    ) -> Tensor:
        """Hidden states [M, H] after the transform, at the masked positions alone.

        attention_mask: bool[N, L], False on padding, or bool[N, L, L], True where a token (row) sees another (column);
        None where every token sees all. masked_index_M: int64, positions in the flattened [N * L] input. most: masked
        positions of the row that has most of them; a GPU is waited for to find it out. The other arguments are those of
        BERT.
        """
        hidden_NLH = self.bert.embeddings(input_ids=input_ids_NL, token_type_ids=token_type_ids_NL)
        mask = None if attention_mask is None else self._mask(attention_mask, hidden_NLH.dtype)
        *layers, last = self.bert.encoder.layer
        for layer in layers:
            hidden_NLH = layer(hidden_NLH, mask)
        hidden_MH: Tensor = self.transform(masked_positions(last, hidden_NLH, mask, masked_index_M, most))
        return hidden_MH

    def packed(self, inputs: tuple[Tensor, ...], attention_mask: Tensor | None, index_P: Tensor, most: int) -> Tensor:
        """What `forward` gives, up to rounding, from hidden states without padding, which attention alone sees.

        inputs: `input_ids_NL`, `token_type_ids_NL`, `masked_index_M`. index_P: int64, rising: positions of the tokens
        in the flattened [N * L] input. Dropout is drawn for these.
        """
        input_ids_NL, _, masked_index_M = inputs
        sequences, length = input_ids_NL.shape
        packing = Packing(index_P, sequences, length, self.config.num_attention_heads)
        ids_R, types_R = (packing.filled(part.flatten().index_select(0, index_P)) for part in inputs[:2])
        (hidden_RH,) = self.bert.embeddings(
            input_ids=ids_R[None], token_type_ids=types_R[None], position_ids=packing.filled(packing.column_P)[None]
        )
        mask = None if attention_mask is None else self._mask(attention_mask, hidden_RH.dtype)
        layers: list[Any] = list(self.bert.encoder.layer)
        last = layers.pop()
        for layer in layers:
            attention = layer.attention.self
            share = attention.dropout.p if self.training else 0.0
            states = packing.padded(projected(hidden_RH, attention.query, attention.key, attention.value), 3)
            context_RH = packing.packed(attended(attention, states, mask, share))
            attended_RH = layer.attention.output(context_RH, hidden_RH)
            hidden_RH = layer.output(layer.intermediate(attended_RH), attended_RH)
        attention = last.attention.self
        keys_values = packing.padded(projected(hidden_RH, attention.key, attention.value), 2)
        hidden_MH = hidden_RH.index_select(0, packing.rows_at(masked_index_M))
        transformed_MH: Tensor = self.transform(layer_at(last, hidden_MH, keys_values, mask, masked_index_M, most))
        return transformed_MH

    def _mask(self, seen: Tensor, dtype: torch.dtype) -> Tensor:
        """[N, 1, 1 or L, L], with the numbers of transformers, which waits for a GPU to find out if it is needed."""
        if seen.dim() == 3:
            return torch.where(seen, 0.0, -1e9).to(dtype)[:, None]
        seen = seen[:, None, None]
        if self.config._attn_implementation == "sdpa":
            return seen.expand(-1, -1, seen.shape[-1], -1)
        return torch.where(seen, torch.zeros((), dtype=dtype, device=seen.device), torch.finfo(dtype).min)

    def logits(self, hidden_MH: Tensor) -> Tensor:
        """Unnormalised scores [M, V] over the student's vocabulary."""
        logits_MV: Tensor = self.output(hidden_MH)
        return logits_MV


def build_teacher(
    model_path: str | Path,
    bert_ids: NDArray[np.integer],
    teacher: TeacherConfig,
    *,
    attention: str = "eager",
    seed: int = 0,
) -> ConditionalMaskedLM:
    """A teacher from the directory of a BERT, or of a model that is one under other names, in float32, training mode.

    bert_ids: int32[V], the BERT id behind each token; its input embedding initialises the token's output row (the bias
    starts at zero). teacher: its layers, dropouts and direction; not `pretrained`, all weights
    are drawn from `seed` by the configuration alone. attention: "eager" or "sdpa"; with padding and bf16 on a CPU,
    eager is 4 to 6 times faster (166 against 692 ms for 4,080 tokens of a six-layer MiniLM on two cores).

    Raises UserError when the directory is no BERT, has no usable safetensors weights, or has fewer layers.
    """
    directory = Path(model_path)
    config = BertConfig.from_dict(bert_config(directory))
    available = config.num_hidden_layers
    layers = teacher.layers or available
    if layers > available:
        raise UserError(f"teacher.layers: {directory} has {available} layers; choose 1 to {available}, not {layers}")
    if len(bert_ids) == 0 or int(bert_ids.min()) < 0 or int(bert_ids.max()) >= config.vocab_size:
        raise UserError(
            f"teacher.model: the corpus was prepared with another BERT: its ids reach {bert_ids.max(initial=-1)}, "
            f"{directory} has {config.vocab_size}; prepare the corpus again with this model"
        )
    config.num_hidden_layers = layers
    if teacher.dropout is not None:
        config.hidden_dropout_prob = teacher.dropout
    config.attention_probs_dropout_prob = teacher.attention_dropout
    config.target_vocab_size = len(bert_ids)
    config.direction = teacher.direction
    if teacher.layout:
        config.layout = teacher.layout
    config.tie_word_embeddings = False
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if teacher.pretrained:
            model = _load_pretrained(directory, config, attention)
        else:
            model = ConditionalMaskedLM._from_config(config, attn_implementation=attention, dtype=torch.float32)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        rows = torch.from_numpy(bert_ids.astype(np.int64))
        model.output.weight.copy_(model.bert.get_input_embeddings().weight[rows])
        model.output.bias.zero_()
    model.train()
    return model


def load_teacher(directory: str | Path, *, attention: str = "eager") -> ConditionalMaskedLM:
    """A teacher that `save_pretrained` wrote, in float32 and evaluation mode. Raises UserError when it is none.

    attention: "eager" or "sdpa", see `build_teacher`.
    """
    config = {"direction": "both", **own_config(directory), **bert_config(directory)}
    if "target_vocab_size" not in config:
        raise UserError(
            f"{directory} is a BERT but not a trained teacher (no target_vocab_size); run the finetune stage"
        )
    is_left_to_right = config["direction"] == "left_to_right" or config.get("left_to_right")
    if is_left_to_right and config.get("layout") != LEFT_TO_RIGHT_LAYOUT:
        raise UserError(f"{directory} reads text from left to right as earlier versions did; run finetune again")
    model, missing = _from_pretrained(Path(directory), BertConfig.from_dict(config), attention)
    if missing:
        raise UserError(
            f"{directory} is not a complete teacher: {missing[0]} is missing or misshapen; run finetune again"
        )
    return model


def _load_pretrained(directory: Path, config: BertConfig, attention: str) -> ConditionalMaskedLM:
    model, missing = _from_pretrained(directory, config, attention)
    transform: Any = model.transform
    without = [key for key in missing if key.startswith(_TRANSFORM)]
    lost = [key for key in missing if not key.startswith((_TRANSFORM, _OUTPUT))]
    if len(without) < len(list(transform.parameters())):
        lost += without
    if lost:
        raise UserError(f"teacher.model: {directory} lacks a {lost[0]} of the configured shape; name a complete BERT")
    if without:
        # A checkpoint without MLM head (sentence encoders) has lost its transform. A random one would rotate the hidden
        # states away from the input embeddings, where the output layer starts; the identity keeps both in one space.
        nn.init.eye_(transform.dense.weight)
        nn.init.zeros_(transform.dense.bias)
        nn.init.ones_(transform.LayerNorm.weight)
        nn.init.zeros_(transform.LayerNorm.bias)
    return model


def _from_pretrained(directory: Path, config: BertConfig, attention: str) -> tuple[ConditionalMaskedLM, list[str]]:
    """The model in evaluation mode; the sorted names of parameters that its files lack or have in another shape."""
    state: dict[str, Tensor] = {}
    for path in weight_files(directory):
        try:
            state.update(part := load_file(path))
        except (OSError, SafetensorError) as error:
            raise UserError(f"teacher.model: {path} is damaged ({error}); fetch or save the model again") from error
        for key, weight in part.items():
            if key.endswith(_WEIGHTS) and weight.dtype not in _WEIGHT_TYPES:
                kind = str(weight.dtype).removeprefix("torch.")
                raise UserError(
                    f"teacher.model: {directory} holds {key} as {kind}, quantised, which is not supported; name a BERT "
                    "in float32, float16 or bfloat16"
                )
            if weight.dtype in _WEIGHT_TYPES and not weight.isfinite().all():
                raise UserError(f"teacher.model: {path} holds NaN or infinity in {key}; fetch or save the model again")
    with quiet_transformers():
        loaded: Any = ConditionalMaskedLM.from_pretrained(
            None,
            trust_remote_code=False,
            config=config,
            state_dict=as_bert_state(state, own_config(directory)),
            attn_implementation=attention,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    model, info = loaded
    return model, sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
