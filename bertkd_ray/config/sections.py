"""The sections of the stages after the corpus, and of the tracking. Defaults are the paper's settings."""

from collections.abc import Iterable, Set
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from bertkd_ray.config.model_config import Share
from bertkd_ray.config.section import ONE_OR_MANY, Location, Name, Section

WARMUP_SHARE = 0.05
"""Share of the teacher's steps in which its rate rises, where `warmup_steps` is null."""
Direction = Literal["both", "left_to_right"]
LEFT_TO_RIGHT_LAYOUT = "prefix_lm"
"""Names the input of left-to-right teachers in fingerprints and models: those of an earlier one read another."""
NOAM_FACTOR = 2.0
"""OpenNMT's factor of the student's schedule, where `peak_lr` is null."""


class TeacherConfig(Section):
    """The finetune stage: the conditional masked language model."""

    added_later = frozenset({"direction"})
    hashed_as = MappingProxyType({"peak_lr": ("lr", "peak_lr"), "warmup_steps": ("warmup", "warmup_share")})

    model: Location = "bert-base-multilingual-cased"
    """Any BERT: a directory, a hub id, or `package:NAME/DIRECTORY` for one that a Python package carries."""
    pretrained: bool = True
    """False: only the configuration and vocabulary are taken and the weights start at random (the ablation)."""
    layers: int | None = Field(None, ge=1, le=1000)
    """Keep only the first so many layers; null keeps all."""
    direction: Direction = "both"
    """`both`: masked positions see the whole pair, as in the paper. `left_to_right`: every target position is predicted
    at once, each from the source and the target before it."""
    attention: Literal["auto", "eager", "sdpa"] = "auto"
    """Attention kernels; `auto` is plain attention, whose training is faster on CPUs and, with many shapes, on GPUs."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """Dropout on hidden states; null is the checkpoint's own (0.1)."""
    attention_dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout on attention weights."""
    steps: int = Field(100_000, ge=1, le=10**9)
    """Updates."""
    batch_tokens: int = Field(16_384, ge=1, le=10**9)
    """Padded tokens an update, over all workers: pairs times the longest sequence, which holds both sides of a pair."""
    micro_batches: int = Field(1, ge=1, le=10**5)
    """Micro-batches an update; a multiple of the number of workers. Part of the batch plan, so part of the result."""
    mask_probability: float = Field(0.15, ge=0.001, le=1)
    """Probability that a target position is masked; from left to right all are predicted."""
    optimizer: Literal["adamw", "bertadam"] = "adamw"
    """`bertadam` is the original's Adam without bias correction, clipped tensor by tensor."""
    peak_lr: float = Field(5e-5, gt=0)
    """Highest learning rate."""
    warmup_steps: int | None = Field(None, ge=0, le=10**9)
    """Steps in which the rate rises linearly; afterwards it falls linearly to 0. Null is a twentieth of `steps`."""
    weight_decay: float = Field(0.01, ge=0, le=1000)
    """Decoupled weight decay; none for biases and LayerNorm."""
    clip: float = Field(1.0, gt=0, le=10**9)
    """Gradient norm above which the gradient is scaled down."""
    eval_every: int = Field(1_000, ge=1, le=10**9)
    """Steps between validations."""
    patience: int | None = Field(None, ge=1, le=10**9)
    """Stop after so many validations without a lower loss; null never stops early."""

    @model_validator(mode="after")
    def _warmup_within_steps(self) -> Self:
        if self.warmup_steps is not None and self.warmup_steps > self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} is more than steps {self.steps}; lower it")
        return self

    def under_hashed_keys(self, *, exclude: Set[str] = frozenset()) -> dict[str, Any]:
        """Every value but for `exclude`, under the keys of fingerprints.

        From left to right with `layout`, and without `mask_probability`, which means nothing there.
        """
        if self.layout is None:
            return super().under_hashed_keys(exclude=exclude)
        return super().under_hashed_keys(exclude={*exclude, "mask_probability"}) | {"layout": self.layout}

    @property
    def layout(self) -> str | None:
        """The name of a left-to-right teacher's input; None for a bidirectional one's."""
        return LEFT_TO_RIGHT_LAYOUT if self.direction == "left_to_right" else None

    @property
    def warmup_share(self) -> float:
        """The share of the steps in which the rate rises."""
        return WARMUP_SHARE if self.warmup_steps is None else self.warmup_steps / self.steps


class ExtractConfig(Section):
    """The extract stage: the teacher's soft labels."""

    hashed_as = MappingProxyType({"forward_tokens": ("batch_tokens", "forward_tokens")})

    topk: int | None = Field(None, ge=1, le=10**6)
    """Logits stored a position; null stores as many as the arms' kd.topk asks for."""
    passes: int = Field(7, ge=1, le=1000)
    """Times each pair is seen; pass j masks the target positions j, j + passes, … From left to right once is enough."""
    forward_tokens: int = Field(16_384, ge=1, le=10**9)
    """Padded tokens a forward pass: masked copies of pairs times the longest sequence, which holds both sides."""


def _no_truth_value(values: Iterable[Any]) -> None:
    # As `Section` says of single values.
    if any(isinstance(value, bool) for value in values):
        raise ValueError("true and false (bare yes, no, on, off) have no meaning here; give numbers")


def _two_ends(value: Any) -> Any:
    _no_truth_value(value if isinstance(value, list | tuple) else ())
    if isinstance(value, list | tuple) and len(value) != 2:
        raise ValueError("one weight, or the first and the last of a schedule, such as [0.9, 0.3], is needed")
    return value


def _one_if_constant(value: float | list[float]) -> float | list[float]:
    return value[0] if isinstance(value, list) and value[0] == value[1] else value


_Alpha = Annotated[
    Annotated[Share, Tag(ONE_OR_MANY[0])] | Annotated[list[Share], Tag(ONE_OR_MANY[1])],
    Discriminator(lambda value: ONE_OR_MANY[isinstance(value, list | tuple)]),
    BeforeValidator(_two_ends),
    AfterValidator(_one_if_constant),
]


def _weights(value: Any) -> Any:
    _no_truth_value(value.values() if isinstance(value, dict) else ())
    return {value: 1.0} if isinstance(value, str) else value


def _sum_to_one(weights: dict[str, float]) -> dict[str, float]:
    if not weights:
        raise ValueError("empty; name a teacher or several with their weights, or leave it out")
    if abs((total := sum(weights.values())) - 1) > 1e-6:
        raise ValueError(f"the weights sum to {total:g}; make them sum to 1")
    return weights


class DecodeConfig(Section):
    """The decode stage: the teacher's translations of the training sources, for `kd.sequence`."""

    hashed_as = MappingProxyType({"forward_tokens": ("batch_tokens", "forward_tokens")})

    beam: int = Field(5, ge=1, le=1000)
    """Beam size; 1 is greedy."""
    length_penalty: float = Field(0.6, ge=0, le=10)
    """Exponent of the GNMT penalty ((5 + length) / 6)^x."""
    forward_tokens: int = Field(8_192, ge=1, le=10**9)
    """Padded tokens a forward pass: sentences times `beam` times the longest source."""


class KdConfig(Section):
    """What the students learn from: the references, the teacher's translations, its soft labels, and their loss."""

    added_later = frozenset({"symmetric", "at_end", "sequence", "monolingual_weight", "teachers"})

    alpha: _Alpha = 0.5
    """Weight of the soft labels; 0 trains without them. `[0.9, 0.3]`: from the first to the second over
    `student.steps`, linearly."""
    at_end: bool = True
    """False: at the end of a sentence the reference counts alone, with its whole weight."""
    teachers: Annotated[dict[Name, Share], BeforeValidator(_weights), AfterValidator(_sum_to_one)] | None = None
    """Which of `teachers` and with what weight, `{bidirectional: 0.5, forward: 0.5}`, or the name of one. Their
    probabilities are mixed. Null is all of them, in equal parts."""
    temperature: float = Field(10.0, ge=0.001, le=10**6)
    """Divides the teacher's logits (the student stays at 1, unless `symmetric`)."""
    symmetric: bool = False
    """True: the temperature divides the student's logits too, and the loss is scaled by its square (Hinton et al.)."""
    topk: int = Field(8, ge=1, le=10**6)
    """Teacher logits used a position."""
    tail: Literal["renormalise", "exact"] = "renormalise"
    """`renormalise` the k logits as the paper does, or give the rest its `exact` mass (temperature 1 only)."""
    sequence: Literal["none", "instead", "beside"] = "none"
    """Train on the teacher's own translations of the training sources, by beam search (`decode`), `instead` of the
    references or `beside` them; with `alpha` above 0 under soft labels of the same teacher. Needs `teacher.direction:
    left_to_right`."""

    monolingual_weight: float = Field(1.0, ge=0, le=100)
    """With `corpus.monolingual`, in arms that learn from the teacher: weight of the loss of the pairs that the teacher
    has made of it; 0 leaves them out. Needs `teacher.direction: left_to_right`."""

    @model_validator(mode="after")
    def _exact_tail_needs_temperature_one(self) -> Self:
        if self.tail == "exact" and self.temperature != 1.0:
            raise ValueError("tail: exact is defined at temperature 1; set kd.temperature=1")
        return self

    @property
    def has_teacher(self) -> bool:
        """Whether a student learns anything from the teacher; an arm that does not is a control."""
        return self.has_soft_labels or self.sequence != "none"

    @property
    def has_soft_labels(self) -> bool:
        """Whether soft labels have a weight at any step."""
        return self.alpha != 0

    @property
    def is_scheduled(self) -> bool:
        """Whether the weight of the soft labels changes from step to step."""
        return isinstance(self.alpha, list)

    def alpha_at(self, step: int, steps: int) -> float:
        """The weight of the soft labels at a step, counted from 1, of a training of so many."""
        if not isinstance(self.alpha, list):
            return self.alpha
        first, last = self.alpha
        # Rounding must not lead out of [0, 1].
        return min(max(first + (last - first) * (step - 1) / max(steps - 1, 1), min(first, last)), max(first, last))

    def counting(self) -> dict[str, Any]:
        """What enters the fingerprint of a student; without soft labels the other keys of their loss mean nothing.

        At temperature 1 `symmetric` means nothing either. The weight of monolingual text enters where there is some.
        """
        if self.has_soft_labels:
            idle = {"symmetric"} if self.temperature == 1 else set()
            return self.fingerprinted(exclude=frozenset({"monolingual_weight", "teachers", *idle}))
        return {"alpha": 0.0, **({} if self.sequence == "none" else {"sequence": self.sequence})}


class StudentConfig(Section):
    """The distill stage: the student and its training."""

    added_later = frozenset({"schedule", "start", "subword_dropout"})
    hashed_as = MappingProxyType({"peak_lr": ("lr", "noam_factor"), "warmup_steps": ("warmup", "warmup_steps")})

    encoder_layers: int = Field(6, ge=1, le=1000)
    """Layers of the encoder."""
    decoder_layers: int = Field(6, ge=1, le=1000)
    """Layers of the decoder."""
    width: int = Field(512, ge=8, le=2**16)
    """Size of embeddings and hidden states."""
    ffn: int = Field(2048, ge=8, le=2**18)
    """Size of the feed-forward layers' inner state."""
    heads: int = Field(8, ge=1, le=2**12)
    """Attention heads; they divide `width`."""
    start: Location | None = None
    """A finished student to go on from, of the same shape and vocabulary: its artifact (a directory or a URI) or its
    model directory. Its weights are taken, and all else is new, the optimizer too. Null starts from new weights."""
    dropout: float = Field(0.3, ge=0, lt=1)
    """Dropout on residuals and embeddings."""
    attention_dropout: float = Field(0.3, ge=0, lt=1)
    """Dropout on attention weights."""
    activation_dropout: float = Field(0.3, ge=0, lt=1)
    """Dropout inside the feed-forward layers."""
    subword_dropout: float = Field(0.0, ge=0, lt=1)
    """Probability with which a token is left out where it would be the longest match, so that source words are cut
    otherwise in every epoch (MaxMatch-dropout); targets and their soft labels stay. Only in training."""
    steps: int = Field(100_000, ge=1, le=10**9)
    """Updates, the same for every arm."""
    batch_tokens: int = Field(6_144, ge=1, le=10**9)
    """Padded tokens an update, over all workers: pairs times the longest sequence, be it a source or a target."""
    micro_batches: int = Field(1, ge=1, le=10**5)
    """Micro-batches an update; a multiple of the number of workers. Part of the batch plan, so part of the result."""
    peak_lr: float | None = Field(None, gt=0)
    """Highest learning rate; six digits count. Null is the paper's, 2 · (width · warmup_steps)^-0.5: 9.882118e-4 at
    width 512 with 8,000 steps of warm-up."""
    warmup_steps: int = Field(8_000, ge=1, le=10**9)
    """Steps in which the rate rises linearly; with schedule `linear` at most `steps`."""
    schedule: Literal["inverse-sqrt", "linear"] = "inverse-sqrt"
    """What follows the warm-up: peak_lr · (warmup_steps / step)^0.5, as in the original Transformer, or a linear fall
    to 0 just after the last step."""
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Probability mass that the hard label gives to the other tokens."""
    clip: float | None = Field(None, gt=0, le=10**9)
    """Gradient norm above which the gradient is scaled down; null never does (as OpenNMT)."""
    eval_every: int = Field(1_000, ge=1, le=10**9)
    """Steps between validations (token accuracy, perplexity, greedy BLEU)."""
    patience: int | None = Field(None, ge=1, le=10**9)
    """Stop after so many validations without a higher BLEU; null never stops early."""
    average: int = Field(1, ge=1, le=1000)
    """Average the weights of the last so many validated checkpoints; 1 takes the best one by valid BLEU."""
    seed: int | None = Field(None, ge=0, lt=2**31)
    """Seed of the student alone, so that students of several seeds share a teacher; null is the top-level `seed`."""

    @model_validator(mode="after")
    def _numbers_fit_together(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}; choose heads that divide it")
        if self.schedule == "linear" and self.warmup_steps > self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} is more than steps {self.steps}; lower it")
        return self

    @property
    def noam_factor(self) -> float:
        """The peak as OpenNMT's factor, peak_lr · (width · warmup_steps)^0.5, to six significant digits.

        So a peak that is written with seven digits stands for the very factor that it was computed from.
        """
        if self.peak_lr is None:
            return NOAM_FACTOR
        return float(f"{self.peak_lr * (self.width * self.warmup_steps) ** 0.5:.5e}")


class TranslateConfig(Section):
    """The translate stage: the search, and the scores."""

    added_later = frozenset({"teacher"})
    hashed_as = MappingProxyType({"forward_tokens": ("batch_tokens", "forward_tokens")})

    beam: int = Field(5, ge=1, le=1000)
    """Beam size; 1 is greedy."""
    length_penalty: float = Field(0.6, ge=0, le=10)
    """Exponent of the GNMT penalty ((5 + length) / 6)^x."""
    n_best: int = Field(1, ge=1, le=1000)
    """Hypotheses kept a sentence; at most `beam`."""
    forward_tokens: int = Field(8_192, ge=1, le=10**9)
    """Padded tokens a forward pass: sentences times `beam` times the longest source."""
    bootstrap_samples: int = Field(1_000, ge=10, le=10**5)
    """Samples of the paired bootstrap between an arm and the control."""
    teacher: bool = True
    """Whether a left-to-right teacher translates the valid and the test set too and has a row in the table; a
    bidirectional one cannot."""

    @model_validator(mode="after")
    def _n_best_within_beam(self) -> Self:
        if self.n_best > self.beam:
            raise ValueError(f"n_best {self.n_best} is more than beam {self.beam}; lower n_best or raise beam")
        return self


class TrackingConfig(Section):
    """Where the runs are recorded."""

    uri: Location | None = None
    """MLflow tracking URI; null is MLFLOW_TRACKING_URI where that is set, else SQLite in the storage directory; `none`
    switches tracking off."""
    experiment: str | None = None
    """MLflow experiment; null is the configuration's name."""
    log_model: bool = True
    """Whether `run` logs each arm's student as a model, which `mlflow models serve` serves; a study logs none."""
    registered_model: Name | None = None
    """Registered model of which each arm's student becomes a version; the alias `champion` is the one with the best
    valid BLEU. Null registers none."""

    @model_validator(mode="after")
    def _what_is_registered_is_logged(self) -> Self:
        if self.registered_model and (self.uri == "none" or not self.log_model):
            raise ValueError("registered_model needs a logged model; set log_model: true and a uri other than none")
        return self
