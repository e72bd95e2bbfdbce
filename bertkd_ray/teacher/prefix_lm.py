"""The left-to-right teacher's input: all target positions of a pair are predicted in one pass.

A pair of S source and T target tokens becomes `[CLS] src [SEP] tgt₁ … tgt_T`. The state of `[SEP]` predicts the first
target token, the state of each target token the one after it, and that of the last one the end of the sentence.

| token | sees |
| --- | --- |
| source, `[CLS]`, `[SEP]` | all of these |
| target j | these, and the target up to itself |

So every position is predicted from its full left context, and nothing from the right reaches it through any layer. This
is the prefix LM of UniLM (arXiv 1905.03197, section 2.3, "sequence-to-sequence") and T5 (arXiv 1910.10683, section
3.2.1), with the next token predicted as a language model predicts it, instead of a masked one.
"""

import numpy as np
from numpy.typing import NDArray

from bertkd_ray.core.padding import padded_length
from bertkd_ray.core.ragged import Ragged, flat_positions, offsets_of
from bertkd_ray.teacher.masking import BertSpecials, CMLMBatch, input_lengths, with_eos

_Values = NDArray[np.integer] | int


def prefix_lm_batch(
    src: Ragged, tgt: Ragged, bert_ids: NDArray[np.integer], specials: BertSpecials, pad_to: int = 8
) -> CMLMBatch:
    """The batch whose "masked" positions are those that predict, `[SEP]` and the target, T + 1 a row; none is masked.

    src, tgt: N rows of the student's token ids without BOS and EOS; bert_ids: integers [V], the BERT id behind each
    token. L is the longest row rounded up to a multiple of `pad_to`; padding sees the source. Nothing is truncated.
    """
    rows, prefixes, targets = len(src), src.lengths + 2, tgt.lengths
    width = padded_length(int(input_lengths(src.lengths, targets, "left_to_right").max(initial=0)), pad_to)
    starts = np.arange(rows, dtype=np.int64) * width
    prefix_at, target_at = flat_positions(starts, prefixes), flat_positions(starts + prefixes, targets)

    def laid_out(prefix: _Values, target: _Values, padding: int) -> NDArray[np.int64]:
        values = np.full(rows * width, padding, dtype=np.int64)
        values[prefix_at], values[target_at] = prefix, target
        return values.reshape(rows, width)

    source_ids = np.full(len(prefix_at), specials.cls, dtype=np.int64)
    source_ids[flat_positions(offsets_of(prefixes)[:-1] + 1, src.lengths)] = bert_ids[src.values]
    source_ids[np.cumsum(prefixes) - 1] = specials.sep
    # A token sees the keys of no later turn than its own.
    number = flat_positions(np.ones(rows, np.int64), targets)
    key_turn, turn = laid_out(0, number, padding=np.iinfo(np.int64).max), laid_out(0, number, padding=0)
    return CMLMBatch(
        input_ids=laid_out(source_ids, bert_ids[tgt.values], padding=specials.pad),
        token_type_ids=laid_out(0, 1, padding=0),
        attention_mask=key_turn[:, None, :] <= turn[:, :, None],
        masked_index=flat_positions(starts + prefixes - 1, targets + 1),
        labels=with_eos(tgt),
    )
