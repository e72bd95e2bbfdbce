"""The whole configuration: frozen models, one per stage, loaded from YAML and `section.key=value` overrides.

Defaults are the paper's settings. A key that cannot change a result (workers, device, storage, tracking, logging) is
left out of every fingerprint, so that a cluster reuses what a laptop has made.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, Field, PlainValidator, ValidationError, model_validator

from bertkd_ray.config.corpus import ONE_OR_MANY, CorpusConfig
from bertkd_ray.config.section import Section
from bertkd_ray.config.yaml_text import parse_yaml
from bertkd_ray.core.errors import UserError

NOT_PART_OF_A_RESULT = {
    "storage",
    "verify",
    "workers",
    "resize_every",
    "cpus_per_worker",
    "device",
    "runtime",
    "max_failures",
    "max_rejects",
    "preemption_grace",
    "checkpoint_every",
    "log_every",
    "tracking",
}
"""Top-level keys that change how a result is come by, not what it is."""

CONTROL_OVERRIDES: dict[str, Any] = {"kd.alpha": 0}
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
AnySection = TypeVar("AnySection", bound=Section)


class TeacherConfig(Section):
    """Stage 1, finetune: the conditional masked language model."""

    added_later: ClassVar[frozenset[str]] = frozenset({"left_to_right"})

    model: str = "bert-base-multilingual-cased"
    """Any BERT: a directory, a hub id, or `package:NAME/DIRECTORY` for one that a Python package carries."""
    pretrained: bool = True
    """False: only the configuration and vocabulary are taken and the weights start at random (the ablation)."""
    layers: int | None = Field(None, ge=1)
    """Keep only the first so many layers; null keeps all."""
    left_to_right: bool = False
    """True: a target position sees the source and the target up to itself, the source only itself (the ablation)."""
    attention: Literal["auto", "eager", "sdpa"] = "auto"
    """Attention kernels; `auto` is plain attention, whose training is faster on CPUs and, with many shapes, on GPUs."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """Dropout on hidden states; null is the checkpoint's own (0.1)."""
    attention_dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout on attention weights."""
    steps: int = Field(100_000, ge=1)
    """Updates."""
    batch_tokens: int = Field(16_384, ge=1)
    """Padded tokens an update, both sides together, over all workers."""
    micro_batches: int = Field(1, ge=1)
    """Micro-batches an update; a multiple of the number of workers. Part of the batch plan, so part of the result."""
    mask_probability: float = Field(0.15, gt=0, le=1)
    """Probability that a target position is masked."""
    optimizer: Literal["adamw", "bertadam"] = "adamw"
    """`bertadam` is the original's Adam without bias correction, clipped tensor by tensor."""
    lr: float = Field(5e-5, gt=0)
    """Peak learning rate."""
    warmup: float = Field(0.05, ge=0, le=1)
    """Share of the steps in which the rate rises linearly; afterwards it falls linearly to 0."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay; none for biases and LayerNorm."""
    clip: float = Field(1.0, gt=0)
    """Gradient norm above which the gradient is scaled down."""
    eval_every: int = Field(1_000, ge=1)
    """Steps between validations."""
    patience: int | None = Field(None, ge=1)
    """Stop after so many validations without a lower loss; null never stops early."""


class ExtractConfig(Section):
    """Stage 2, extract: the teacher's soft labels."""

    topk: int | None = Field(None, ge=1)
    """Logits stored a position; null stores as many as the arms' kd.topk asks for."""
    passes: int = Field(7, ge=1)
    """Times each pair is seen; pass j masks the target positions j, j + passes, …"""
    batch_tokens: int = Field(16_384, ge=1)
    """Padded tokens a forward pass."""


class KdConfig(Section):
    """The distillation loss of stage 3."""

    added_later: ClassVar[frozenset[str]] = frozenset({"symmetric"})

    alpha: float = Field(0.5, ge=0, le=1)
    """Weight of the soft labels; 0 trains without the teacher."""
    temperature: float = Field(10.0, gt=0)
    """Divides the teacher's logits (the student stays at 1, unless `symmetric`)."""
    symmetric: bool = False
    """True: the temperature divides the student's logits too, and the loss is scaled by its square (Hinton et al.)."""
    topk: int = Field(8, ge=1)
    """Teacher logits used a position."""
    tail: Literal["renormalise", "exact"] = "renormalise"
    """`renormalise` the k logits as the paper does, or give the rest its `exact` mass (temperature 1 only)."""

    @model_validator(mode="after")
    def _exact_tail_needs_temperature_one(self) -> KdConfig:
        if self.tail == "exact" and self.temperature != 1.0:
            raise ValueError("tail: exact is defined at temperature 1; set kd.temperature=1")
        return self


class StudentConfig(Section):
    """Stage 3, distill: the student and its training."""

    added_later: ClassVar[frozenset[str]] = frozenset({"schedule"})

    encoder_layers: int = Field(6, ge=1)
    """Layers of the encoder."""
    decoder_layers: int = Field(6, ge=1)
    """Layers of the decoder."""
    width: int = Field(512, ge=8)
    """Size of embeddings and hidden states."""
    ffn: int = Field(2048, ge=8)
    """Size of the feed-forward layers' inner state."""
    heads: int = Field(8, ge=1)
    """Attention heads; they divide `width`."""
    dropout: float = Field(0.3, ge=0, lt=1)
    """Dropout on residuals and embeddings."""
    attention_dropout: float = Field(0.3, ge=0, lt=1)
    """Dropout on attention weights."""
    activation_dropout: float = Field(0.3, ge=0, lt=1)
    """Dropout inside the feed-forward layers."""
    steps: int = Field(100_000, ge=1)
    """Updates, the same for every arm."""
    batch_tokens: int = Field(6_144, ge=1)
    """Padded tokens an update, counted on the longer side, over all workers."""
    micro_batches: int = Field(1, ge=1)
    """Micro-batches an update; a multiple of the number of workers. Part of the batch plan, so part of the result."""
    lr: float = Field(2.0, gt=0)
    """Factor of the schedule lr · width^-0.5 · min(step^-0.5, step · warmup^-1.5)."""
    warmup: int = Field(8_000, ge=1)
    """Steps in which the rate rises linearly."""
    schedule: Literal["inverse-sqrt", "linear"] = "inverse-sqrt"
    """What follows the warm-up: the formula above, or from its peak a linear fall to 0 just after the last step."""
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Probability mass that the hard label gives to the other tokens."""
    clip: float | None = Field(None, gt=0)
    """Gradient norm above which the gradient is scaled down; null never does (as OpenNMT)."""
    eval_every: int = Field(1_000, ge=1)
    """Steps between validations (token accuracy, perplexity, greedy BLEU)."""
    patience: int | None = Field(None, ge=1)
    """Stop after so many validations without a higher BLEU; null never stops early."""
    average: int = Field(1, ge=1)
    """Average the weights of the last so many validated checkpoints; 1 takes the best one by valid BLEU."""
    seed: int | None = Field(None, ge=0, lt=2**31)
    """Seed of the student alone, so that students of several seeds share a teacher; null is the top-level `seed`."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> StudentConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}; choose heads that divide it")
        return self


class TranslateConfig(Section):
    """Stage 4, translate and score."""

    beam: int = Field(5, ge=1)
    """Beam size; 1 is greedy."""
    length_penalty: float = Field(0.6, ge=0)
    """Exponent of the GNMT penalty ((5 + length) / 6)^x."""
    n_best: int = Field(1, ge=1)
    """Hypotheses kept a sentence; at most `beam`."""
    batch_tokens: int = Field(8_192, ge=1)
    """Padded source tokens times beam in one batch."""
    bootstrap_samples: int = Field(1_000, ge=10)
    """Samples of the paired bootstrap between an arm and the control."""

    @model_validator(mode="after")
    def _n_best_within_beam(self) -> TranslateConfig:
        if self.n_best > self.beam:
            raise ValueError(f"n_best {self.n_best} is more than beam {self.beam}; lower n_best or raise beam")
        return self


class TrackingConfig(Section):
    """Where the runs are recorded."""

    uri: str | None = None
    """MLflow tracking URI; null is MLFLOW_TRACKING_URI where that is set, else SQLite in the storage directory; `none`
    switches tracking off."""
    experiment: str | None = None
    """MLflow experiment; null is the configuration's name."""
    log_model: bool = True
    """Whether `run` logs each arm's student as a model, which `mlflow models serve` serves; a study logs none."""
    registered_model: str | None = Field(None, pattern=NAME)
    """Registered model of which each arm's student becomes a version; the alias `champion` is the one with the best
    valid BLEU. Null registers none."""

    @model_validator(mode="after")
    def _what_is_registered_is_logged(self) -> TrackingConfig:
        if self.registered_model and (self.uri == "none" or not self.log_model):
            raise ValueError("registered_model needs a logged model; set log_model: true and a uri other than none")
        return self


def _worker_count(value: Any) -> int | tuple[int, int]:
    """A number of train workers, or the least and the most of them."""
    counts = list(value) if isinstance(value, list | tuple) else [value]
    # YAML's `true` is an int to Python.
    if any(isinstance(count, bool) or not isinstance(count, int) or count < 1 for count in counts):
        raise ValueError("a whole number from 1, or [least, most] of them, is needed")
    if not isinstance(value, list | tuple):
        return counts[0]
    if len(counts) != 2 or counts[0] > counts[1]:
        raise ValueError("the least and the most workers are needed, for example [1, 4]")
    return counts[0], counts[1]


def _tracking_section(value: Any) -> Any:
    """`tracking: none` is short for `tracking: {uri: none}`."""
    return {"uri": "none"} if value in ("none", "None") else value


class Config(Section):
    """One pipeline: a corpus, a teacher, and the students to compare."""

    name: str = Field(pattern=NAME)
    """Name of the pipeline, of its MLflow experiment and of nothing else."""
    storage: str = "artifacts"
    """Directory or URI (`s3://`, `gs://`) of the artifacts; on a cluster every node must reach it."""
    verify: Literal["checksums", "sizes"] = "checksums"
    """How finished artifacts are checked against their manifests before use; `sizes` does not read what they hold."""
    seed: int = Field(1, ge=0, lt=2**31)
    """Seed of initialisation, masks, shuffling and dropout; `student.seed` changes the student's alone."""
    precision: Literal["auto", "bf16", "float32"] = "auto"
    """`auto` is bf16 where the hardware multiplies bf16 (CUDA; CPUs with AMX or AVX512-BF16), else float32."""
    workers: Annotated[int | tuple[int, int], PlainValidator(_worker_count)] = 1
    """Train workers, a number that divides the micro-batches of an update; or `[least, most]`: as many as the cluster
    has room for, again whenever nodes leave or join."""
    resize_every: float = Field(60.0, gt=0)
    """Seconds between two looks whether the cluster has room for another number of `workers: [least, most]`; a change
    starts the training again from a checkpoint."""
    cpus_per_worker: int | None = Field(None, ge=1)
    """CPUs, and torch threads, a train worker; null shares out the largest node."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """`auto` takes GPUs where the cluster has them."""
    runtime: Literal["ray", "local"] = "ray"
    """`local` runs every stage in the command's own process, without Ray: for a debugger or a bare machine."""
    max_failures: int = Field(3, ge=0)
    """Times that a training job starts again from its checkpoint after a lost worker, and that a map goes on after
    actors that died for good without anything done in between. Nodes that are drained do not count."""
    preemption_grace: float = Field(30.0, ge=0)
    """Seconds that a train worker has for a checkpoint after SIGTERM, and others after a node's announced end."""
    max_rejects: float = Field(0.001, ge=0, lt=1)
    """Share of a stage's pairs that extract and translate may leave out because computing them raises or kills its
    process, before the stage fails. They stand in the artifact's table of rejects. The distilled arms train on the
    pairs that have soft labels, the control on the whole corpus: with rejects, their batches differ."""
    checkpoint_every: int = Field(200, ge=1)
    """Steps between checkpoints; at most so much work is repeated after a failure."""
    log_every: int = Field(10, ge=1)
    """Steps between two points of the training curves."""
    corpus: CorpusConfig
    """Stage 0."""
    teacher: TeacherConfig = TeacherConfig()
    """Stage 1."""
    extract: ExtractConfig = ExtractConfig()
    """Stage 2."""
    kd: KdConfig = KdConfig()
    """Stage 3, the loss."""
    student: StudentConfig = StudentConfig()
    """Stage 3, the student."""
    arms: dict[Annotated[str, Field(pattern=NAME)], dict[str, Any]] = Field(
        {"distilled": {}, "control": CONTROL_OVERRIDES}
    )
    """Students to compare: name and the `kd.*` and `student.*` keys that differ."""
    translate: TranslateConfig = TranslateConfig()
    """Stage 4."""
    tracking: Annotated[TrackingConfig, BeforeValidator(_tracking_section)] = TrackingConfig()
    """MLflow."""

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Config:
        if self.runtime == "local" and self.worker_range[0] > 1:
            raise ValueError(f"workers: {self.workers} need Ray; set workers=1 or runtime=ray")
        for section in ("teacher", "student"):
            self._check_micro_batches(section, getattr(self, section).micro_batches)
        teacher_budget = self.teacher.batch_tokens // self.teacher.micro_batches
        longest_pair = min(self.corpus.max_pair_tokens, 2 * self.corpus.max_side_tokens) + 3
        if teacher_budget < longest_pair:
            raise ValueError(
                f"teacher.batch_tokens / micro_batches is {teacher_budget}, less than the longest admitted pair "
                f"({longest_pair} tokens); raise it or lower corpus.max_side_tokens"
            )
        student_budget = self.student.batch_tokens // self.student.micro_batches
        if student_budget < self.corpus.max_side_tokens + 1:
            raise ValueError(
                f"student.batch_tokens / micro_batches is {student_budget}, less than the longest admitted side "
                f"({self.corpus.max_side_tokens + 1} tokens); raise it or lower corpus.max_side_tokens"
            )
        if not self.arms:
            raise ValueError("arms is empty; name at least one student")
        return self

    def _check_micro_batches(self, section: str, micro_batches: int) -> None:
        """Every worker needs a micro-batch; workers of a fixed number an equal share."""
        if not isinstance(self.workers, int):
            if self.max_failures == 0:
                raise ValueError("workers: a changing number of them needs max_failures of at least 1")
            if micro_batches < self.workers[1]:
                raise ValueError(
                    f"{section}.micro_batches {micro_batches} is less than the most workers {self.workers[1]}; "
                    f"set {section}.micro_batches={self.workers[1]}"
                )
        elif micro_batches % self.workers:
            raise ValueError(
                f"{section}.micro_batches {micro_batches} is not a multiple of workers {self.workers}; "
                f"set {section}.micro_batches={-(-micro_batches // self.workers) * self.workers}"
            )

    @property
    def worker_range(self) -> tuple[int, int]:
        """The least and the most train workers; equal where their number is fixed."""
        return (self.workers, self.workers) if isinstance(self.workers, int) else self.workers

    def stored_topk(self) -> int:
        """Logits that extract stores a position: as configured, else what the distilled arms use."""
        used = [arm.kd.topk for arm in self.arm_configs().values() if arm.kd.alpha > 0]
        return self.extract.topk or max(used, default=self.kd.topk)

    @property
    def student_seed(self) -> int:
        """Seed of the student's initialisation, batches and dropout."""
        return self.seed if self.student.seed is None else self.student.seed

    def arm_configs(self) -> dict[str, Config]:
        """The configuration of every arm: this one with the arm's overrides."""
        return {arm: self._with_overrides(arm, overrides) for arm, overrides in self.arms.items()}

    def _with_overrides(self, arm: str, overrides: dict[str, Any]) -> Config:
        tree = self.model_dump()
        for key, value in dotted(overrides):
            if key.split(".")[0] not in ("kd", "student"):
                raise UserError(f"arms.{arm}: {key} is not a kd.* or student.* key; arms differ in those alone")
            set_key(tree, key, value)
        return validated(Config, tree, f"arms.{arm}")


def dotted(tree: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The values below nested sections by their dotted keys, so that `kd: {alpha: 0}` leaves the rest of kd alone."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from dotted(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def set_key(tree: dict[str, Any], key: str, value: Any) -> None:
    """Sets a dotted key, making the sections on the way."""
    *sections, last = key.split(".")
    for depth, section in enumerate(sections):
        below = {} if tree.get(section) is None else tree[section]
        if not isinstance(below, dict):
            raise UserError(f"{key}: {'.'.join(sections[: depth + 1])} is a value, not a section")
        # Copied, since a YAML alias is the very object that it stands for, and this key alone is meant.
        tree[section] = dict(below)
        tree = tree[section]
    tree[last] = value


def validated(model: type[AnySection], tree: dict[str, Any], origin: str) -> AnySection:
    """A tree of keys as a section. Raises UserError, in one line, for what is wrong with it."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{origin}: " + "; ".join(_explain(item, model) for item in error.errors())) from None


def _explain(item: Any, model: type[Section]) -> str:
    """One of pydantic's findings as `key: what is wrong (got value)`."""
    location = [part for part in item["loc"] if part not in ("[key]", *ONE_OR_MANY)]
    key = ".".join(map(str, location))
    if item["type"] == "extra_forbidden":
        return f"unknown key {key}{_suggestion(location, model)}"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] in ("model_type", "dict_type"):
        message = "a section of keys and values is needed"
    value = item.get("input")
    got = "" if isinstance(value, dict | BaseModel) or item["type"] == "missing" else f" (got {value!r})"
    return f"{key}: {message}{got}" if key else message


def _suggestion(location: list[str | int], model: type[Section]) -> str:
    """The known key that an unknown one most resembles."""
    from difflib import get_close_matches

    inner: type[Section] | None = model
    for part in location[:-1]:
        if isinstance(part, str) and inner is not None:
            inner = _section_in(inner.model_fields[part].annotation)
    close = get_close_matches(str(location[-1]), inner.model_fields if inner else [], n=1)
    return f"; did you mean {'.'.join([*map(str, location[:-1]), close[0]])}?" if close else ""


def _section_in(annotation: Any) -> type[Section] | None:
    """The section that a field holds, perhaps in a list or as one of several things."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _section_in(inner))), None)


def load_config(path: str | Path, overrides: list[str] | None = None) -> Config:
    """Reads a YAML file and applies `section.key=value` overrides, their values read as YAML.

    Raises UserError, in one line, for a missing or malformed file, an unknown key (with the nearest known one), a wrong
    type or an impossible combination. Relative paths in the file are relative to the working directory.
    """
    tree = read_tree(path)
    if "base" in tree:
        raise UserError(f"{path}: this is a study, not a configuration; give it to bertkd study")
    return config_of(tree, str(path), overrides)


def read_tree(path: str | Path) -> dict[str, Any]:
    """The keys of a YAML file. Raises UserError for a file that is missing or is no mapping."""
    try:
        tree = parse_yaml(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a YAML configuration, for example configs/demo.yaml") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: not a configuration; it must be a mapping of keys to values")
    return tree


def read_override(text: str) -> tuple[str, Any]:
    """Key and value of `section.key=value`. Raises UserError for anything else."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise UserError(f"{text!r}: an override is written section.key=value")
    try:
        return key, parse_yaml(value)
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{text!r}: the value is not YAML: {' '.join(str(error).split())}") from None


def override(tree: dict[str, Any], key: str, value: Any) -> None:
    """Sets a dotted key of a configuration's tree. Raises UserError where a value stands in its way."""
    if isinstance(tree.get("tracking"), str) and key.startswith("tracking."):
        tree["tracking"] = _tracking_section(tree["tracking"])
    if key.startswith("arms."):
        tree.setdefault("arms", deepcopy(Config.model_fields["arms"].default))
    set_key(tree, key, value)


def config_of(tree: dict[str, Any], origin: str, overrides: list[str] | None = None) -> Config:
    """The configuration of a tree of keys, which the overrides change; `origin` stands in the messages.

    Raises UserError as `load_config` does.
    """
    for text in overrides or []:
        override(tree, *read_override(text))
    config = validated(Config, tree, origin)
    stored = config.stored_topk()
    # An arm that does not validate is found here, not hours later.
    for arm, arm_config in config.arm_configs().items():
        if arm_config.kd.alpha > 0 and arm_config.kd.topk > stored:
            topk = arm_config.kd.topk
            raise UserError(f"{origin}: arms.{arm}: kd.topk {topk} is more than extract.topk {stored}; raise it")
    return config
