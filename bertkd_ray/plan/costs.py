"""What each stage of a configuration costs: steps, tokens, matrix operations, device hours and bytes of artifacts."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertkd_ray.artifacts.artifact import load_finished
from bertkd_ray.artifacts.row_groups import RowGroups
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config
from bertkd_ray.config.corpus import SPLITS
from bertkd_ray.config.results import results_of
from bertkd_ray.config.sections import StudentConfig, TeacherConfig
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.padding import longest_first_batches
from bertkd_ray.core.stages import (
    AUGMENT,
    DECODE,
    DISTILL,
    EVALUATE,
    EXTRACT,
    FINETUNE,
    LABEL,
    PREPARE,
    STAGES,
    TRANSLATE,
)
from bertkd_ray.corpus import prepare
from bertkd_ray.corpus.bert_tokenizer import tokenizer_hash
from bertkd_ray.corpus.sampling import CorpusShape, SplitShape, shape_of_artifact, shape_of_text
from bertkd_ray.plan.batches import BatchLengths, extraction_batches, full_groups, training_batches
from bertkd_ray.plan.checkpoints import CheckpointPlan, plan_checkpoints
from bertkd_ray.plan.operations import TRAINING, StudentSize, TeacherSize, beam_search, teacher_beam_search
from bertkd_ray.plan.rates import LAUNCHES_A_LAYER, Device, chosen_device
from bertkd_ray.teacher.source import bert_config, naming_teacher, resolve_model
from bertkd_ray.training.batch_plan import BatchPlan

PREPARED_TOKENS_A_CORE_SECOND = 600_000
"""Tokens of both sides that a CPU core prepares a second: 52 µs a pair of 32 words and more (benchmarks.prepare)."""
KEPT_OF_IDS, KEPT_OF_LOGITS, KEPT_OF_LOGSUMEXP, KEPT_OF_TOKENS = 0.80, 0.65, 0.77, 0.95
"""What zstd leaves of a shard: of the log2(V) bits of an id among the best k and of a token, of the 16 bits of a logit
and the 32 of a logsumexp. Measured in shards of trained teachers: those of Multi30k, 28.9 bytes a position, and of the
demo, 26.3, are 1% larger than these shares say. A teacher that knows nothing has smaller ones."""
TRANSLATED_BYTES_A_TOKEN = 2.5
"""Parquet bytes of a translation table a token of its texts."""
# (layers, width, inner size, pieces) of checkpoints on the hub.
_KNOWN = {
    "bert-base-multilingual-cased": (12, 768, 3072, 119_547),
    "bert-base-multilingual-uncased": (12, 768, 3072, 105_879),
    "bert-base-cased": (12, 768, 3072, 28_996),
    "bert-base-uncased": (12, 768, 3072, 30_522),
    "bert-large-cased": (24, 1024, 4096, 28_996),
    "bert-large-uncased": (24, 1024, 4096, 30_522),
    "distilbert-base-multilingual-cased": (6, 768, 3072, 119_547),
}


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
    checkpoints: CheckpointPlan | None = None
    """Those of a training; the devices' wait for them is in the hours."""
    is_launch_bound: bool = False
    """Whether its updates or batches are so small that launches take longer than the operations."""


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
        names = ("tokens", "flops", "device_hours", "bytes")
        figures = {name: sum(getattr(stage, name) for stage in self.stages) for name in names}
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


def plan_pipeline(
    config: Config,
    given: CorpusShape | None = None,
    *,
    device: Device | str | None = None,
    tflops: float | None = None,
    devices: int | None = None,
) -> PipelinePlan:
    """The plan of a configuration. Raises UserError for a corpus or BERT that cannot be had, and an unknown device.

    given: a corpus that is not at hand. device: one, or its name in the table; tflops: its rate, or this machine's;
    devices: how many share the work. What is None is read, measured or taken from the configuration.
    """
    corpus, groups = _corpus(config, given)
    sizes = {}
    for name, of_teacher in config.teacher_configs().items():
        with naming_teacher(name):
            sizes[name] = teacher_size(of_teacher.teacher, corpus.vocabulary)
    teacher = next(iter(sizes.values()))
    arms = config.arm_configs()
    student = student_size(next(iter(arms.values())).student, corpus.vocabulary)
    chosen = chosen_device(config, device, tflops, teacher, student)
    sharing = devices or config.worker_range[1]
    planner = _Planner(config, corpus, groups, chosen, sharing, sizes)
    estimates, results = planner.estimates(), results_of(config).items()
    teachers = config.teacher_configs()
    stages = [
        estimates[stage.name](name, (arms if stage.per_arm else teachers if stage.per_teacher else {"": config})[owner])
        for stage in STAGES.values()
        for name, (of, owner) in results
        if of is stage and stage.name in estimates
    ]
    assumptions = ["no stage ends early, nothing is done twice, devices share the work without loss"]
    if corpus.is_estimate and (config.corpus.clean.duplicates or config.corpus.clean.test_overlap):
        assumptions.append("there are no duplicates and no overlaps with test to drop")
    if any(stage is DECODE for stage, _ in results_of(config).values()):
        assumptions.append("the teacher's translations are as long as the references")
    if any(stage is AUGMENT for stage, _ in results_of(config).values()):
        assumptions.append("epochs of the students are those of their pairs without monolingual text")
    needed = {stage.name for stage, _ in results_of(config).values()}
    longest = max((of.seconds for stage in stages if (of := stage.checkpoints)), default=0.0)
    if longest > config.preemption_grace:
        assumptions.append(f"preemption_grace {config.preemption_grace:g} is set to a checkpoint's {longest:.2g} s")
    if bound := [stage.name for stage in stages if stage.is_launch_bound]:
        each = f"{1e6 * chosen.launch_seconds:.2g} µs each"
        assumptions.append(f"{', '.join(bound)} take as long as their launches, {each}, and not as their operations")
    assumptions += [f"{stage} is not estimated" for stage in STAGES if stage in needed - set(estimates)]
    core_hours = stages[0].tokens / PREPARED_TOKENS_A_CORE_SECOND / 3600
    return PipelinePlan(config.name, corpus, chosen, sharing, stages, core_hours, assumptions)


class _Planner:
    """The stages of one configuration over one corpus."""

    def __init__(
        self,
        config: Config,
        corpus: CorpusShape,
        groups: NDArray[np.int64],
        device: Device,
        devices: int,
        teachers: Mapping[str, TeacherSize],
    ) -> None:
        self._config, self._corpus, self._groups, self._device = config, corpus, groups, device
        self._devices, self._teachers = devices, teachers
        self._train, self._valid, self._test = (corpus.splits[split] for split in SPLITS)

    def estimates(self) -> dict[str, Callable[[str, Config], StagePlan]]:
        """By stage, what gives the plan of a result, from its name and its configuration."""
        return {
            PREPARE.name: self._prepare,
            FINETUNE.name: self._finetune,
            EXTRACT.name: self._extract,
            DECODE.name: self._decode,
            LABEL.name: self._extract,
            DISTILL.name: self._distill,
            TRANSLATE.name: self._translate,
            EVALUATE.name: self._evaluate,
        }

    def _prepare(self, name: str, config: Config) -> StagePlan:
        tokens = sum(split.src_tokens + split.tgt_tokens for split in self._corpus.splits.values())
        return StagePlan(name, None, None, tokens, None, 0.0, 0.0, self._corpus.bytes)

    def _finetune(self, name: str, config: Config) -> StagePlan:
        teacher, size = config.teacher, self._teachers[name.partition("/")[2]]

        def forward(batch: BatchLengths) -> float:
            # All positions from left to right, else the expected ones: of every pair one at least.
            positions, p = batch.tgt + 1, teacher.mask_probability
            masked = positions if teacher.direction == "left_to_right" else p * positions + (1 - p) ** positions
            return batch.teacher_flops(size, teacher.direction, float(masked.sum()))

        return self._training(name, teacher, config.seed, forward, size)

    def _extract(self, name: str, config: Config) -> StagePlan:
        passes, teacher = config.extract_passes(), self._teachers[name.partition("/")[2]]
        batches = extraction_batches(self._train, config, self._device.padding_multiple)

        def forward(batch: BatchLengths) -> float:
            # Over all passes of a pair each of its positions is predicted once.
            positions = np.sum((batch.tgt + 1) / np.minimum(passes, batch.tgt + 1))
            return batch.teacher_flops(teacher, config.teacher.direction, float(positions))

        tokens, flops = batches.per_pass * batches.tokens, batches.per_pass * batches.mean(forward)
        hours, bound = self._hours(EXTRACT.name, flops, batches.per_pass * teacher.layers)
        # Measured shares of what the values of a shard take as they are.
        id_bytes = math.log2(self._corpus.vocabulary) / 8
        entry = KEPT_OF_IDS * id_bytes + KEPT_OF_LOGITS * 2
        of_position = config.stored_topk() * entry + KEPT_OF_LOGSUMEXP * 4
        size = (self._train.tgt_tokens + self._train.pairs) * of_position
        size += KEPT_OF_TOKENS * id_bytes * (self._train.src_tokens + self._train.tgt_tokens)
        steps = round(batches.per_pass)
        return StagePlan(name, steps, None, tokens, batches.padding, flops, hours, size, is_launch_bound=bound)

    def _decode(self, name: str, config: Config) -> StagePlan:
        train, settings, corpus = self._train, config.decode, self._corpus
        teacher = self._teachers[name.partition("/")[2]]
        batches = len(longest_first_batches(train.src + 1, settings.forward_tokens // settings.beam))
        steps = max(1, round(train.pairs / len(train.src) * batches))
        search = teacher_beam_search(teacher, train.src + 2, train.tgt + 1, settings.beam)
        flops = train.pairs / len(train.src) * search
        tokens = train.src_tokens + 2 * train.pairs + settings.beam * train.tgt_tokens
        written = sum(split.src_tokens + split.tgt_tokens for split in corpus.splits.values())
        size = corpus.bytes * (train.src_tokens + train.tgt_tokens) / max(1.0, written)
        return StagePlan(name, steps, None, tokens, None, flops, self._decoding_hours(flops), size)

    def _distill(self, name: str, config: Config) -> StagePlan:
        shape = student_size(config.student, self._corpus.vocabulary)
        forward = partial(BatchLengths.student_flops, size=shape)
        greedy = self._translating(self._valid, shape, 1)
        texts = 2 if config.kd.sequence == "beside" else 1
        return self._training(name, config.student, config.student_seed, forward, shape, greedy, texts)

    def _translate(self, name: str, config: Config) -> StagePlan:
        shape, settings = student_size(config.student, self._corpus.vocabulary), config.translate
        test = self._test
        batches = len(longest_first_batches(test.src + 1, settings.forward_tokens // settings.beam))
        steps = max(1, round(test.pairs / len(test.src) * batches))
        flops = self._translating(test, shape, settings.beam)
        tokens = test.src_tokens + settings.beam * test.tgt_tokens + (1 + settings.beam) * test.pairs
        size = TRANSLATED_BYTES_A_TOKEN * (test.src_tokens + (1 + settings.n_best) * test.tgt_tokens)
        hours = self._decoding_hours(flops)
        return StagePlan(name, steps, None, tokens, None, flops, hours, size)

    def _evaluate(self, name: str, config: Config) -> StagePlan:
        steps, tokens, flops, size = 0.0, 0.0, 0.0, 0.0
        teacher = self._teachers[name.partition("/")[2]]
        # The valid set greedily.
        for split, beam, n_best in (
            (self._valid, 1, 1),
            (self._test, config.translate.beam, config.translate.n_best),
        ):
            of_sample = split.pairs / len(split.src)
            steps += of_sample * len(longest_first_batches(split.src + 1, config.translate.forward_tokens // beam))
            flops += of_sample * teacher_beam_search(teacher, split.src + 2, split.tgt + 1, beam)
            tokens += split.src_tokens + 2 * split.pairs + beam * split.tgt_tokens
            size += TRANSLATED_BYTES_A_TOKEN * (split.src_tokens + (1 + n_best) * split.tgt_tokens)
        hours = self._decoding_hours(flops)
        return StagePlan(name, max(1, round(steps)), None, tokens, None, flops, hours, size)

    def _training(
        self,
        name: str,
        settings: TeacherConfig | StudentConfig,
        seed: int,
        forward: Callable[[BatchLengths], float],
        model: TeacherSize | StudentSize,
        greedy: float = 0.0,
        texts: int = 1,
    ) -> StagePlan:
        """forward, greedy: operations of a batch, and of the translations of a validation.

        texts: how many texts like train an epoch has.
        """
        multiple = self._device.padding_multiple
        windows = BatchPlan(np.tile(self._groups, texts), settings.micro_batches, seed).windows_per_epoch
        train = replace(self._train, pairs=texts * self._train.pairs)
        batches = training_batches(train, windows, settings, seed=seed, multiple=multiple)
        valid = training_batches(self._valid, 1, settings, seed=0, multiple=multiple)
        # Not stopped early: at every `eval_every` steps and at the end.
        validations = -(-settings.steps // settings.eval_every)
        likelihood, greedy = validations * (valid.per_pass * valid.mean(forward)), validations * greedy
        micro, stage = settings.steps * settings.micro_batches, name.partition("/")[0]
        epochs, tokens = micro / batches.per_pass, micro * batches.tokens
        updates = micro * TRAINING * batches.mean(forward)
        # Of the worker with most micro-batches, for which the others wait.
        passes = batches.gpu_passes(-(-settings.micro_batches // self._devices))
        hours, bound = self._hours(stage, updates, settings.steps * self._devices * passes * model.layers)
        layers = validations * valid.per_pass * model.layers / TRAINING
        hours += self._hours(stage, likelihood, layers)[0] + self._decoding_hours(greedy)
        flops = updates + (likelihood + greedy)
        seconds, every = 3600 * hours / self._devices, self._config.checkpoint_every
        checkpoints = plan_checkpoints(
            seconds, settings.steps, model.trained_parameters, every, on_gpu=self._device.is_gpu
        )
        hours += self._devices * checkpoints.waited / 3600
        size = 4.0 * model.parameters
        return StagePlan(name, settings.steps, epochs, tokens, batches.padding, flops, hours, size, checkpoints, bound)

    def _translating(self, split: SplitShape, shape: StudentSize, beam: int) -> float:
        """Operations of a beam search over a split."""
        return split.pairs / len(split.src) * beam_search(shape, split.src + 1, split.tgt + 1, beam)

    def _hours(self, stage: str, flops: float, layers: float) -> tuple[float, bool]:
        """Device hours, and whether launches take them; layers: how many are launched, over all passes."""
        device = self._device
        launching = layers * LAUNCHES_A_LAYER[stage] * device.launch_seconds
        computing = flops / (device.flops[stage] * device.utilisation[stage])
        return max(launching, computing) / 3600, launching > computing

    def _decoding_hours(self, flops: float) -> float:
        """Of searches, in whose measured share launches are."""
        return flops / (self._device.flops[TRANSLATE.name] * self._device.utilisation[TRANSLATE.name]) / 3600


def teacher_size(teacher: TeacherConfig, vocabulary: int) -> TeacherSize:
    """The teacher of a configuration; a well-known hub id is not fetched.

    Raises UserError for a BERT that cannot be had, and for more layers than it has.
    """
    positions, known = 512, _KNOWN.get(teacher.model.removeprefix("google-bert/"))
    if known is None:
        bert = bert_config(resolve_model(teacher.model))
        known = bert["num_hidden_layers"], bert["hidden_size"], bert["intermediate_size"], bert["vocab_size"]
        positions = bert["max_position_embeddings"]
    layers, width, ffn, pieces = known
    if teacher.layers is not None and teacher.layers > layers:
        raise UserError(f"teacher.layers: {teacher.layers}, but {teacher.model} has {layers}")
    return TeacherSize(teacher.layers or layers, width, ffn, vocabulary, pieces, positions)


def student_size(student: StudentConfig, vocabulary: int) -> StudentSize:
    """The student of a configuration."""
    return StudentSize(student.encoder_layers, student.decoder_layers, student.width, student.ffn, vocabulary)


def _without_name(stage: StagePlan) -> dict[str, Any]:
    return {name: value for name, value in asdict(stage).items() if name != "name"}


def _corpus(config: Config, given: CorpusShape | None) -> tuple[CorpusShape, NDArray[np.int64]]:
    """The corpus's shape, and the rows of train's row groups."""
    if given is None:
        bert, store = resolve_model(config.teacher.model), Store(config.storage)
        # The text is read as a whole for its fingerprint, so only where some corpus is finished.
        if any(name.startswith("corpus-") for name in store.directories()):
            pending = prepare.pending_artifact(config, store, {"bert_tokenizer": tokenizer_hash(bert)})
            corpus = load_finished(store, pending.directory)
            if corpus is not None:
                return shape_of_artifact(corpus), RowGroups(corpus, "train/", []).rows
        given = shape_of_text(config.corpus, bert)
    groups = full_groups(given.splits["train"].pairs, config.corpus.fragment_pairs, config.corpus.group_pairs)
    return given, groups
