"""Translation of rows of token ids, in batches of similar length, with any `Step`."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from bertkd_ray.core.devices import Precision, autocast
from bertkd_ray.core.padding import longest_first_batches
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.decoding.beam_search import Step, beam_search

PAD_TO = 8
"""Sources are padded to a multiple of so many tokens."""


class Translation(NamedTuple):
    """Token ids without special tokens, and the length-normalised log-probability in nats."""

    ids: list[int]
    score: float


def length_limits(
    lengths: NDArray[np.integer], positions: int, factor: float = 2.0, offset: int = 10
) -> NDArray[np.int64]:
    """int64[n]: tokens that the translation of a source of each length may have, `</s>` included, 1 to `positions`."""
    return np.clip((lengths * factor).astype(np.int64) + offset, 1, positions)


def translation_batches(src: Ragged, *, beam: int, batch_tokens: int) -> list[NDArray[np.int64]]:
    """Row numbers of the batches in which the rows of `src` are translated; empty rows are in none."""
    rows = np.flatnonzero(src.lengths)
    return [rows[batch] for batch in longest_first_batches(src.lengths[rows] + 1, batch_tokens // beam, PAD_TO)]


def translate_rows(
    model: PreTrainedModel,
    src: Ragged,
    begin: Callable[[Ragged], Step],
    limits: NDArray[np.int64],
    *,
    bos: int,
    eos: int,
    pad: int,
    beam: int,
    alpha: float,
    n_best: int,
    batch_tokens: int,
    precision: Precision,
) -> list[list[Translation]]:
    """Translate every row of `src`; per row, in input order, up to `n_best` translations, best first.

    begin: the `Step` of the rows of a batch, called without gradients, with the model in evaluation mode. limits:
    int64[n], tokens that the translation of a row may have, `eos` included; an empty row, and one whose limit is 0, has
    the one translation [] with score 0. The other arguments are those of `beam_search` and of `seq2seq.translate_ids`.
    The model's training mode is left as it was.
    """
    results = [[Translation([], 0.0)] for _ in range(len(src))]
    training = model.training
    model.eval()
    try:
        # Not inference_mode: there autocast casts every weight again at every step.
        with torch.no_grad(), autocast(model.device, precision):
            for rows in translation_batches(src, beam=beam, batch_tokens=batch_tokens):
                chosen = rows[limits[rows] > 0]
                if not len(chosen):
                    continue
                hypotheses = beam_search(
                    begin(src.take(chosen)),
                    batch=len(chosen),
                    beam=beam,
                    bos=bos,
                    eos=eos,
                    pad=pad,
                    max_length=torch.from_numpy(limits[chosen]),
                    alpha=alpha,
                    n_best=n_best,
                    device=model.device,
                )
                for row, of_row in zip(chosen.tolist(), hypotheses, strict=True):
                    results[row] = [
                        Translation([token for token in tokens.tolist() if token != eos], score)
                        for tokens, score in of_row
                    ]
    finally:
        model.train(training)
    return results
