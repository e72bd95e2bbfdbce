"""Translation of token ids with an encoder-decoder of `transformers`.

The encoder runs once a batch; the decoder keeps its keys and values, so that a position costs one query a row. Shapes:
N sentences, R rows (N times the beam), S source tokens, V vocabulary.
"""

from functools import partial

import numpy as np
import torch
from torch import Tensor
from transformers import M2M100ForConditionalGeneration
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from bertkd_ray.core.devices import Precision
from bertkd_ray.core.padding import padded_length
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.decoding.attention import shared_keys
from bertkd_ray.decoding.batches import PAD_TO, Translation, length_limits, translate_rows
from bertkd_ray.decoding.beam_search import Step


class Seq2SeqStep(Step):
    """The `Step` of one batch of sources: next-token log-probabilities by a cached decoder.

    Construct it, and search with it, without gradients, with the model in eval mode and `shared_keys`: a source is kept
    once, however many rows continue it. `<pad>` and `<s>` never stand in a translation and get log-probability -inf;
    the others' log-probabilities are the model's own, in float32.
    """

    def __init__(self, model: M2M100ForConditionalGeneration, source_NS: Tensor, mask_NS: Tensor) -> None:
        """Encode `source_NS`, int64 padded at the right; `mask_NS` is True on tokens."""
        self._decoder = model.get_decoder()
        self._project = model.get_output_embeddings()
        never = {_special_id(model, "pad_token_id"), _special_id(model, "bos_token_id")}
        never.discard(_special_id(model, "eos_token_id"))
        self._never = torch.tensor(sorted(never), device=source_NS.device)
        self._encoded_NSD = model.get_encoder()(input_ids=source_NS, attention_mask=mask_NS).last_hidden_state
        self._mask_N11S = mask_NS[:, None, None]
        self._width = 1
        self._cache = EncoderDecoderCache(DynamicCache(config=model.config), DynamicCache(config=model.config))

    def log_probs(self, tokens_R: Tensor) -> Tensor:
        return torch.log_softmax(self.logits(tokens_R).float(), dim=-1).index_fill_(1, self._never, -torch.inf)

    def logits(self, tokens_R: Tensor) -> Tensor:
        """[R, V] of the next token, those that never stand in a translation among it."""
        hidden_R1D = self._decoder(
            input_ids=tokens_R[:, None],
            encoder_hidden_states=self._encoded_NSD,
            encoder_attention_mask=self._mask_N11S,
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state
        logits_RV: Tensor = self._project(hidden_R1D[:, -1])
        return logits_RV

    def reorder(self, rows_R: Tensor) -> None:
        self._cache.self_attention_cache.batch_select_indices(rows_R)

    def keep(self, rows_NB: Tensor) -> None:
        self._cache.self_attention_cache.batch_select_indices(rows_NB.flatten())
        sentences = rows_NB[:, 0] // self._width
        self._width = rows_NB.shape[1]
        if len(sentences) < len(self._encoded_NSD):
            self._cache.cross_attention_cache.batch_select_indices(sentences)
            self._encoded_NSD, self._mask_N11S = self._encoded_NSD[sentences], self._mask_N11S[sentences]


def translate_ids(
    model: M2M100ForConditionalGeneration,
    src: Ragged,
    *,
    beam: int = 5,
    alpha: float = 0.6,
    max_length_factor: float = 2.0,
    max_length_offset: int = 10,
    n_best: int = 1,
    batch_tokens: int = 4096,
    precision: Precision = "float32",
) -> list[list[Translation]]:
    """Translate every row of `src`; per row, in input order, up to `n_best` translations, best first.

    src: source tokens without special tokens; the encoder reads each row with `</s>` appended, as in training. An empty
    row has the one translation [] with score 0. beam: 1 is greedy search. alpha: of the GNMT length penalty, see
    `beam_search.length_penalty`. A translation has at most `max_length_factor` * source tokens + `max_length_offset`
    tokens (its `</s>` included), and no more than the model has positions. batch_tokens: padded source tokens times
    beam in a batch. precision: `bf16` computes matrix products in bfloat16 (autocast).
    The model's training mode is left as it was. Raises ValueError for `n_best` not between 1 and `beam`.
    """
    positions = model.config.max_position_embeddings
    with shared_keys(model):
        return translate_rows(
            model,
            src,
            partial(_begin, model),
            length_limits(src.lengths, positions, max_length_factor, max_length_offset),
            bos=_special_id(model, "decoder_start_token_id"),
            eos=_special_id(model, "eos_token_id"),
            pad=_special_id(model, "pad_token_id"),
            beam=beam,
            alpha=alpha,
            n_best=n_best,
            batch_tokens=batch_tokens,
            precision=precision,
        )


def _special_id(model: M2M100ForConditionalGeneration, name: str) -> int:
    value = getattr(model.config, name)
    if not isinstance(value, int):
        raise ValueError(f"the model's configuration must name one {name}, it has {value!r}")
    return value


def _begin(model: M2M100ForConditionalGeneration, src: Ragged) -> Seq2SeqStep:
    pad, eos = _special_id(model, "pad_token_id"), _special_id(model, "eos_token_id")
    column = np.arange(padded_length(int(src.lengths.max()) + 1, PAD_TO))
    ends = src.lengths[:, None]
    ids = np.where(column == ends, eos, pad)
    ids[column < ends] = src.values
    mask = column <= ends
    return Seq2SeqStep(model, torch.from_numpy(ids).to(model.device), torch.from_numpy(mask).to(model.device))
