"""Beam search over any next-token model, as OpenNMT-py searches.

The search is batched over sentences and beams; the model is a `Step`, which owns the state of every row. Shapes: N
sentences still in the batch, B beams a sentence, R = N * B rows (sentence-major), V vocabulary, L tokens so far.

Not supported: coverage penalties, n-gram blocking, sampling, forced prefixes.
"""

from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

Length = TypeVar("Length", float, Tensor)

_CLOSED = -1e10
"""Log-probability of a beam that has ended: it stays in the beam and loses against every beam still open."""

_COMPACT_AT = 0.75
"""Finished sentences leave the batch when at most this share is still open: leaving copies the model's whole state."""


class Step(Protocol):
    """A model that predicts the next token of R rows and keeps what it needs to know about their past.

    A search starts with one row a sentence; at every position it calls `log_probs`, then `keep` or `reorder` unless
    every row continues itself.
    """

    def log_probs(self, tokens_R: Tensor) -> Tensor:
        """float32[R, V] log-probabilities of the next token, given each row's newest (int64[R]).

        The caller may overwrite the result.
        """

    def reorder(self, rows_R: Tensor) -> None:
        """Row i continues row `rows_R[i]`, which belongs to the same sentence; the number of rows stays."""

    def keep(self, rows_NB: Tensor) -> None:
        """Row n * B + b continues row `rows_NB[n, b]` (int64[N, B]); those of one n belong to the same sentence.

        Sentences may have been dropped, those that stay keep their order; the rows of a sentence may be dropped,
        repeated and moved, and their number may change.
        """


class Hypothesis(NamedTuple):
    """Token ids, int64[L] on the CPU, `eos` last unless cut at the maximal length; length-normalised score in nats."""

    tokens: Tensor
    score: float


def length_penalty(length: Length, alpha: float) -> Length:
    """GNMT's penalty ((5 + length) / 6)^alpha (Wu et al., 2016, equation 14); 1 for alpha 0.

    The searches here count the generated tokens, `eos` included, plus one for the start symbol, as OpenNMT-py does.
    """
    penalty: Length = ((5.0 + length) / 6.0) ** alpha
    return penalty


def beam_search(
    step: Step,
    *,
    batch: int,
    beam: int,
    bos: int,
    eos: int,
    pad: int,
    max_length: int | Tensor,
    min_length: int = 0,
    alpha: float = 0.6,
    n_best: int = 1,
    device: torch.device | str = "cpu",
) -> list[list[Hypothesis]]:
    """Beam search for `batch` sentences; per sentence up to `n_best` hypotheses, best first.

    Every position keeps the `beam` best continuations; a beam of 1 is greedy search. Those that end in `eos` are stored
    with the score (sum of log-probabilities) / `length_penalty`, and are never continued. A sentence is finished once
    the best continuation of some position has ended and `n_best` hypotheses are stored, or when no beam is open; at its
    maximal length (tokens, `eos` counted; an int or int64[batch]) all open beams end as they are. No hypothesis has
    fewer than `min_length` tokens, `eos` not counted. Ties between hypotheses go to the one that ended first.

    Source: OpenNMT-py's `BeamSearch` (Klein et al., 2017). Raises ValueError for a maximal length below 1 and for
    `n_best` not between 1 and `beam`.
    """
    if not 1 <= n_best <= beam:
        raise ValueError(f"n_best must lie between 1 and the beam width {beam}, got {n_best}")
    if batch == 0:
        return []
    limit_N = torch.as_tensor(max_length, dtype=torch.long, device=device).expand(batch)
    if int(limit_N.min()) < 1:
        raise ValueError(f"max_length must be at least 1, got {int(limit_N.min())}")
    best = _BestHypotheses(batch, n_best, int(limit_N.max()), pad, limit_N.device)
    _BeamSearch(step, best, limit_N, beam, bos, eos, min_length, alpha).run()
    return best.hypotheses()


class _BestHypotheses:
    """The `n_best` ended hypotheses of every sentence, best first; earlier ones win ties."""

    def __init__(self, batch: int, n_best: int, longest: int, pad: int, device: torch.device) -> None:
        self._scores = torch.full((batch, n_best), -torch.inf, device=device)
        self._lengths = torch.zeros((batch, n_best), dtype=torch.long, device=device)
        self._tokens = torch.full((batch, n_best, longest), pad, dtype=torch.long, device=device)

    def add(self, sentence_N: Tensor, score_NB: Tensor, tokens_NBL: Tensor) -> None:
        """Offer hypotheses of L tokens each; a score of -inf marks those that have not ended."""
        n_best, length = self._scores.shape[1], tokens_NBL.shape[2]
        scores = torch.cat([self._scores[sentence_N], score_NB], dim=1)
        lengths = torch.cat([self._lengths[sentence_N], torch.full_like(score_NB, length, dtype=torch.long)], dim=1)
        tokens = torch.cat([self._tokens[sentence_N, :, :length], tokens_NBL], dim=1)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        order = order[:, :n_best]
        self._scores[sentence_N] = scores[:, :n_best]
        self._lengths[sentence_N] = lengths.gather(1, order)
        self._tokens[sentence_N, :, :length] = tokens.gather(1, order[..., None].expand(-1, -1, length))

    def full(self, sentence_N: Tensor) -> Tensor:
        """bool[N]: which of the sentences have all their hypotheses."""
        return self._scores[sentence_N, -1].isfinite()

    def hypotheses(self) -> list[list[Hypothesis]]:
        """Per sentence, best first."""
        tokens, lengths, scores = self._tokens.cpu(), self._lengths.tolist(), self._scores.tolist()
        return [
            [
                Hypothesis(tokens[sentence, rank, : lengths[sentence][rank]], score)
                for rank, score in enumerate(scores[sentence])
                if score > -torch.inf
            ]
            for sentence in range(len(scores))
        ]


class _BeamSearch:
    """The beams of the sentences still in the batch. Token rows begin with the start symbol."""

    def __init__(
        self,
        step: Step,
        best: _BestHypotheses,
        limit_N: Tensor,
        beam: int,
        bos: int,
        eos: int,
        min_length: int,
        alpha: float,
    ) -> None:
        device, sentences = limit_N.device, len(limit_N)
        self._step, self._best = step, best
        self._beam, self._eos, self._min_length, self._alpha = beam, eos, min_length, alpha
        self._limit_N = limit_N
        self._sentence_N = torch.arange(sentences, device=device)
        self._open_N = torch.ones(sentences, dtype=torch.bool, device=device)
        self._top_ended_N = torch.zeros(sentences, dtype=torch.bool, device=device)
        self._sum_NB = torch.zeros((sentences, 1), device=device)
        self._tokens_NBL = torch.full((sentences, 1, 1), bos, dtype=torch.long, device=device)

    def run(self) -> None:
        """Search until every sentence is finished."""
        for length in range(1, int(self._limit_N.max()) + 1):
            width = self._sum_NB.shape[1]
            row_NB = self._extend(length)
            any_ended = self._store_ended(length)
            remaining = int(self._open_N.sum()) if any_ended else len(row_NB)
            if remaining == 0:
                return
            if remaining <= _COMPACT_AT * len(row_NB):
                kept = self._open_N
                self._step.keep(row_NB[kept])
                self._sum_NB, self._tokens_NBL = self._sum_NB[kept], self._tokens_NBL[kept]
                self._sentence_N, self._limit_N = self._sentence_N[kept], self._limit_N[kept]
                self._top_ended_N, self._open_N = self._top_ended_N[kept], kept[kept]
            elif row_NB.shape[1] != width:
                self._step.keep(row_NB)
            elif width > 1:  # a beam of one continues itself
                self._step.reorder(row_NB.flatten())

    def _extend(self, length: int) -> Tensor:
        """Replace the beams by their best continuations, `length` tokens long; int64[N, B] which row each continues."""
        sentences, width = self._sum_NB.shape
        log_probs_RV = self._step.log_probs(self._tokens_NBL[:, :, -1].flatten())
        if length <= self._min_length:
            log_probs_RV[:, self._eos] = -torch.inf
        vocabulary = log_probs_RV.shape[1]
        sum_NBV = log_probs_RV.view(sentences, width, vocabulary).add_(self._sum_NB[..., None])
        self._sum_NB, flat_NB = sum_NBV.view(sentences, -1).topk(min(self._beam, width * vocabulary), dim=1)
        row_NB = torch.arange(0, sentences * width, width, device=flat_NB.device)[:, None] + flat_NB // vocabulary
        token_NB1 = (flat_NB % vocabulary)[..., None]
        self._tokens_NBL = torch.cat([self._tokens_NBL.flatten(0, 1)[row_NB], token_NB1], dim=2)
        return row_NB

    def _store_ended(self, length: int) -> bool:
        """Store what ends at this length, close those beams and mark the sentences finished; False if nothing ended."""
        ended_NB = (self._tokens_NBL[:, :, -1] == self._eos) | (self._limit_N == length)[:, None]
        ended_NB &= self._open_N[:, None] & (self._sum_NB > _CLOSED / 2)
        some_N = ended_NB.any(dim=1)
        if not bool(some_N.any()):
            return False
        score_NB = (self._sum_NB / length_penalty(length + 1, self._alpha)).masked_fill(~ended_NB, -torch.inf)
        self._best.add(self._sentence_N[some_N], score_NB[some_N], self._tokens_NBL[some_N, :, 1:])
        self._sum_NB = self._sum_NB.masked_fill(ended_NB, _CLOSED)
        self._top_ended_N |= ended_NB[:, 0]
        finished_N = self._top_ended_N & self._best.full(self._sentence_N)
        self._open_N &= ~finished_N & (self._sum_NB > _CLOSED / 2).any(dim=1)
        return True
