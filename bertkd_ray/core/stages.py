"""The stages of a pipeline, each declared once; the module that it names makes its artifact (`execution.stage`).

Whatever lists stages (commands, pipeline, scheduler, studies, reports, plans) iterates over `STAGES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from bertkd_ray.config import Config


@dataclass(frozen=True)
class Stage:
    """A step that makes one kind of artifact."""

    name: str
    """Name of the stage and of its command."""
    module: str
    """A `bertkd_ray.execution.stage.StageModule`, imported when it is first used."""
    artifact: str
    """Kind of the artifact, the first word of its directory."""
    title: str
    """The artifact in reports."""
    summary: str
    """A line of `bertkd --help`."""
    sections: tuple[str, ...]
    """Top-level keys of the configuration on which the artifact depends, beside those of its inputs; its own first."""
    priority: int
    """Rank among the stages that can start, lowest first: what others wait for before students, what is short first."""
    inputs: tuple[str, ...] = ()
    """The stages whose artifacts it is made from."""
    bert: Literal["bert", "bert_tokenizer"] | None = None
    """What it reads of the BERT, all or the tokenizer; so its hash is called among the inputs."""
    per_arm: bool = False
    """Made once for each arm, not once for all."""
    needed_by: Callable[[Config], bool] | None = None
    """Whether an arm of this configuration needs it, for what comes of the teacher; None is needed by all arms."""
    unless: Callable[[Config], str] | None = None
    """Why a configuration has no such artifact, as a message; empty where it has one."""
    steps: Callable[[Config], int] | None = None
    """Updates of a stage that trains, and so has curves."""

    @property
    def section(self) -> str:
        """The section of the configuration that is the stage's own."""
        return self.sections[0]

    def result(self, arm: str) -> str:
        """Name of the stage's result in outputs: `prepare`, or `distill/ARM` where every arm has one."""
        return f"{self.name}/{arm}" if self.per_arm else self.name

    @property
    def per_teacher(self) -> bool:
        """Whether every teacher has its own: it is a teacher, or made from one and not of an arm."""
        sources = [STAGES[name] for name in self.inputs]
        return not self.per_arm and (self.artifact == "teacher" or any(source.per_teacher for source in sources))

    def named(self, owner: str) -> str:
        """Name of a result of the stage: `distill/ARM`, `finetune/TEACHER`, `finetune` where there is one teacher."""
        return f"{self.name}/{owner}" if owner else self.name

    def is_needed(self, config: Config) -> bool:
        """Whether the arm of this configuration needs the stage."""
        return (self.needed_by is None or self.needed_by(config)) and not (self.unless and self.unless(config))

    def inputs_of(self, config: Config) -> list[Stage]:
        """The stages whose artifacts it is made from in this configuration, its arm's if it is made for each."""
        inputs = [STAGES[name] for name in self.inputs]
        return [stage for stage in inputs if stage.is_needed(config)] if self.per_arm else inputs

    def made_from(self, config: Config) -> list[Stage]:
        """The stage and all that its artifact is made from, in the configuration of its arm, in their order."""
        behind = {self.name}.union(*({of.name for of in each.made_from(config)} for each in self.inputs_of(config)))
        return [stage for stage in STAGES.values() if stage.name in behind]

    def all_sections(self) -> set[str]:
        """The top-level keys of the configuration on which the artifact depends, those of its inputs included."""
        return set(self.sections).union(*(STAGES[name].all_sections() for name in self.inputs))


PREPARE = Stage(
    name="prepare",
    module="bertkd_ray.corpus.prepare",
    artifact="corpus",
    title="Corpus",
    summary="parallel text to token ids, with the student's tokenizer",
    sections=("corpus", "teacher"),
    bert="bert_tokenizer",
    priority=2,
)
FINETUNE = Stage(
    name="finetune",
    module="bertkd_ray.teacher.finetune",
    artifact="teacher",
    title="Teacher",
    summary="train the BERT teacher as a conditional masked language model",
    inputs=("prepare",),
    sections=("teacher", "seed", "precision", "gradient_compression"),
    bert="bert",
    priority=3,
    needed_by=lambda config: config.kd.has_teacher,
    steps=lambda config: config.teacher.steps,
)
EXTRACT = Stage(
    name="extract",
    module="bertkd_ray.softlabels.extract",
    artifact="softlabels",
    title="Soft labels",
    summary="map the teacher over the corpus and store its top-k logits",
    inputs=("prepare", "finetune"),
    sections=("extract", "kd", "arms", "precision"),
    priority=4,
    needed_by=lambda config: config.kd.has_soft_labels and config.kd.sequence != "instead",
)
DECODE = Stage(
    name="decode",
    module="bertkd_ray.softlabels.decode",
    artifact="decoded",
    title="Teacher's translations",
    summary="translate the training sources with the teacher, for arms with kd.sequence",
    inputs=("prepare", "finetune"),
    sections=("decode", "precision"),
    priority=5,
    needed_by=lambda config: config.kd.sequence != "none",
    unless=lambda config: config.no_translations,
)
LABEL = Stage(
    name="label",
    module="bertkd_ray.softlabels.label",
    artifact="decodedlabels",
    title="Soft labels of the teacher's translations",
    summary="store the teacher's top-k logits of its own translations",
    inputs=("decode", "finetune"),
    sections=("extract", "kd", "arms", "precision"),
    priority=6,
    needed_by=lambda config: config.kd.has_soft_labels and config.kd.sequence != "none",
    unless=lambda config: config.no_translations,
)
AUGMENT = Stage(
    name="augment",
    module="bertkd_ray.softlabels.augment",
    artifact="monolingual",
    title="Translated monolingual text",
    summary="translate and label monolingual text with the teacher, where there is some",
    inputs=("prepare", "finetune"),
    sections=("corpus", "decode", "extract", "kd", "arms", "precision"),
    priority=7,
    needed_by=lambda config: config.uses_monolingual,
    unless=lambda config: config.no_augmentation,
)
DISTILL = Stage(
    name="distill",
    module="bertkd_ray.student.distill",
    artifact="student",
    title="Student",
    summary="train the students, with the teacher's soft labels and without",
    inputs=("prepare", "extract", "decode", "label", "augment"),
    sections=("student", "kd", "seed", "precision", "gradient_compression"),
    priority=8,
    per_arm=True,
    steps=lambda config: config.student.steps,
)
TRANSLATE = Stage(
    name="translate",
    module="bertkd_ray.translation.translate",
    artifact="translation",
    title="Translations",
    summary="translate the test set by beam search and score it",
    inputs=("prepare", "distill"),
    sections=("translate", "precision"),
    priority=1,
    per_arm=True,
)
EVALUATE = Stage(
    name="evaluate",
    module="bertkd_ray.translation.evaluate",
    artifact="evaluation",
    title="Teacher's scores",
    summary="translate valid and test set with a left-to-right teacher and score it",
    inputs=("prepare", "finetune"),
    sections=("translate", "precision"),
    priority=9,
    needed_by=lambda config: config.kd.has_teacher,
    unless=lambda config: config.no_evaluation,
)
STAGES = {
    stage.name: stage for stage in (PREPARE, FINETUNE, EXTRACT, DECODE, LABEL, AUGMENT, DISTILL, TRANSLATE, EVALUATE)
}
"""Every stage by name, in the order in which they run."""
BY_ARTIFACT = {stage.artifact: stage for stage in STAGES.values()}
"""Every stage by the kind of artifact that it makes."""
