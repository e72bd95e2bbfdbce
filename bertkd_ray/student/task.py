"""What the training loop needs to know about the student: torch alone, no Ray."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Self

import numpy as np
import pyarrow as pa
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import M2M100ForConditionalGeneration

from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.config.sections import KdConfig, StudentConfig
from bertkd_ray.core.devices import Precision, autocast, padding_multiple
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.corpus.cleaning import ID_MONOLINGUAL_BIT
from bertkd_ray.corpus.moses import to_raw
from bertkd_ray.corpus.passes import TOKENIZER
from bertkd_ray.corpus.text_form import TextForm
from bertkd_ray.corpus.tokenizer import EOS_ID, decode, load_tokenizer
from bertkd_ray.decoding.batches import PAD_TO
from bertkd_ray.decoding.seq2seq import translate_ids
from bertkd_ray.evaluation.metrics import corpus_bleu, validation_tokenizer
from bertkd_ray.softlabels.shards import VALID_SHARDS, SoftLabels, decode_labels
from bertkd_ray.student.collate import StudentBatch, collate
from bertkd_ray.student.loss import LossSums, fused_kd_loss, soft_label_entropy
from bertkd_ray.student.model import decoder_hidden
from bertkd_ray.training import curves
from bertkd_ray.training.batch_plan import MicroBatch, RowLengths, shuffled_batches
from bertkd_ray.training.context import World
from bertkd_ray.training.optimization import build_optimizer, linear_warmup_decay, noam

# Padded source tokens of a batch of greedy search. Elsewhere a step takes as long for one sentence as for thousands, so
# that the bound is memory: a sentence takes ten bytes a token of the vocabulary (scores, in float32, their logarithms).
_GREEDY_TOKENS = 4096
_GREEDY_TOKENS_ELSEWHERE = 65_536
_GREEDY_BYTES = 4 * 2**30
_BYTES_A_SCORE = 10


class DistillationLoss(nn.Module):
    """The student with its loss: forward(batch) -> (loss sum, [negative log likelihood sum, number correct]).

    Where alpha follows a schedule, its sum is a third of these sums.
    """

    def __init__(
        self,
        student: M2M100ForConditionalGeneration,
        kd: KdConfig,
        label_smoothing: float,
        precision: Precision,
        teacher_weights: Sequence[float] = (),
    ) -> None:
        super().__init__()
        self.student, self._kd, self._label_smoothing = student, kd, label_smoothing
        self._teacher_weights = teacher_weights if len(teacher_weights) > 1 else None
        self.alpha = kd.alpha_at(1, 1)
        """Weight of the soft labels in the present update."""
        self._matmul_dtype = torch.bfloat16 if precision == "bf16" else None

    def forward(self, batch: StudentBatch) -> tuple[Tensor, Tensor]:
        """Sums over the batch's real target positions; the loss of monolingual ones counts with its weight."""
        hidden_PD, weight = decoder_hidden(self.student, batch), self._kd.monolingual_weight
        if batch.monolingual_index is None or batch.parallel_index is None or weight == 1:
            return self._sums(hidden_PD, batch)
        parts = [(batch.parallel_index, 1.0), (batch.monolingual_index, weight)]
        sums = [(self._sums(hidden_PD[rows], batch.take(rows)), of_rows) for rows, of_rows in parts if len(rows)]
        losses, stats = [loss * of_rows for (loss, _), of_rows in sums], [stats for (_, stats), _ in sums]
        return torch.stack(losses).sum(), torch.stack(stats).sum(dim=0)

    def _sums(self, hidden_PD: Tensor, batch: StudentBatch) -> tuple[Tensor, Tensor]:
        kd = self._kd
        is_everywhere = kd.at_end or not kd.has_soft_labels
        sums = fused_kd_loss(
            hidden_PD,
            self.student.get_output_embeddings().weight,
            batch.targets_P,
            batch.topk_ids_Pk,
            batch.topk_logits_Pk,
            batch.logsumexp_P,
            alpha=self.alpha if is_everywhere else self.alpha * (batch.targets_P != EOS_ID).float(),
            temperature=kd.temperature,
            symmetric=kd.symmetric,
            label_smoothing=self._label_smoothing,
            tail=kd.tail,
            teacher_weights=self._teacher_weights,
            matmul_dtype=self._matmul_dtype,
        )
        stats = [sums.nll.float(), sums.correct.float()]
        if kd.is_scheduled:
            stats.append(torch.full_like(stats[0], self.alpha * batch.count))
        return sums.loss, torch.stack(stats)


@dataclass(frozen=True)
class Validation:
    """The valid split: token ids for the loss, text for BLEU."""

    src: Ragged
    tgt: Ragged
    references: list[str]
    tokenizer: Tokenizer
    form: TextForm = field(default_factory=TextForm)
    """Form of what the student writes; the references are raw text in any case."""
    labels: SoftLabels | None = None
    """The teacher's, of every pair; None where there are none."""

    @classmethod
    def of(cls, corpus: Artifact, labels: Artifact | None = None) -> Self:
        """The valid split of a corpus, with its soft labels where an artifact of them has those of every pair."""
        valid, form = corpus.read_table("valid/"), TextForm.of(corpus)
        with scratch_directory("corpus-") as scratch:
            tokenizer = load_tokenizer(corpus.local(TOKENIZER, scratch))
        references = to_raw(valid["tgt"].to_pylist(), form.text, form.tgt_lang)
        src, tgt = Ragged.from_arrow(valid["src_ids"]), Ragged.from_arrow(valid["tgt_ids"])
        soft = None if labels is None else _labels_of(labels, valid["id"].to_pylist())
        return cls(src, tgt, references, tokenizer, form, soft)


def _labels_of(labels: Artifact, ids: list[int]) -> SoftLabels | None:
    """The soft labels of pairs of the valid split, by their ids; None where one has none, as in earlier versions."""
    if not labels.files_below(VALID_SHARDS):
        return None
    table = labels.read_table(VALID_SHARDS)
    rows = {number: row for row, number in enumerate(table["id"].to_pylist())}
    return decode_labels(table.take([rows[number] for number in ids])) if rows.keys() >= set(ids) else None


def greedy_tokens(device: torch.device, vocabulary: int) -> int:
    """Padded source tokens of a batch of the validation's greedy search, whose scores [rows, V] are bounded in size."""
    if device.type == "cpu":
        return _GREEDY_TOKENS
    rows = max(1, _GREEDY_BYTES // (_BYTES_A_SCORE * vocabulary))
    return min(_GREEDY_TOKENS_ELSEWHERE, rows * PAD_TO)


class StudentTask:
    """Implements `training.trainer.Task` for the student."""

    def __init__(
        self,
        student: M2M100ForConditionalGeneration,
        config: StudentConfig,
        kd: KdConfig,
        validation: Validation,
        precision: Precision,
        teacher_weights: Sequence[float] = (),
    ) -> None:
        """teacher_weights: of the soft labels that rows have; one or none where they are of one teacher."""
        self.model = student
        self.objective = DistillationLoss(student, kd, config.label_smoothing, precision, teacher_weights).train()
        self.stat_keys = (curves.TRAIN_NLL, curves.TRAIN_ACCURACY, *([curves.TRAIN_ALPHA] if kd.is_scheduled else []))
        self.optimizer = build_optimizer(student, kind="adamw", betas=(0.9, 0.98), eps=1e-9, weight_decay=0.0)
        self.max_norm = math.inf if config.clip is None else config.clip
        self._config, self._kd, self._validation, self._precision = config, kd, validation, precision
        self._teachers = max(1, len(teacher_weights)) if kd.has_soft_labels else 0
        self._pad_to = padding_multiple(student.device)

    def start_update(self, step: int) -> None:
        """The weight of the soft labels becomes that of the step."""
        self.objective.alpha = self._kd.alpha_at(step, self._config.steps)

    def learning_rate(self, step: int) -> float:
        """The original Transformer's schedule (Vaswani et al., 2017, section 5.3), scaled; or a linear fall."""
        config = self._config
        if config.schedule == "inverse-sqrt":
            return noam(step, factor=config.noam_factor, width=config.width, warmup=config.warmup_steps)
        peak = noam(config.warmup_steps, factor=config.noam_factor, width=config.width, warmup=config.warmup_steps)
        share = config.warmup_steps / config.steps
        return linear_warmup_decay(step, peak=peak, warmup_fraction=share, total=config.steps)

    def lengths(self, rows: pa.Table) -> RowLengths:
        """Rows sorted by both sides together, counted by the longer one with its end-of-sentence token."""
        src, tgt = Ragged.from_arrow(rows["src_ids"]).lengths, Ragged.from_arrow(rows["tgt_ids"]).lengths
        return RowLengths(sort=src + tgt, tokens=np.maximum(src, tgt) + 1)

    def collate(self, micro: MicroBatch) -> StudentBatch:
        """Padded tensors of the rows, with the first k teacher logits where the loss uses them."""
        src, tgt = Ragged.from_arrow(micro.rows["src_ids"]), Ragged.from_arrow(micro.rows["tgt_ids"])
        labels = [decode_labels(micro.rows, number) for number in range(1, self._teachers + 1)]
        soft = labels if len(labels) > 1 else next(iter(labels), None)
        batch = collate(src, tgt, soft, topk=self._kd.topk, pad_to=self._pad_to)
        if self._kd.monolingual_weight == 1:
            return batch
        monolingual = (micro.rows["id"].to_numpy() >> ID_MONOLINGUAL_BIT & 1).astype(np.bool_)
        if not monolingual.any():
            return batch
        monolingual_P = np.repeat(monolingual, tgt.lengths + 1)
        return replace(
            batch,
            monolingual_index=torch.from_numpy(np.flatnonzero(monolingual_P)),
            parallel_index=torch.from_numpy(np.flatnonzero(~monolingual_P)),
        )

    def evaluate(self, world: World) -> dict[str, float]:
        """Perplexity and token accuracy with the references as history, BLEU of greedy translations.

        Where the valid split has soft labels also their divergence from the student, in nats a target position and
        with the references as history, over the arm's own k, temperature and tail: KL = Σ_k q_k (log q_k - log p_k),
        and with an exact tail + m (log m - log Σ_{v not kept} p_v). p is the student at temperature 1, or, for
        `kd.symmetric`, at the teacher's.
        """
        data = self._validation
        tokens = np.maximum(data.src.lengths, data.tgt.lengths) + 1
        budget = max(int(tokens.max()), self._config.batch_tokens // self._config.micro_batches)
        batches = shuffled_batches(data.src.lengths + data.tgt.lengths, tokens, budget, 0)[world.rank :: world.size]
        nll, correct, count, divergence = world.sum(self._likelihood(batches, world.device)).tolist()
        return {
            **({} if data.labels is None else {curves.VALID_KL: divergence / count}),
            curves.VALID_NLL: nll / count,
            curves.VALID_PERPLEXITY: math.exp(min(nll / count, 50.0)),
            curves.VALID_ACCURACY: correct / count,
            curves.VALID_BLEU: self._greedy_bleu(batches, world),
        }

    def rank_of(self, metrics: dict[str, float]) -> tuple[float, ...]:
        """The best checkpoint has the highest BLEU, and among equal ones the lowest negative log-likelihood."""
        return metrics[curves.VALID_BLEU], -metrics[curves.VALID_NLL]

    @torch.no_grad()
    def _likelihood(self, batches: list[np.ndarray], device: torch.device) -> Tensor:
        """float64[4]: negative log likelihood, correct tokens, tokens and divergence of the given rows."""
        total = torch.zeros(4, dtype=torch.float64, device=device)
        for rows in batches:
            src, tgt = self._validation.src.take(rows), self._validation.tgt.take(rows)
            soft = None if self._validation.labels is None else self._validation.labels.take(rows)
            batch = collate(src, tgt, soft, topk=self._kd.topk, pad_to=self._pad_to).to(device)
            with autocast(device, self._precision):
                hidden_PD = decoder_hidden(self.model, batch)
            sums, divergence = self._divergence(hidden_PD, batch)
            figures = [sums.nll, sums.correct, sums.nll.new_tensor(batch.count), divergence]
            total += torch.stack([figure.double() for figure in figures])
        return total

    def _divergence(self, hidden_PD: Tensor, batch: StudentBatch) -> tuple[LossSums, Tensor]:
        """The sums of the loss, and the divergence of `evaluate`, 0 without soft labels."""
        kd, weight = self._kd, self.model.get_output_embeddings().weight
        dtype = torch.bfloat16 if self._precision == "bf16" else None
        loss = partial(fused_kd_loss, hidden_PD, weight, batch.targets_P, matmul_dtype=dtype)
        if batch.topk_logits_Pk is None:
            sums = loss(alpha=0.0)
            return sums, torch.zeros_like(sums.nll)
        logits, logsumexp, temperature, tail = batch.topk_logits_Pk, batch.logsumexp_P, kd.temperature, kd.tail
        soft = partial(loss, batch.topk_ids_Pk, logits, logsumexp, temperature=temperature, tail=tail)
        sums = soft(alpha=1.0, symmetric=kd.symmetric)
        vocabulary = len(weight)
        entropy = soft_label_entropy(logits, logsumexp, vocabulary=vocabulary, temperature=temperature, tail=tail)
        return sums, sums.loss / (kd.temperature**2 if kd.symmetric else 1) - entropy

    def _greedy_bleu(self, batches: list[np.ndarray], world: World) -> float:
        rows = np.concatenate(batches) if batches else np.zeros(0, np.int64)
        translations = translate_ids(
            self.model,
            self._validation.src.take(rows),
            beam=1,
            batch_tokens=greedy_tokens(world.device, self.model.config.vocab_size),
            precision=self._precision,
        )
        texts = decode(self._validation.tokenizer, [hypotheses[0].ids for hypotheses in translations])
        form = self._validation.form
        texts = to_raw(texts, form.text, form.tgt_lang)
        hypotheses = dict(pair for part in world.gather(list(zip(rows.tolist(), texts, strict=True))) for pair in part)
        return corpus_bleu(
            [hypotheses[row] for row in range(len(hypotheses))],
            self._validation.references,
            tokenize=validation_tokenizer(form.tgt_lang),
        )
