"""Translation of token ids with a left-to-right teacher.

A position of the translation costs one token of BERT a row: the newest target token, which predicts the next one and
whose keys and values are kept (`prefix_lm`). The source is read once, in the last layer for its keys and values and for
`[SEP]`, which predicts the first token; all rows that continue it read its keys and values from one place
(`decoding.attention`). Attention is computed here, by the plain formula, whatever implementation the model has.

Shapes: N sentences, R rows (N times the beam B, sentence-major), S tokens of the prefix `[CLS] src [SEP]`, T target
tokens so far, H hidden size, h heads, d size of a head, x either size of a matrix, V tokens of the student's
vocabulary.
"""

from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bertkd_ray.core.devices import Precision
from bertkd_ray.core.padding import padded_length
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.corpus.tokenizer import BOS_ID, EOS_ID, PAD_ID
from bertkd_ray.decoding.batches import PAD_TO, Translation, length_limits, translate_rows
from bertkd_ray.decoding.beam_search import Step
from bertkd_ray.teacher.masking import BertSpecials
from bertkd_ray.teacher.model import ConditionalMaskedLM


class TeacherStep(Step):
    """The `Step` of one batch of sources for a left-to-right teacher.

    Construct it, and search with it, without gradients and with the model in evaluation mode. The log-probabilities
    are those of `prefix_lm_batch`, in float32, but for `<pad>` and `<s>`, which never stand in a translation and get
    -inf. The start symbol that a search begins with is not read: its state is that of `[SEP]`.
    """

    def __init__(self, model: ConditionalMaskedLM, bert_ids_V: Tensor, prefix_NS: Tensor, seen_NS: Tensor) -> None:
        """Read the sources.

        bert_ids_V: int64, the BERT id behind each token. prefix_NS: int64, BERT's ids of `[CLS] src [SEP]`, padded at
        the right; seen_NS: bool, True on tokens.
        """
        self._model, self._bert_ids_V = model, bert_ids_V
        self._never = torch.tensor([PAD_ID, BOS_ID], device=prefix_NS.device)
        self._length_R1 = seen_NS.sum(dim=1, keepdim=True)
        self._target_tokens = 0
        self._last_position = int(model.config.max_position_embeddings) - 1
        self._width = 1
        self._seen_N11S = seen_NS[:, None, None]
        self._source: list[tuple[Tensor, Tensor]] = []
        self._target: list[tuple[Tensor, Tensor]] = []
        hidden_NSH = model.bert.embeddings(input_ids=prefix_NS, token_type_ids=torch.zeros_like(prefix_NS))
        layers: list[Any] = list(model.bert.encoder.layer)
        for layer in layers:
            attention = layer.attention.self
            key_NhSd, value_NhSd = _heads(attention, "key", hidden_NSH), _heads(attention, "value", hidden_NSH)
            self._source.append((key_NhSd, value_NhSd))
            self._target.append((key_NhSd[:, :, :0], value_NhSd[:, :, :0]))
            if layer is layers[-1]:
                hidden_NSH = hidden_NSH.take_along_dim(self._length_R1[:, :, None] - 1, dim=1)
            scores_NhSS = _scores(attention, _heads(attention, "query", hidden_NSH), key_NhSd)
            scores_NhSS.masked_fill_(~self._seen_N11S, -torch.inf)
            context_NhSd = torch.matmul(_weights(scores_NhSS, value_NhSd), value_NhSd)
            hidden_NSH = _after_attention(layer, context_NhSd, hidden_NSH)
        self._first_N1H: Tensor | None = hidden_NSH

    def log_probs(self, tokens_R: Tensor) -> Tensor:
        hidden_R1H, self._first_N1H = self._first_N1H, None
        if hidden_R1H is None:
            hidden_R1H = self._embed(tokens_R)
            for index, layer in enumerate(self._model.bert.encoder.layer):
                hidden_R1H = self._compute(index, layer, hidden_R1H)
        logits_RV = self._model.logits(self._model.transform(hidden_R1H[:, 0]))
        return torch.log_softmax(logits_RV.float(), dim=-1).index_fill_(1, self._never, -torch.inf)

    def reorder(self, rows_R: Tensor) -> None:
        self._target = [(key[rows_R], value[rows_R]) for key, value in self._target]

    def keep(self, rows_NB: Tensor) -> None:
        rows_R, sentences = rows_NB.flatten(), rows_NB[:, 0] // self._width
        self._width = rows_NB.shape[1]
        self.reorder(rows_R)
        self._length_R1 = self._length_R1[rows_R]
        if len(sentences) < len(self._seen_N11S):
            self._seen_N11S = self._seen_N11S[sentences]
            self._source = [(key[sentences], value[sentences]) for key, value in self._source]

    def _embed(self, tokens_R: Tensor) -> Tensor:
        """[R, 1, H]"""
        ids_R1 = self._bert_ids_V[tokens_R][:, None]
        # Rows of a finished sentence stay for a while, and may be past the last position.
        position_R1 = (self._length_R1 + self._target_tokens).clamp(max=self._last_position)
        self._target_tokens += 1
        hidden_R1H: Tensor = self._model.bert.embeddings(
            input_ids=ids_R1, token_type_ids=torch.ones_like(ids_R1), position_ids=position_R1
        )
        return hidden_R1H

    def _compute(self, index: int, layer: Any, hidden_R1H: Tensor) -> Tensor:
        """The layer's hidden states of the newest tokens; keeps their keys and values."""
        attention = layer.attention.self
        key_RhTd, value_RhTd = (
            torch.cat([kept, _heads(attention, name, hidden_R1H)], dim=2)
            for name, kept in zip(("key", "value"), self._target[index], strict=True)
        )
        self._target[index] = key_RhTd, value_RhTd
        query_Rh1d = _heads(attention, "query", hidden_R1H)
        source_key_NhSd, source_value_NhSd = self._source[index]
        sentences = len(source_key_NhSd)
        to_source = _scores(attention, _of_sentences(query_Rh1d, sentences), source_key_NhSd)
        to_source = _of_rows(to_source.masked_fill_(~self._seen_N11S, -torch.inf))
        to_target = _scores(attention, query_Rh1d, key_RhTd)
        weights = _weights(torch.cat([to_source, to_target], dim=-1), value_RhTd)
        of_source, of_target = weights.split([to_source.shape[-1], to_target.shape[-1]], dim=-1)
        context_Rh1d = _of_rows(torch.matmul(_of_sentences(of_source, sentences), source_value_NhSd))
        return _after_attention(layer, context_Rh1d + torch.matmul(of_target, value_RhTd), hidden_R1H)


def translate_ids(
    model: ConditionalMaskedLM,
    bert_ids: NDArray[np.integer],
    specials: BertSpecials,
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

    model: a left-to-right teacher. bert_ids: integers [V], the BERT id behind each token. src: source tokens (the
    student's) without special tokens. The other arguments, and what is returned, are those of `seq2seq.translate_ids`,
    but that `[CLS]`, source, `[SEP]` and translation share the model's positions: a translation has no more tokens, its
    `</s>` included, than the source leaves, and a source that leaves none has the one translation [] with score 0, as
    an empty one.
    The model's training mode is left as it was. Raises ValueError for a model that is not left-to-right, and for
    `n_best` not between 1 and `beam`.
    """
    if model.config.direction != "left_to_right":
        raise ValueError(f"a teacher of direction {model.config.direction!r} cannot translate; left_to_right can")
    free = (model.config.max_position_embeddings - src.lengths - 2).clip(0)
    limits = length_limits(src.lengths, model.config.max_position_embeddings, max_length_factor, max_length_offset)
    bert_ids_V = torch.from_numpy(bert_ids.astype(np.int64)).to(model.device)
    return translate_rows(
        model,
        src,
        partial(_begin, model, bert_ids_V, specials),
        np.minimum(limits, free),
        bos=BOS_ID,
        eos=EOS_ID,
        pad=PAD_ID,
        beam=beam,
        alpha=alpha,
        n_best=n_best,
        batch_tokens=batch_tokens,
        precision=precision,
    )


def _begin(model: ConditionalMaskedLM, bert_ids_V: Tensor, specials: BertSpecials, src: Ragged) -> TeacherStep:
    positions = int(model.config.max_position_embeddings)
    width = min(padded_length(int(src.lengths.max()) + 2, PAD_TO), positions)
    column, end = np.arange(width), src.lengths[:, None] + 1
    is_source = (column > 0) & (column < end)
    prefix = torch.from_numpy(np.where(column == 0, specials.cls, np.where(column == end, specials.sep, specials.pad)))
    prefix = prefix.to(model.device)
    prefix[torch.from_numpy(is_source).to(model.device)] = bert_ids_V[torch.from_numpy(src.values).to(model.device)]
    return TeacherStep(model, bert_ids_V, prefix, torch.from_numpy(column <= end).to(model.device))


def _heads(attention: Any, name: str, hidden_RTH: Tensor) -> Tensor:
    """[R, h, T, d]: the projection `query`, `key` or `value` of every token."""
    projected_RThd: Tensor = getattr(attention, name)(hidden_RTH).unflatten(-1, (attention.num_attention_heads, -1))
    return projected_RThd.transpose(1, 2)


def _scores(attention: Any, query: Tensor, key: Tensor) -> Tensor:
    return torch.matmul(query * attention.scaling, key.transpose(2, 3))


def _weights(scores: Tensor, value: Tensor) -> Tensor:
    return torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)


def _of_sentences(rows_Rh1x: Tensor, sentences: int) -> Tensor:
    """[N, h, B, x]: the rows of a sentence beside each other."""
    return rows_Rh1x.view(sentences, -1, *rows_Rh1x.shape[1:]).squeeze(3).transpose(1, 2)


def _of_rows(sentences_NhBx: Tensor) -> Tensor:
    """[R, h, 1, x]: what `_of_sentences` laid out, row by row again."""
    return sentences_NhBx.transpose(1, 2).flatten(0, 1).unsqueeze(2)


def _after_attention(layer: Any, context_RhTd: Tensor, hidden_RTH: Tensor) -> Tensor:
    """[R, T, H]: the rest of a BertLayer, from what its heads have mixed and its own input."""
    attended_RTH = layer.attention.output(context_RhTd.transpose(1, 2).flatten(2), hidden_RTH)
    output_RTH: Tensor = layer.output(layer.intermediate(attended_RTH), attended_RTH)
    return output_RTH
