"""The teacher's pass over the corpus: the k best tokens of every target position, each position predicted once.

Shapes: N rows, L padded tokens, M masked positions of a batch, P target positions of a fragment, H hidden size, V the
vocabulary.
"""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bertkd_ray.config.sections import Direction
from bertkd_ray.core.devices import Precision, autocast, padding_multiple
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.padding import longest_first_batches
from bertkd_ray.core.ragged import Ragged, flat_positions, offsets_of
from bertkd_ray.execution.fault_isolation import FaultIsolation
from bertkd_ray.softlabels.gpu_topk import grouped_topk, logsumexp_of
from bertkd_ray.softlabels.shards import SoftLabels, index_dtype
from bertkd_ray.teacher.gpu_inference import GpuEncoder
from bertkd_ray.teacher.masking import BertSpecials, cmlm_batch, expand_passes, input_lengths
from bertkd_ray.teacher.model import ConditionalMaskedLM
from bertkd_ray.teacher.prefix_lm import prefix_lm_batch

CPU_BLOCK_ELEMENTS, GPU_BLOCK_ELEMENTS = 1 << 21, 1 << 26
"""Scores that `topk_scores` holds at once: few enough for a CPU's caches (29 against 52 ms for 600 positions of 14,136
tokens in bf16), enough to fill a GPU (256 MiB in float32)."""

_FLOAT16_MAX = float(np.finfo(np.float16).max)


def topk_scores(
    hidden_MH: Tensor, weight_VH: Tensor, bias_V: Tensor, k: int, *, precision: Precision = "float32"
) -> tuple[Tensor, Tensor, Tensor]:
    """The k best tokens of each row of `hidden @ weight.T + bias`, without the whole [M, V] ever in memory.

    Returns ids int64[M, k], best first, their logits float32[M, k] and logsumexp float32[M] over all V, in nats.
    precision "bf16": the product over the vocabulary is bf16 and finds 2k candidates, whose logits are then computed
    again in float32; so the logits are exact, and only tokens that bf16 cannot tell from the best 2k can be missed. The
    logsumexp is summed in float32, over bf16 logits.
    """
    on_cpu = hidden_MH.device.type == "cpu"
    elements = CPU_BLOCK_ELEMENTS if on_cpu else GPU_BLOCK_ELEMENTS
    rows = max(1, elements // len(bias_V))
    weight, bias = (weight_VH.bfloat16(), bias_V.bfloat16()) if precision == "bf16" else (weight_VH, bias_V)
    parts = []
    for hidden_RH in hidden_MH.split(rows):
        logits_RV = functional.linear(hidden_RH.to(weight.dtype), weight, bias)
        if precision == "bf16":
            wanted = min(2 * k, len(bias_V))
            candidates = logits_RV.topk(wanted, sorted=False).indices if on_cpu else grouped_topk(logits_RV, wanted)[1]
            exact = torch.einsum("rh,rch->rc", hidden_RH.float(), weight_VH[candidates].float()) + bias_V[candidates]
            best, order = exact.topk(k)
            ids = candidates.gather(1, order)
        else:
            best, ids = logits_RV.topk(k)
        parts.append((ids, best, logsumexp_of(logits_RV)))
    ids_Mk, logits_Mk, logsumexp_M = (torch.cat(column) for column in zip(*parts, strict=True))
    return ids_Mk, logits_Mk, logsumexp_M


@dataclass
class Scorer:
    """Scores fragments of the corpus with one teacher on one device.

    model: is moved to `device` and put in evaluation mode; on a CPU it should have "eager" attention (`load_teacher`).
    bert_ids: integers [V], the BERT id behind each token. topk: k entries kept a position. passes: how often a pair is
    seen at most; a left-to-right teacher sees it once. batch_tokens: padded tokens of a batch; a budget below one
    pair's passes spreads them over batches, and a single row that is longer than the budget is a batch by itself.
    precision: "bf16" is autocast, with LayerNorm and softmax in float32, and the bf16 vocabulary product of
    `topk_scores`; "float32" is exact.
    """

    model: ConditionalMaskedLM
    bert_ids: NDArray[np.integer]
    specials: BertSpecials
    _: KW_ONLY
    topk: int
    passes: int = 7
    batch_tokens: int
    precision: Precision
    device: torch.device

    def __post_init__(self) -> None:
        model, config = self.model.train(False), self.model.config
        tokens, vocabulary = len(self.bert_ids), int(config.target_vocab_size)
        if tokens != vocabulary:
            raise UserError(
                f"the teacher predicts {vocabulary} tokens, the corpus has {tokens}; run finetune on this corpus"
            )
        if not 1 <= self.topk <= vocabulary:
            raise UserError(f"kd.topk must be from 1 to the vocabulary's {vocabulary}, not {self.topk}")
        torch.nn.Module.to(model, self.device)
        self.direction: Direction = config.direction
        self.passes = self.passes if self.direction == "both" else 1
        self.encoder = GpuEncoder(model) if self.device.type == "cuda" and self.precision == "bf16" else None
        self.max_tokens = int(config.max_position_embeddings)
        self.pad_to = padding_multiple(self.device, self.max_tokens)

    @torch.inference_mode()
    def score(
        self, src: Ragged, tgt: Ragged, ids: NDArray[np.int64], isolation: FaultIsolation | None = None
    ) -> SoftLabels:
        """The soft labels of n pairs, in their order. ids: int64[n], for messages alone.

        isolation: leaves out pairs that cannot be scored; their rows of the result mean nothing. Without it their error
        is raised, and OverflowError when a logit is beyond float16. Raises UserError in any case when a pair is longer
        than the BERT's positions.
        """
        positions = tgt.lengths + 1
        tokens = input_lengths(src.lengths, tgt.lengths, self.direction)
        if tokens.max(initial=0) > self.max_tokens:
            pair = int(tokens.argmax())
            special = tokens[pair] - src.lengths[pair] - tgt.lengths[pair]
            raise UserError(
                f"pair {ids[pair]} takes {tokens[pair]} tokens with its {special} special ones, "
                f"the teacher has {self.max_tokens} positions; lower the corpus's length limit and prepare it again"
            )
        order = np.argsort(-tokens, kind="stable")
        offsets = offsets_of(positions)
        row_of_pass, mask = expand_passes(positions[order], self.passes)
        pair_of_pass = order[row_of_pass]
        mask_offsets = offsets_of(positions[pair_of_pass])
        position_of_mask = flat_positions(offsets[:-1][pair_of_pass], positions[pair_of_pass])

        ids_Pk = torch.zeros((int(offsets[-1]), self.topk), dtype=torch.int32, device=self.device)
        logits_Pk = torch.zeros(ids_Pk.shape, dtype=torch.float32, device=self.device)
        logsumexp_P = torch.zeros(len(ids_Pk), dtype=torch.float32, device=self.device)

        def compute(rows: NDArray[np.int64]) -> None:
            pairs = pair_of_pass[rows]
            flat = flat_positions(mask_offsets[:-1][rows], positions[pairs])
            target = self._to_device(position_of_mask[flat][mask[flat]])
            best_Mk, scores_Mk, logsumexp_M = self._score_batch(src.take(pairs), tgt.take(pairs), mask[flat])
            ids_Pk[target] = best_Mk.int()
            logits_Pk[target] = scores_Mk
            logsumexp_P[target] = logsumexp_M

        batches = longest_first_batches(tokens[pair_of_pass], self.batch_tokens, self.pad_to)
        if isolation is None:
            for rows in batches:
                compute(rows)
        else:
            isolation.run(batches, pair_of_pass, compute)
        logits = logits_Pk.cpu().numpy()
        for pair, error in _beyond_float16(logits, offsets, ids):
            if isolation is None:
                raise error
            isolation.add_dead_letter(pair, f"OverflowError: {error}")
            logits[offsets[pair] : offsets[pair + 1]] = 0
        return SoftLabels(
            topk_ids=ids_Pk.cpu().numpy().astype(index_dtype(len(self.bert_ids))),
            topk_logits=logits.astype(np.float16),
            logsumexp=logsumexp_P.cpu().numpy(),
            offsets=offsets,
        )

    def _score_batch(self, src: Ragged, tgt: Ragged, mask: NDArray[np.bool_]) -> tuple[Tensor, Tensor, Tensor]:
        if self.direction == "both":
            batch = cmlm_batch(src, tgt, mask, self.bert_ids, self.specials, self.pad_to)
        else:
            batch = prefix_lm_batch(src, tgt, self.bert_ids, self.specials, self.pad_to)
        masked_index = self._to_device(batch.masked_index)
        attention_mask = None if batch.attention_mask.all() else self._to_device(batch.attention_mask)
        ids = self._to_device(batch.input_ids), self._to_device(batch.token_type_ids)
        if self.encoder is not None:
            hidden_MH = self.encoder(*ids, attention_mask, masked_index, batch.most)
        else:
            # Autocast, not a model cast to bf16: as fast (166 against 165 ms for 4,080 tokens of a six-layer MiniLM on
            # two CPU cores) at two thirds of the error in the hidden states (0.9% against 1.5%).
            rows, width = batch.input_ids.shape
            lengths = input_lengths(src.lengths, tgt.lengths, self.direction)
            tokens = flat_positions(np.arange(rows) * width, lengths)
            with autocast(self.device, self.precision):
                hidden_MH = self.model.packed((*ids, masked_index), attention_mask, self._to_device(tokens), batch.most)
        output = self.model.output
        return topk_scores(hidden_MH, output.weight, output.bias, self.topk, precision=self.precision)

    def _to_device(self, array: NDArray[Any]) -> Tensor:
        """The array as a tensor on the device; a GPU is not waited for."""
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)


def _beyond_float16(
    logits_Pk: NDArray[np.float32], offsets: NDArray[np.int64], ids: NDArray[np.int64]
) -> Iterator[tuple[int, OverflowError]]:
    """The pairs with logits that float16 cannot hold, and what there is to say of the first such position of each."""
    beyond = np.flatnonzero(~(np.abs(logits_Pk) <= _FLOAT16_MAX).all(axis=1))
    pairs, first = np.unique(np.searchsorted(offsets, beyond, side="right") - 1, return_index=True)
    for pair, position in zip(pairs.tolist(), beyond[first].tolist(), strict=True):
        yield (
            pair,
            OverflowError(
                f"pair {ids[pair]}, target position {position - offsets[pair]}: the teacher has diverged, its logits "
                f"do not fit float16: {logits_Pk[position].tolist()}"
            ),
        )
