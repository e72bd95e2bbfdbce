"""The plain way to do what the stages do: float32, whole matrices, one thing after another.

Written for this comparison after what the original code of "Distilling Knowledge Learned in BERT for Text Generation"
does (extraction) and what a reader of PyTorch's and transformers' manuals would write (training, translation). They
compute the same numbers as the stages, which tests/benchmarks shows.

Shapes: N rows, L places, M masked positions, T padded target length, V tokens, H hidden size, k kept teacher entries.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from bertkd_ray.config.sections import KdConfig
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.corpus.tokenizer import BOS_ID, EOS_ID, PAD_ID
from bertkd_ray.student.collate import StudentBatch
from bertkd_ray.teacher.masking import BertSpecials
from bertkd_ray.teacher.model import ConditionalMaskedLM
from bertkd_ray.teacher.task import TeacherBatch

PAIRS_A_BATCH = 8
_IGNORED = -100


class OriginalExtraction:
    """The original's two steps: hidden states of every position to disk, then their k best tokens to disk.

    Eight pairs a batch in corpus order; each pair is seen min(7, T + 1) times. Hidden states are float16, the kept
    logits too. Left out in its favour: its database (here both files are written from front to back) and its transform
    of positions that are not masked.
    """

    def __init__(
        self, model: ConditionalMaskedLM, bert_ids: NDArray[np.integer], specials: BertSpecials, k: int, passes: int = 7
    ) -> None:
        """model: in float32 and evaluation mode."""
        self._model, self._bert_ids, self._specials, self._k, self._passes = model, bert_ids, specials, k, passes

    @torch.no_grad()
    def __call__(self, src: Ragged, tgt: Ragged, directory: Path) -> tuple[Tensor, Tensor]:
        """Writes `hiddens` and `topk`; gives ids int64 [P, k] and logits float32 [P, k] of all positions."""
        hidden_size, counts = int(self._model.config.hidden_size), (tgt.lengths + 1).tolist()
        with (directory / "hiddens").open("wb") as file:
            for first in range(0, len(src), PAIRS_A_BATCH):
                for hidden_PH in self._hidden_states(src, tgt, range(first, min(first + PAIRS_A_BATCH, len(src)))):
                    file.write(hidden_PH.half().numpy().tobytes())
        labels = []
        with (directory / "hiddens").open("rb") as file, (directory / "topk").open("wb") as out:
            for count in counts:
                stored = np.frombuffer(file.read(count * hidden_size * 2), np.float16).reshape(count, hidden_size)
                best = self._model.output(torch.from_numpy(stored.astype(np.float32))).topk(self._k)
                out.write(best.indices.int().numpy().tobytes() + best.values.half().numpy().tobytes())
                labels.append(best)
        return torch.cat([best.indices for best in labels]), torch.cat([best.values for best in labels])

    def _hidden_states(self, src: Ragged, tgt: Ragged, pairs: range) -> list[Tensor]:
        """[T + 1, H] of each pair."""
        rows, types, targets, seen = [], [], [], []
        for pair in pairs:
            source = [self._specials.cls, *self._bert_ids[src.row(pair)].tolist(), self._specials.sep]
            target = [*self._bert_ids[tgt.row(pair)].tolist(), self._specials.sep]
            for sample in range(min(self._passes, len(target))):
                masked = range(sample, len(target), self._passes)
                row = [self._specials.mask if position in masked else token for position, token in enumerate(target)]
                rows.append(source + row)
                types.append([0] * len(source) + [1] * len(target))
                targets.append((pair, list(masked), [len(source) + position for position in masked]))
            seen.append((pair, len(target)))
        ids_NL, mask_NL = _padded(rows, self._specials.pad)
        types_NL, _ = _padded(types, 0)
        encoded_NLH = self._model.bert(
            input_ids=ids_NL, token_type_ids=types_NL, attention_mask=mask_NL
        ).last_hidden_state
        hidden = {pair: encoded_NLH.new_empty(count, encoded_NLH.shape[-1]) for pair, count in seen}
        for row, (pair, positions, columns) in enumerate(targets):
            hidden[pair][positions] = self._model.transform(encoded_NLH[row, columns])
        return [hidden[pair] for pair, _ in seen]


def _padded(rows: list[list[int]], value: int) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([row + [value] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids, mask


class PlainFinetuning:
    """A step of masked language modelling as transformers' manual has it.

    whole: the output layer scores every place, as `BertForMaskedLM` does, and the loss ignores those that are not
    masked; else it scores the masked places alone, as the original does.
    """

    def __init__(self, model: ConditionalMaskedLM, *, lr: float, weight_decay: float, clip: float, whole: bool) -> None:
        self.model, self._clip, self._whole = model.train(), clip, whole
        self._optimizer = plain_adamw(model, lr=lr, betas=(0.9, 0.999), eps=1e-6, weight_decay=weight_decay)

    def step(self, batch: TeacherBatch) -> float:
        """One update; gives the mean loss before it."""
        self._optimizer.zero_grad()
        loss = self.loss(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self._clip)
        self._optimizer.step()
        return float(loss.detach())

    def loss(self, batch: TeacherBatch) -> Tensor:
        """Cross-entropy in nats, the mean over the masked positions."""
        encoded_NLH = self.model.bert(
            input_ids=batch.input_ids,
            token_type_ids=batch.token_type_ids,
            attention_mask=batch.attention_mask.long(),
        ).last_hidden_state
        if not self._whole:
            masked_MH = encoded_NLH.flatten(0, 1)[batch.masked_index]
            return functional.cross_entropy(self.model.output(self.model.transform(masked_MH)), batch.labels)
        labels = torch.full((batch.input_ids.numel(),), _IGNORED)
        labels[batch.masked_index] = batch.labels
        logits_NLV = self.model.output(self.model.transform(encoded_NLH))
        return functional.cross_entropy(logits_NLV.flatten(0, 1), labels, ignore_index=_IGNORED)


def padded_hidden(model: Any, batch: StudentBatch) -> Tensor:
    """[P, width]: `decoder_hidden` by transformers' own forward pass, on padded hidden states."""
    outputs = model.model(batch.src_ids_NS, batch.src_mask_NS, batch.decoder_input_ids_NT, use_cache=False)
    hidden_PD: Tensor = outputs.last_hidden_state.flatten(0, 1).index_select(0, batch.target_index_P)
    return hidden_PD


class PlainDistillation:
    """A step of distillation with the whole [N, T, V] of log-probabilities and a padding mask."""

    def __init__(self, model: Any, kd: KdConfig, *, label_smoothing: float, lr: float) -> None:
        self.model, self._kd, self._label_smoothing = model.train(), kd, label_smoothing
        self._optimizer = plain_adamw(model, lr=lr, betas=(0.9, 0.98), eps=1e-9, weight_decay=0.0)

    def step(self, batch: StudentBatch) -> float:
        """One update; gives the mean loss before it."""
        self._optimizer.zero_grad()
        loss = self.loss(batch)
        loss.backward()
        self._optimizer.step()
        return float(loss.detach())

    def loss(self, batch: StudentBatch) -> Tensor:
        """The mean over target positions of label-smoothed cross-entropy and soft labels with an exact tail."""
        rows, width = batch.decoder_input_ids_NT.shape
        logits_NTV = self.model(
            input_ids=batch.src_ids_NS,
            attention_mask=batch.src_mask_NS.long(),
            decoder_input_ids=batch.decoder_input_ids_NT,
        ).logits
        log_p_NTV = functional.log_softmax(logits_NTV, dim=-1)
        at = batch.target_index_P
        real_NT, targets_NT = torch.zeros(rows * width), torch.zeros(rows * width, dtype=torch.long)
        real_NT[at], targets_NT[at] = 1.0, batch.targets_P
        real_NT, targets_NT = real_NT.view(rows, width), targets_NT.view(rows, width)
        smoothing, vocabulary = self._label_smoothing, log_p_NTV.shape[-1]
        hard_NT = -(1 - smoothing) * log_p_NTV.gather(-1, targets_NT[..., None]).squeeze(-1)
        hard_NT = hard_NT - smoothing / (vocabulary - 2) * log_p_NTV.sum(-1)
        alpha = self._kd.alpha
        loss_NT = (1 - alpha) * hard_NT + alpha * self._soft(log_p_NTV, batch)
        return (loss_NT * real_NT).sum() / real_NT.sum()

    def _soft(self, log_p_NTV: Tensor, batch: StudentBatch) -> Tensor:
        rows, width, _ = log_p_NTV.shape
        assert batch.topk_ids_Pk is not None
        assert batch.topk_logits_Pk is not None
        assert batch.logsumexp_P is not None
        k, at = batch.topk_ids_Pk.shape[1], batch.target_index_P
        # Padding has k tokens too, which the mask takes out again.
        ids_NTk = torch.arange(k).repeat(rows * width, 1)
        ids_NTk[at] = batch.topk_ids_Pk
        q_NTk = torch.zeros(rows * width, k)
        q_NTk[at] = torch.exp(batch.topk_logits_Pk - batch.logsumexp_P[:, None])
        ids_NTk, q_NTk = ids_NTk.view(rows, width, k), q_NTk.view(rows, width, k)
        q_NTk = q_NTk / q_NTk.sum(-1, keepdim=True).clamp_min(1)
        soft_NT = -(q_NTk * log_p_NTV.gather(-1, ids_NTk)).sum(-1)
        others_NT = log_p_NTV.scatter(-1, ids_NTk, -torch.inf).logsumexp(-1)
        return soft_NT - (1 - q_NTk.sum(-1)).clamp_min(0) * others_NT


def plain_adamw(
    model: nn.Module, *, lr: float, betas: tuple[float, float], eps: float, weight_decay: float
) -> torch.optim.Optimizer:
    """torch's AdamW, a tensor after another; decay on matrices alone."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, foreach=False, fused=False)


@torch.no_grad()
def generate_each(model: Any, src: Ragged, *, beam: int, limits: list[int]) -> list[list[int]]:
    """`generate` for one sentence after another; the ids without special tokens. limits: most new tokens of each."""
    outputs = []
    for row, limit in enumerate(limits):
        ids = torch.tensor([[*src.row(row).tolist(), EOS_ID]])
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), num_beams=beam, max_new_tokens=limit, max_length=None
        )
        outputs.append([token for token in out[0].tolist() if token not in (PAD_ID, BOS_ID, EOS_ID)])
    return outputs
