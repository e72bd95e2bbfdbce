"""What each stage of a configuration costs: steps, tokens, matrix operations, device hours and bytes of artifacts."""

import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bertkd_ray.artifacts.artifact import Artifact, load_finished
from bertkd_ray.artifacts.row_groups import RowGroups
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config
from bertkd_ray.config.corpus import SPLITS
from bertkd_ray.config.sections import Direction, StudentConfig, TeacherConfig
from bertkd_ray.core.devices import best_device, resolve_precision
from bertkd_ray.core.padding import longest_first_batches
from bertkd_ray.core.stages import DISTILL, EXTRACT, FINETUNE, PREPARE, STAGES, TRANSLATE, results_of
from bertkd_ray.corpus import prepare
from bertkd_ray.corpus.bert_tokenizer import tokenizer_hash
from bertkd_ray.corpus.sampling import CorpusShape, SplitShape, shape_of_artifact, shape_of_text
from bertkd_ray.plan.batches import BatchLengths, SampledBatches, extraction_batches, full_groups, training_batches
from bertkd_ray.plan.models import TeacherShape, student_size, teacher_shape
from bertkd_ray.plan.operations import TRAINING, StudentSize
from bertkd_ray.plan.rates import Device, known_device, own_device, product_rate
from bertkd_ray.teacher.source import resolve_model

PREPARED_TOKENS_A_CORE_SECOND = 600_000
"""Tokens of both sides that a CPU core prepares a second: 52 µs a pair of 32 words and more (benchmarks.prepare)."""
KEPT_OF_IDS, KEPT_OF_LOGITS, KEPT_OF_LOGSUMEXP, KEPT_OF_TOKENS = 0.80, 0.65, 0.77, 0.95
"""What zstd leaves of a shard: of the log2(V) bits of an id among the best k and of a token, of the 16 bits of a logit
and the 32 of a logsumexp. Measured in shards of trained teachers: those of Multi30k, 28.9 bytes a position, and of the
demo, 26.3, are 1% larger than these shares say. A teacher that knows nothing has smaller ones."""
TRANSLATED_BYTES_A_TOKEN = 2.5
"""Parquet bytes of a translation table a token of its texts."""


@dataclass(frozen=True)
class StagePlan:
    """One stage, of one arm where it has several."""

    name: str
    steps: int | None
    """Updates in training, batches elsewhere; None for prepare."""
    epochs: float | None
    """How often training sees the corpus."""
    tokens: float
    """Tokens of both sides that are computed or written, special tokens and repeated sight included, padding not."""
    padding: float | None
    """Share of the computed tokens that is padding."""
    flops: float
    """Operations of matrix products, validation included."""
    device_hours: float
    bytes: float
    """Bytes of the artifact."""


@dataclass(frozen=True)
class PipelinePlan:
    """All stages of all arms."""

    name: str
    corpus: CorpusShape
    device: Device
    devices: int
    stages: list[StagePlan]
    prepare_core_hours: float
    assumptions: list[str]

    @property
    def total(self) -> StagePlan:
        """The sum of all stages."""
        figures = {
            name: sum(getattr(stage, name) for stage in self.stages)
            for name in ("tokens", "flops", "device_hours", "bytes")
        }
        return StagePlan("all", None, None, padding=None, **figures)

    @property
    def wall_seconds(self) -> float:
        """Seconds on the devices, shared without loss, one stage after the other."""
        return 3600 * self.total.device_hours / self.devices

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        corpus = self.corpus
        splits = {
            name: {"pairs": split.pairs, "src_tokens": round(split.src_tokens), "tgt_tokens": round(split.tgt_tokens)}
            for name, split in corpus.splits.items()
        }
        return {
            "name": self.name,
            "corpus": {
                "basis": corpus.basis,
                "is_estimate": corpus.is_estimate,
                "vocabulary": corpus.vocabulary,
                "splits": splits,
            },
            "device": {**asdict(self.device), "devices": self.devices},
            "stages": {stage.name: _without_name(stage) for stage in self.stages},
            "total": _without_name(self.total),
            "prepare_core_hours": self.prepare_core_hours,
            "wall_hours": self.wall_seconds / 3600,
            "assumptions": self.assumptions,
        }


def plan(
    config: Config,
    given: CorpusShape | None = None,
    *,
    device: str | None = None,
    tflops: float | None = None,
    devices: int | None = None,
) -> PipelinePlan:
    """The plan of a configuration. Raises UserError for a corpus or BERT that cannot be had, and an unknown device.

    given: a corpus that is not at hand. device: name of one in the table; tflops: its rate, or this machine's; devices:
    how many share the work. What is None is read, measured or taken from the configuration.
    """
    corpus, groups = _corpus(config, given)
    teacher = teacher_shape(config.teacher, corpus.vocabulary)
    arms = config.arm_configs()
    student = student_size(next(iter(arms.values())).student, corpus.vocabulary)
    chosen = _device(config, device, tflops, teacher, student)
    planner = _Planner(config, corpus, groups, chosen, teacher)
    estimates, results = planner.estimates(), results_of(config).items()
    stages = [
        estimates[stage.name](name, arms.get(arm, config))
        for stage in STAGES.values()
        for name, (of, arm) in results
        if of is stage and stage.name in estimates
    ]
    return PipelinePlan(
        config.name,
        corpus,
        chosen,
        devices or config.worker_range[1],
        stages,
        stages[0].tokens / PREPARED_TOKENS_A_CORE_SECOND / 3600,
        _assumptions(config, corpus) + [f"{stage} costs nothing" for stage in STAGES if stage not in estimates],
    )


class _Planner:
    """The stages of one configuration over one corpus."""

    def __init__(
        self, config: Config, corpus: CorpusShape, groups: NDArray[np.int64], device: Device, teacher: TeacherShape
    ) -> None:
        self._config, self._corpus, self._groups, self._device, self._teacher = config, corpus, groups, device, teacher
        self._train, self._valid, self._test = (corpus.splits[split] for split in SPLITS)
        self._training_batches = partial(training_batches, multiple=device.padding_multiple)

    def estimates(self) -> dict[str, Callable[[str, Config], StagePlan]]:
        """By stage, what gives the plan of a result, from its name and its configuration."""
        return {
            PREPARE.name: self._prepare,
            FINETUNE.name: self._finetune,
            EXTRACT.name: self._extract,
            DISTILL.name: self._distill,
            TRANSLATE.name: self._translate,
        }

    def _prepare(self, name: str, config: Config) -> StagePlan:
        tokens = sum(split.src_tokens + split.tgt_tokens for split in self._corpus.splits.values())
        return StagePlan(name, None, None, tokens, None, 0.0, 0.0, self._corpus.bytes)

    def _finetune(self, name: str, config: Config) -> StagePlan:
        teacher, shape = config.teacher, self._teacher
        batches = self._batches(teacher, config.seed, teacher.direction)

        def forward(batch: BatchLengths) -> float:
            return batch.teacher_flops(shape, teacher.direction, _masked(batch, teacher))

        validation = _validations(teacher) * self._whole(self._valid, teacher, forward, teacher.direction)
        hours = self._hours(FINETUNE.name, validation)
        return self._training(name, teacher, batches, forward, validation, hours, shape.parameters)

    def _extract(self, name: str, config: Config) -> StagePlan:
        direction, passes, train = config.teacher.direction, config.extract_passes(), self._train
        batches = extraction_batches(
            train,
            fragment_pairs=config.corpus.fragment_pairs,
            direction=direction,
            passes=passes,
            budget=config.extract.forward_tokens,
            multiple=self._device.padding_multiple,
        )

        def forward(batch: BatchLengths) -> float:
            # Over all passes of a pair each of its positions is predicted once.
            positions = np.sum((batch.tgt + 1) / np.minimum(passes, batch.tgt + 1))
            return batch.teacher_flops(self._teacher, direction, float(positions))

        flops = batches.per_pass * batches.mean(forward)
        return StagePlan(
            name,
            round(batches.per_pass),
            None,
            batches.per_pass * batches.tokens,
            batches.padding,
            flops,
            self._hours(EXTRACT.name, flops),
            self._shard_bytes(),
        )

    def _distill(self, name: str, config: Config) -> StagePlan:
        student, shape = config.student, student_size(config.student, self._corpus.vocabulary)
        batches = self._batches(student, config.student_seed, None)

        def forward(batch: BatchLengths) -> float:
            return batch.student_flops(shape)

        validations = _validations(student)
        likelihood = validations * self._whole(self._valid, student, forward, None)
        greedy = validations * self._translating(self._valid, shape, 1)
        hours = self._hours(DISTILL.name, likelihood) + self._hours(TRANSLATE.name, greedy)
        return self._training(name, student, batches, forward, likelihood + greedy, hours, shape.parameters)

    def _translate(self, name: str, config: Config) -> StagePlan:
        shape, settings = student_size(config.student, self._corpus.vocabulary), config.translate
        test = self._test
        batches = len(longest_first_batches(test.src + 1, settings.forward_tokens // settings.beam))
        steps = max(1, round(test.pairs / len(test.src) * batches))
        flops = self._translating(test, shape, settings.beam)
        tokens = test.src_tokens + settings.beam * test.tgt_tokens + (1 + settings.beam) * test.pairs
        size = TRANSLATED_BYTES_A_TOKEN * (test.src_tokens + (1 + settings.n_best) * test.tgt_tokens)
        hours = self._hours(TRANSLATE.name, flops)
        return StagePlan(name, steps, None, tokens, None, flops, hours, size)

    def _training(
        self,
        name: str,
        settings: TeacherConfig | StudentConfig,
        batches: SampledBatches,
        forward: Callable[[BatchLengths], float],
        validation: float,
        validation_hours: float,
        parameters: int,
    ) -> StagePlan:
        micro = settings.steps * settings.micro_batches
        updates = micro * TRAINING * batches.mean(forward)
        hours = self._hours(name.partition("/")[0], updates) + validation_hours
        return StagePlan(
            name,
            settings.steps,
            micro / batches.per_pass,
            micro * batches.tokens,
            batches.padding,
            updates + validation,
            hours,
            4.0 * parameters,
        )

    def _batches(
        self, settings: TeacherConfig | StudentConfig, seed: int, direction: Direction | None
    ) -> SampledBatches:
        streams = settings.micro_batches
        budget = settings.batch_tokens // streams
        return self._training_batches(
            self._train, self._groups, budget=budget, streams=streams, seed=seed, direction=direction
        )

    def _whole(
        self,
        split: SplitShape,
        settings: TeacherConfig | StudentConfig,
        forward: Callable[[BatchLengths], float],
        direction: Direction | None,
    ) -> float:
        """A figure summed over the batches of a split that is read once."""
        budget = settings.batch_tokens // settings.micro_batches
        groups = np.full(1, split.pairs, np.int64)
        batches = self._training_batches(split, groups, budget=budget, streams=1, seed=0, direction=direction)
        return batches.per_pass * batches.mean(forward)

    def _translating(self, split: SplitShape, shape: StudentSize, beam: int) -> float:
        """Operations of a beam search over a split."""
        return split.pairs / len(split.src) * BatchLengths(split.src, split.tgt, 1).beam_search_flops(shape, beam)

    def _shard_bytes(self) -> float:
        """Bytes of the soft labels: measured shares of what their values take as they are."""
        positions = self._train.tgt_tokens + self._train.pairs
        id_bytes = math.log2(self._corpus.vocabulary) / 8
        entry = KEPT_OF_IDS * id_bytes + KEPT_OF_LOGITS * 2
        tokens = self._train.src_tokens + self._train.tgt_tokens
        of_position = self._config.stored_topk() * entry + KEPT_OF_LOGSUMEXP * 4
        return positions * of_position + KEPT_OF_TOKENS * id_bytes * tokens

    def _hours(self, stage: str, flops: float) -> float:
        return flops / (self._device.flops[stage] * self._device.utilisation[stage]) / 3600


def _validations(settings: TeacherConfig | StudentConfig) -> int:
    """Validations of a training that is not stopped early: at every `eval_every` steps and at the end."""
    return -(-settings.steps // settings.eval_every)


def _masked(batch: BatchLengths, teacher: TeacherConfig) -> float:
    """Expected masked positions of a batch: all from left to right, else one of a pair at least."""
    positions, probability = batch.tgt + 1, teacher.mask_probability
    if teacher.direction == "left_to_right":
        return float(positions.sum())
    return float(np.sum(probability * positions + (1 - probability) ** positions))


def _without_name(stage: StagePlan) -> dict[str, Any]:
    return {name: value for name, value in asdict(stage).items() if name != "name"}


def _corpus(config: Config, given: CorpusShape | None) -> tuple[CorpusShape, NDArray[np.int64]]:
    """The corpus's shape, and the rows of train's row groups."""
    if given is None:
        bert = resolve_model(config.teacher.model)
        corpus = _finished_corpus(config, bert)
        if corpus is not None:
            return shape_of_artifact(corpus), RowGroups(corpus, "train/", []).rows
        given = shape_of_text(config.corpus, bert)
    groups = full_groups(given.splits["train"].pairs, config.corpus.fragment_pairs, config.corpus.group_pairs)
    return given, groups


def _finished_corpus(config: Config, bert: str) -> Artifact | None:
    """The corpus that prepare has made of this configuration, its files unchecked."""
    store = Store(config.storage)
    # The text is read as a whole for its fingerprint, so only where some corpus is finished.
    if not any(name.startswith("corpus-") for name in store.directories()):
        return None
    pending = prepare.pending_artifact(config, store, {"bert_tokenizer": tokenizer_hash(bert)})
    return load_finished(store, pending.directory)


def _device(
    config: Config, name: str | None, tflops: float | None, teacher: TeacherShape, student: StudentSize
) -> Device:
    """The named device, one with the given rate, or this machine's own."""
    if name is not None:
        device = known_device(name)
        return device if tflops is None else device.with_rate(1e12 * tflops)
    own = torch.device("cpu") if config.device == "cpu" else best_device()
    if tflops is not None:
        return own_device(own, {}).with_rate(1e12 * tflops)
    precision = resolve_precision(config.precision, own)
    before = torch.get_num_threads()
    torch.set_num_threads(config.cpus_per_worker or os.cpu_count() or 1)
    try:
        rates = {
            stage: product_rate((rows, shape.width, shape.ffn), precision, own)
            for stage, rows, shape in (
                (FINETUNE.name, config.teacher.batch_tokens // config.teacher.micro_batches, teacher),
                (DISTILL.name, config.student.batch_tokens // config.student.micro_batches, student),
            )
        }
    finally:
        torch.set_num_threads(before)
    return own_device(own, {**rates, EXTRACT.name: rates[FINETUNE.name], TRANSLATE.name: rates[DISTILL.name]})


def _assumptions(config: Config, corpus: CorpusShape) -> list[str]:
    assumptions = ["no stage ends early, nothing is done twice, devices share the work without loss"]
    if corpus.is_estimate and (config.corpus.clean.duplicates or config.corpus.clean.test_overlap):
        assumptions.append("there are no duplicates and no overlaps with test to drop")
    return assumptions
