"""Other ways to search: the best tokens of a beam from its logits, no look at the GPU, and a cache of one size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, EncoderDecoderCache, StaticCache

from benchmarks.gpu_rates import Rates
from benchmarks.gpu_results import ResultTable
from benchmarks.gpu_setting import GpuSetting
from benchmarks.gpu_translate import BEAM, translations
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.decoding import beam_search, seq2seq
from bertkd_ray.decoding.seq2seq import Seq2SeqStep
from bertkd_ray.softlabels.gpu_topk import logsumexp_of

LOOK_EVERY = 4
"""Positions between two looks at which sentences are finished."""


@dataclass(frozen=True)
class Search:
    """How a search differs from the product's."""

    topk_first: bool = False
    """The best tokens of each beam from its logits, and only their log-probabilities."""
    few_looks: bool = False
    """No boolean index and no look at what has ended, but for every fourth position."""
    static: bool = False
    """Keys and values of the decoder in tensors of one size, as long as the source."""


SEARCHES = {
    "as today": Search(),
    "top-k of logits first": Search(topk_first=True),
    "few looks": Search(few_looks=True),
    "static cache": Search(static=True),
    "all of these": Search(topk_first=True, few_looks=True, static=True),
}


def measure(setting: GpuSetting, results: ResultTable) -> None:
    """Output tokens a second; translations of random weights are cut at the number of their source tokens."""
    model = setting.student(dropout=0.0, attention="eager").eval()
    source = setting.pairs[0].take(np.arange(setting.sizes.sentences[0]))
    rates = Rates(results, setting.device, f"translate, beam {BEAM}", "tokens/s", float(source.lengths.sum()))
    for name, search in SEARCHES.items():
        rates.add(name, partial(_searching, setting, model, source, search))


@contextmanager
def _searching(setting: GpuSetting, model: Any, source: Ragged, search: Search) -> Iterator[Callable[[], object]]:
    with in_effect(search):
        yield partial(translations, setting, model, source)


@contextmanager
def in_effect(search: Search) -> Iterator[None]:
    """The product's search goes this way within the block."""
    with ExitStack() as changes:
        if search.topk_first or search.static:
            step = partial(VariantStep, static=search.static)
            changes.enter_context(patch.object(seq2seq, "Seq2SeqStep", step))
        kind = {
            (True, False): TopkFirst,
            (False, True): FewLooks,
            (True, True): TopkFirstFewLooks,
        }.get((search.topk_first, search.few_looks))
        if kind:
            changes.enter_context(patch.object(beam_search, "_BeamSearch", kind))
        yield


class VariantStep(Seq2SeqStep):
    """Keeps keys and values of the decoder's own tokens in tensors of one size, if asked."""

    def __init__(self, model: Any, source_NS: Tensor, mask_NS: Tensor, *, static: bool) -> None:
        super().__init__(model, source_NS, mask_NS)
        self._static = static
        if static:
            own: Any = StaticCache(config=model.config, max_cache_len=source_NS.shape[1])
            self._cache = EncoderDecoderCache(own, DynamicCache(config=model.config))

    def reorder(self, rows_R: Tensor) -> None:
        if not self._static:
            super().reorder(rows_R)
            return
        layers: Any = self._cache.self_attention_cache.layers
        for layer in layers:
            layer.keys, layer.values = layer.keys.index_select(0, rows_R), layer.values.index_select(0, rows_R)

    def keep(self, rows_NB: Tensor) -> None:
        if not self._static:
            super().keep(rows_NB)
            return
        self.reorder(rows_NB.flatten())
        with patch.object(self._cache.self_attention_cache, "batch_select_indices", lambda rows: None, create=True):
            super().keep(rows_NB)


class TopkFirst(beam_search._BeamSearch):
    """The best continuations are among the best ones of each beam, which the logits already order."""

    def _extend(self, length: int) -> Tensor:
        sentences, width = self._sum_NB.shape
        step: Any = self._step
        logits_RV = step.logits(self._tokens_NBL[:, :, -1].flatten())
        logsumexp_R = logsumexp_of(logits_RV)
        logits_RV = logits_RV.index_fill_(1, step._never, -torch.inf)
        if length <= self._min_length:
            logits_RV[:, self._eos] = -torch.inf
        kept = min(self._beam, logits_RV.shape[1])
        logits_Rk, token_Rk = logits_RV.topk(kept, dim=1)
        log_probs_Rk = logits_Rk.float() - logsumexp_R[:, None]
        sum_NBk = log_probs_Rk.view(sentences, width, kept) + self._sum_NB[..., None]
        self._sum_NB, flat_NB = sum_NBk.flatten(1).topk(min(self._beam, width * kept), dim=1)
        row_NB = torch.arange(0, sentences * width, width, device=flat_NB.device)[:, None] + flat_NB // kept
        token_NB1 = token_Rk.view(sentences, -1).gather(1, flat_NB)[..., None]
        self._tokens_NBL = torch.cat([self._tokens_NBL.flatten(0, 1)[row_NB], token_NB1], dim=2)
        return row_NB


class FewLooks(beam_search._BeamSearch):
    """Whether something ended is not asked: what did not is offered with a score of -inf."""

    def run(self) -> None:
        for length in range(1, int(self._limit_N.max()) + 1):
            width = self._sum_NB.shape[1]
            row_NB = self._extend(length)
            self._store_ended(length)
            if length % LOOK_EVERY == 0:
                open_N = self._open_N.nonzero().squeeze(1)
                if len(open_N) == 0:
                    return
                if len(open_N) <= beam_search._COMPACT_AT * len(row_NB):
                    self._step.keep(row_NB[open_N])
                    for name in ("_sum_NB", "_tokens_NBL", "_sentence_N", "_limit_N", "_top_ended_N", "_open_N"):
                        setattr(self, name, getattr(self, name)[open_N])
                    continue
            if row_NB.shape[1] != width:
                self._step.keep(row_NB)
            elif width > 1:
                self._step.reorder(row_NB.flatten())

    def _store_ended(self, length: int) -> bool:
        closed = beam_search._CLOSED
        ended_NB = (self._tokens_NBL[:, :, -1] == self._eos) | (self._limit_N == length)[:, None]
        ended_NB &= self._open_N[:, None] & (self._sum_NB > closed / 2)
        scale = beam_search.length_penalty(length + 1, self._alpha)
        score_NB = (self._sum_NB / scale).masked_fill(~ended_NB, -torch.inf)
        self._best.add(self._sentence_N, score_NB, self._tokens_NBL[:, :, 1:])
        self._sum_NB = self._sum_NB.masked_fill(ended_NB, closed)
        self._top_ended_N |= ended_NB[:, 0]
        finished_N = self._top_ended_N & self._best.full(self._sentence_N)
        self._open_N &= ~finished_N & (self._sum_NB > closed / 2).any(dim=1)
        return True


class TopkFirstFewLooks(TopkFirst, FewLooks):
    """Both."""
