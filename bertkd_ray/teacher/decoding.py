"""Translation of token ids with a left-to-right teacher.

A position of the translation costs two tokens of BERT a row: the newest target token, whose keys and values are kept,
and the query, a `[MASK]` at the place of the next one (`pseudo_masking`), whose own are not. The last layer keeps keys
and values of the newest token too, and computes the rest of itself for the query alone. The source is read once, and
all rows that continue it read its keys and values from one place (`decoding.attention`). Attention is computed here,
by the plain formula, whatever implementation the model has.

Shapes: N sentences, R rows (N times the beam B, sentence-major), S tokens of the frame `[CLS] src [SEP]`, T target
tokens so far, Q tokens computed a row (1 or 2, the query last), H hidden size, h heads, d size of a head, V tokens of
the student's vocabulary.
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
    are those of `pseudo_masked_batch`, in float32, but for `<pad>` and `<s>`, which never stand in a translation and
    get -inf. The start symbol that a search begins with is not read.
    """

    def __init__(
        self, model: ConditionalMaskedLM, bert_ids_V: Tensor, mask_id: int, frame_NS: Tensor, seen_NS: Tensor
    ) -> None:
        """Read the sources.

        bert_ids_V: int64, the BERT id behind each token. mask_id: BERT's id of `[MASK]`. frame_NS: int64, BERT's ids of
        `[CLS] src [SEP]`, padded at the right; seen_NS: bool, True on tokens.
        """
        self._model, self._bert_ids_V, self._mask_id = model, bert_ids_V, mask_id
        self._never = torch.tensor([PAD_ID, BOS_ID], device=frame_NS.device)
        self._length_R1 = seen_NS.sum(dim=1, keepdim=True)
        self._target_tokens = -1
        self._last_position = int(model.config.max_position_embeddings) - 1
        self._width = 1
        self._seen_N11S = seen_NS[:, None, None]
        self._source: list[tuple[Tensor, Tensor]] = []
        self._target: list[tuple[Tensor, Tensor]] = []
        hidden_NSH = model.bert.embeddings(input_ids=frame_NS, token_type_ids=torch.zeros_like(frame_NS))
        layers: list[Any] = list(model.bert.encoder.layer)
        for layer in layers:
            attention = layer.attention.self
            key_NhSd, value_NhSd = _heads(attention, "key", hidden_NSH), _heads(attention, "value", hidden_NSH)
            self._source.append((key_NhSd, value_NhSd))
            self._target.append((key_NhSd[:, :, :0], value_NhSd[:, :, :0]))
            if layer is not layers[-1]:
                scores_NhSS = _scores(attention, _heads(attention, "query", hidden_NSH), key_NhSd)
                scores_NhSS.masked_fill_(~self._seen_N11S, -torch.inf)
                context_NhSd = torch.matmul(_weights(scores_NhSS, value_NhSd), value_NhSd)
                hidden_NSH = _after_attention(layer, context_NhSd, hidden_NSH)

    def log_probs(self, tokens_R: Tensor) -> Tensor:
        hidden_RQH = self._embed(tokens_R)
        *layers, last = self._model.bert.encoder.layer
        for index, layer in enumerate(layers):
            hidden_RQH = self._compute(index, layer, hidden_RQH, computed=hidden_RQH.shape[1])
        hidden_R1H = self._compute(len(layers), last, hidden_RQH, computed=1)
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
        """[R, Q, H]: the newest token, unless it is the start symbol, and the query after it."""
        self._target_tokens += 1
        ids_RQ = torch.full_like(tokens_R[:, None], self._mask_id)
        # Rows of a finished sentence stay for a while, and may be past the last position.
        position_RQ = (self._length_R1 + self._target_tokens).clamp(max=self._last_position)
        if self._target_tokens:
            ids_RQ = torch.cat([self._bert_ids_V[tokens_R][:, None], ids_RQ], dim=1)
            position_RQ = torch.cat([position_RQ - 1, position_RQ], dim=1)
        hidden_RQH: Tensor = self._model.bert.embeddings(
            input_ids=ids_RQ, token_type_ids=torch.ones_like(ids_RQ), position_ids=position_RQ
        )
        return hidden_RQH

    def _compute(self, index: int, layer: Any, hidden_RQH: Tensor, *, computed: int) -> Tensor:
        """The layer's hidden states for the last `computed` tokens; keeps the newest token's keys and values."""
        attention = layer.attention.self
        key_RhQd, value_RhQd = _heads(attention, "key", hidden_RQH), _heads(attention, "value", hidden_RQH)
        target_key, target_value = (
            torch.cat([kept, new[:, :, :-1]], dim=2)
            for kept, new in zip(self._target[index], (key_RhQd, value_RhQd), strict=True)
        )
        self._target[index] = target_key, target_value
        hidden_RQH = hidden_RQH[:, -computed:]
        query_RhQd = _heads(attention, "query", hidden_RQH)
        source_key_NhSd, source_value_NhSd = self._source[index]
        sentences = len(source_key_NhSd)
        to_source = _scores(attention, _of_sentences(query_RhQd, sentences), source_key_NhSd)
        to_source = _of_rows(to_source.masked_fill_(~self._seen_N11S, -torch.inf), computed)
        to_target = _scores(attention, query_RhQd, target_key)
        to_query = _scores(attention, query_RhQd, key_RhQd[:, :, -1:])
        to_query[:, :, :-1] = -torch.inf
        weights = _weights(torch.cat([to_source, to_target, to_query], dim=-1), value_RhQd)
        of_source, of_target, of_query = weights.split([to_source.shape[-1], to_target.shape[-1], 1], dim=-1)
        context_RhQd = _of_rows(torch.matmul(_of_sentences(of_source, sentences), source_value_NhSd), computed)
        context_RhQd = context_RhQd + torch.matmul(of_target, target_value) + of_query * value_RhQd[:, :, -1:]
        return _after_attention(layer, context_RhQd, hidden_RQH)


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
    but that source, target and the three special tokens share the model's positions: a translation has no more
    tokens, its `</s>` included, than the source leaves, and a source that leaves none (its tokens and `[CLS]` and
    `[SEP]` fill the model) has the one translation [] with score 0, as an empty one.
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
    frame = torch.from_numpy(np.where(column == 0, specials.cls, np.where(column == end, specials.sep, specials.pad)))
    frame = frame.to(model.device)
    frame[torch.from_numpy(is_source).to(model.device)] = bert_ids_V[torch.from_numpy(src.values).to(model.device)]
    return TeacherStep(model, bert_ids_V, specials.mask, frame, torch.from_numpy(column <= end).to(model.device))


def _heads(attention: Any, name: str, hidden_RQH: Tensor) -> Tensor:
    """[R, h, Q, d]: the projection `query`, `key` or `value` of every token."""
    projected_RQhd: Tensor = getattr(attention, name)(hidden_RQH).unflatten(-1, (attention.num_attention_heads, -1))
    return projected_RQhd.transpose(1, 2)


def _scores(attention: Any, query: Tensor, key: Tensor) -> Tensor:
    return torch.matmul(query * attention.scaling, key.transpose(2, 3))


def _weights(scores: Tensor, value: Tensor) -> Tensor:
    return torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)


def _of_sentences(rows_RhQx: Tensor, sentences: int) -> Tensor:
    """[N, h, B * Q, x]: the tokens of all rows that belong to a sentence beside each other."""
    return rows_RhQx.view(sentences, -1, *rows_RhQx.shape[1:]).transpose(1, 2).flatten(2, 3)


def _of_rows(sentences_NhPx: Tensor, tokens: int) -> Tensor:
    """[R, h, Q, x]: what `_of_sentences` laid out, row by row again."""
    sentences, heads, _, size = sentences_NhPx.shape
    return sentences_NhPx.view(sentences, heads, -1, tokens, size).transpose(1, 2).flatten(0, 1)


def _after_attention(layer: Any, context_RhQd: Tensor, hidden_RQH: Tensor) -> Tensor:
    """[R, Q, H]: the rest of a BertLayer, from what its heads have mixed and its own input."""
    attended_RQH = layer.attention.output(context_RhQd.transpose(1, 2).flatten(2), hidden_RQH)
    output_RQH: Tensor = layer.output(layer.intermediate(attended_RQH), attended_RQH)
    return output_RQH
