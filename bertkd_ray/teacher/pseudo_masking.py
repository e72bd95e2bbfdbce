"""The left-to-right teacher's input: all target positions of a pair are predicted in one pass.

A pair of S source and T target tokens becomes `[CLS] src [SEP] tgt₁ … tgt_T` and T + 1 queries, each a `[MASK]` that
has the position and the token type of the target token it stands for; the last one stands for the end of the sentence.

| token | sees |
| --- | --- |
| source, `[CLS]`, `[SEP]` | all of these |
| target j | these, and the target up to itself |
| query i | these, the target before i, and itself |

So every query has the full left context, no token sees a query of another, and nothing from the right reaches a query
through any layer. This is the pseudo-masked language model of UniLM (arXiv 1905.03197, 2002.12804) as s2s-ft
(arXiv 2110.13640) fine-tunes it.
"""

import numpy as np
from numpy.typing import NDArray

from bertkd_ray.core.padding import padded_length
from bertkd_ray.core.ragged import Ragged, flat_positions, offsets_of
from bertkd_ray.teacher.masking import BertSpecials, CMLMBatch, input_lengths, with_eos

_NEVER = np.iinfo(np.int64).max
_Values = NDArray[np.integer] | int


def pseudo_masked_batch(
    src: Ragged, tgt: Ragged, bert_ids: NDArray[np.integer], specials: BertSpecials, pad_to: int = 8
) -> CMLMBatch:
    """The batch whose masked positions are the queries, T + 1 a row, in the order of the target.

    src, tgt: N rows of the student's token ids without BOS and EOS; bert_ids: integers [V], the BERT id behind each
    token. L is the longest row rounded up to a multiple of `pad_to`; padding sees the source. Nothing is truncated.
    """
    rows, src_lengths, tgt_lengths = len(src), src.lengths, tgt.lengths
    width = padded_length(int(input_lengths(src_lengths, tgt_lengths, "left_to_right").max(initial=0)), pad_to)
    starts = np.arange(rows, dtype=np.int64) * width
    prefixes, queries = src_lengths + 2, tgt_lengths + 1
    prefix_at = flat_positions(starts, prefixes)
    target_at = flat_positions(starts + prefixes, tgt_lengths)
    query_at = flat_positions(starts + prefixes + tgt_lengths, queries)
    zeros = np.zeros(rows, np.int64)
    target_number, query_number = flat_positions(zeros, tgt_lengths), flat_positions(zeros, queries)

    def laid_out(prefix: _Values, target: _Values, query: _Values, padding: int) -> NDArray[np.int64]:
        values = np.full(rows * width, padding, dtype=np.int64)
        values[prefix_at], values[target_at], values[query_at] = prefix, target, query
        return values.reshape(rows, width)

    source_ids = np.full(len(prefix_at), specials.cls, dtype=np.int64)
    source_ids[flat_positions(offsets_of(prefixes)[:-1] + 1, src_lengths)] = bert_ids[src.values]
    source_ids[np.cumsum(prefixes) - 1] = specials.sep
    # A token sees the keys of no later turn than its own; a query is nobody's key but its own.
    key_turn = laid_out(0, target_number + 1, _NEVER, padding=_NEVER)
    turn = laid_out(0, target_number + 1, query_number, padding=0)
    return CMLMBatch(
        input_ids=laid_out(source_ids, bert_ids[tgt.values], specials.mask, padding=specials.pad),
        token_type_ids=laid_out(0, 1, 1, padding=0),
        attention_mask=(key_turn[:, None, :] <= turn[:, :, None]) | np.eye(width, dtype=np.bool_),
        masked_index=query_at,
        labels=with_eos(tgt),
        position_ids=laid_out(
            flat_positions(zeros, prefixes),
            np.repeat(prefixes, tgt_lengths) + target_number,
            np.repeat(prefixes, queries) + query_number,
            padding=0,
        ),
    )
