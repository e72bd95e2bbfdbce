"""What the training loop needs to know about the teacher: torch alone, no Ray."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from bertkd_ray.config.sections import TeacherConfig
from bertkd_ray.core.devices import Precision, autocast, padding_multiple
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.teacher.masking import BertSpecials, CMLMBatch, cmlm_batch, input_lengths, random_masks
from bertkd_ray.teacher.model import ConditionalMaskedLM
from bertkd_ray.teacher.prefix_lm import prefix_lm_batch
from bertkd_ray.training.batch_plan import MicroBatch, RowLengths, shuffled_batches
from bertkd_ray.training.context import World
from bertkd_ray.training.curves import TRAIN_ACCURACY, VALID_ACCURACY, VALID_LOSS
from bertkd_ray.training.optimization import build_optimizer, linear_warmup_decay
from bertkd_ray.training.prefetch import CollatedBatch

_VALIDATION_SEED = 0
"""Validation masks are the same in every run, whatever its seed, so that runs compare."""

_SCORE_BYTES = 2**30
"""About a quarter of what the loss then takes, its gradient included: 4 GB, whatever vocabulary and batch."""


@dataclass(frozen=True)
class TeacherBatch(CollatedBatch):
    """`CMLMBatch` as tensors."""

    input_ids: Tensor
    token_type_ids: Tensor
    attention_mask: Tensor
    masked_index: Tensor
    labels: Tensor
    most: int | None = None
    """Masked positions of the row that has most of them."""

    @property
    def count(self) -> int:
        """Masked positions."""
        return len(self.labels)

    @property
    def padded_tokens(self) -> int:
        """Tokens of the batch, padding included."""
        return self.input_ids.numel()

    @classmethod
    def of(cls, batch: CMLMBatch) -> Self:
        """The tensors that share the arrays' memory."""
        tensors = {name: torch.from_numpy(array) for name, array in vars(batch).items() if array is not None}
        return cls(**tensors, most=batch.most)


class MaskedLoss(nn.Module):
    """The teacher with its loss: forward(batch) -> (loss sum, [number correct]) over the masked positions."""

    def __init__(self, teacher: ConditionalMaskedLM, score_bytes: int = _SCORE_BYTES) -> None:
        """score_bytes: of float32 scores [M, V] held at once; more of them are computed in blocks of positions."""
        super().__init__()
        self.teacher = teacher
        self._block_rows = max(1, score_bytes // (4 * teacher.output.out_features))

    def forward(self, batch: TeacherBatch) -> tuple[Tensor, Tensor]:
        """Cross-entropy in nats, summed; both are float32."""
        inputs = batch.input_ids, batch.token_type_ids, batch.attention_mask, batch.masked_index
        hidden_MH = self.teacher(*inputs, batch.most)
        if len(hidden_MH) <= self._block_rows:
            return self._sums(hidden_MH, batch.labels)
        # Of a block nothing is kept for the backward pass, which computes its scores once more.
        block = partial(checkpoint, self._sums, use_reentrant=False, preserve_rng_state=False)
        rows = self._block_rows
        sums = [block(*part) for part in zip(hidden_MH.split(rows), batch.labels.split(rows), strict=True)]
        return torch.stack([loss for loss, _ in sums]).sum(), torch.stack([stats for _, stats in sums]).sum(dim=0)

    def _sums(self, hidden_MH: Tensor, labels_M: Tensor) -> tuple[Tensor, Tensor]:
        logits_MV = self.teacher.logits(hidden_MH).float()
        correct = (logits_MV.detach().argmax(-1) == labels_M).sum()
        return functional.cross_entropy(logits_MV, labels_M, reduction="sum"), correct.float().reshape(1)


class TeacherTask:
    """Implements `training.trainer.Task` for the conditional masked language model."""

    stat_keys: tuple[str, ...] = (TRAIN_ACCURACY,)

    def __init__(
        self,
        teacher: ConditionalMaskedLM,
        config: TeacherConfig,
        seed: int,
        bert_ids: NDArray[np.integer],
        specials: BertSpecials,
        valid: pa.Table,
        precision: Precision,
    ) -> None:
        """valid: the valid split's rows (id, src_ids, tgt_ids)."""
        self.model = teacher
        self.objective = MaskedLoss(teacher).train()
        each_tensor = config.optimizer == "bertadam"
        self.optimizer = build_optimizer(
            teacher,
            kind=config.optimizer,
            betas=(0.9, 0.999),
            eps=1e-6,
            weight_decay=config.weight_decay,
            tensor_grad_clip=config.clip if each_tensor else None,
        )
        self._config, self._seed, self._bert_ids, self._specials = config, seed, bert_ids, specials
        self._valid, self._precision = valid, precision
        self._pad_to = padding_multiple(teacher.device, teacher.config.max_position_embeddings)
        self.max_norm = math.inf if each_tensor else config.clip  # BertAdam clips every tensor by itself

    def start_update(self, step: int) -> None:
        """Nothing changes."""

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then linear decay to 0."""
        return linear_warmup_decay(
            step, peak=self._config.peak_lr, warmup_fraction=self._config.warmup_share, total=self._config.steps
        )

    def lengths(self, rows: pa.Table) -> RowLengths:
        """Rows sorted and counted by the tokens that the pair takes of the teacher's input."""
        src, tgt = Ragged.from_arrow(rows["src_ids"]), Ragged.from_arrow(rows["tgt_ids"])
        tokens = input_lengths(src.lengths, tgt.lengths, self._config.direction)
        return RowLengths(sort=tokens, tokens=tokens)

    def collate(self, micro: MicroBatch) -> TeacherBatch:
        """The rows, with masks drawn for this epoch unless every position is predicted."""
        return self._batch(micro.rows, self._seed, micro.epoch)

    def evaluate(self, world: World) -> dict[str, float]:
        """Loss and accuracy on the valid split, under masks that never change."""
        valid = self.lengths(self._valid)
        budget = self._config.batch_tokens // self._config.micro_batches
        batches = shuffled_batches(valid.sort, valid.tokens, budget, _VALIDATION_SEED)
        total = torch.zeros(3, dtype=torch.float64, device=world.device)
        with torch.no_grad(), autocast(world.device, self._precision):
            for rows in batches[world.rank :: world.size]:
                batch = self._batch(self._valid.take(pa.array(rows)), _VALIDATION_SEED, 0).to(world.device)
                loss, stats = self.objective(batch)
                total += torch.stack([loss.double(), stats[0].double(), loss.new_tensor(batch.count).double()])
        loss_sum, correct, count = world.sum(total).tolist()
        return {VALID_LOSS: loss_sum / count, VALID_ACCURACY: correct / count}

    def rank_of(self, metrics: dict[str, float]) -> tuple[float]:
        """The best checkpoint has the lowest loss."""
        return (-metrics[VALID_LOSS],)

    def _batch(self, rows: pa.Table, seed: int, epoch: int) -> TeacherBatch:
        src, tgt = Ragged.from_arrow(rows["src_ids"]), Ragged.from_arrow(rows["tgt_ids"])
        if self._config.direction == "left_to_right":
            return TeacherBatch.of(prefix_lm_batch(src, tgt, self._bert_ids, self._specials, self._pad_to))
        ids = rows["id"].to_numpy()
        mask = random_masks(ids, tgt.lengths + 1, seed=seed, epoch=epoch, probability=self._config.mask_probability)
        return TeacherBatch.of(cmlm_batch(src, tgt, mask, self._bert_ids, self._specials, self._pad_to))
