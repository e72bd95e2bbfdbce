"""The whole configuration of a pipeline."""

from collections.abc import Set
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, model_validator

from bertkd_ray.config import sections
from bertkd_ray.config.corpus import CorpusConfig
from bertkd_ray.config.section import Location, Name, Section, dotted, set_key
from bertkd_ray.config.validation import validated
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.stages import STAGES


def _worker_count(value: Any) -> int | tuple[int, int]:
    """A number of train workers, or the least and the most of them."""
    counts = list(value) if isinstance(value, list | tuple) else [value]
    # YAML's `true` is an int to Python.
    if any(isinstance(count, bool) or not isinstance(count, int) or count < 1 for count in counts):
        raise ValueError("a whole number from 1, or [least, most] of them, is needed")
    if max(counts, default=1) > 10_000:
        raise ValueError("at most 10000 workers can be asked for")
    if not isinstance(value, list | tuple):
        return int(counts[0])
    if len(counts) != 2 or counts[0] > counts[1]:
        raise ValueError("the least and the most workers are needed, for example [1, 4]")
    return int(counts[0]), int(counts[1])


def tracking_section(value: Any) -> Any:
    """`tracking: none` is short for `tracking: {uri: none}`."""
    return {"uri": "none"} if value in ("none", "None") else value


def _not_empty(teachers: dict[str, sections.TeacherConfig]) -> dict[str, sections.TeacherConfig]:
    if not teachers:
        raise ValueError("empty; name a teacher, or leave it out")
    return teachers


class Config(Section):
    """One pipeline: a corpus, a teacher, and the students to compare."""

    added_later = frozenset({"gradient_compression"})

    name: Name
    """Name of the pipeline, of its MLflow experiment and of nothing else."""
    storage: Location = "artifacts"
    """Directory or URI (`s3://`, `gs://`) of the artifacts; on a cluster every node must reach it."""
    verify: Literal["checksums", "sizes"] = "checksums"
    """How finished artifacts are checked against their manifests before use; `sizes` does not read what they hold."""
    seed: int = Field(1, ge=0, lt=2**31)
    """Seed of initialisation, masks, shuffling and dropout; `student.seed` changes the student's alone."""
    precision: Literal["auto", "bf16", "float32"] = "auto"
    """`auto` is bf16 where the hardware multiplies bf16 (GPUs from Ampere on; CPUs with AMX or AVX512-BF16), else
    float32, as on a T4 or V100, which have no TF32 either; fp16 is not supported."""
    gradient_compression: Literal["none", "bf16"] = "none"
    """What several train workers exchange gradients in: float32, or half the bytes in bf16, for a network that updates
    wait for. Rounded so, the curve depends on the number of workers."""
    workers: Annotated[int | tuple[int, int], PlainValidator(_worker_count)] = 1
    """Train workers, a number that divides the micro-batches of an update; or `[least, most]`: as many as the cluster
    has room for, again whenever nodes leave or join."""
    resize_every: float = Field(60.0, gt=0, le=10**6)
    """Seconds between two looks whether the cluster has room for another number of `workers: [least, most]`; a change
    starts the training again from a checkpoint."""
    cpus_per_worker: int | None = Field(None, ge=1, le=10**4)
    """CPUs, and torch threads, a train worker; null shares each GPU node's CPUs by its GPUs, and without GPUs the CPUs
    of the nodes by the most workers."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """`auto` takes GPUs where the cluster has them."""
    runtime: Literal["ray", "local"] = "ray"
    """`local` runs every stage in the command's own process, without Ray: for a debugger or a bare machine."""
    max_failures: int = Field(3, ge=0, le=10**9)
    """Times that a training job starts again from its checkpoint after a lost worker, and that a map goes on after
    actors that died for good without anything done in between. Nodes that are drained do not count."""
    preemption_grace: float = Field(30.0, ge=0, le=10**6)
    """Seconds that a train worker has for a checkpoint after SIGTERM, and others after a node's announced end."""
    max_rejects: float = Field(0.001, ge=0, lt=1)
    """Share of a stage's pairs that extract, decode, label, augment, translate and evaluate may leave out because
    computing them raises or kills its process, before the stage fails. They stand in the artifact's table of dead
    letters. The distilled arms train on the pairs that are left, the control on the whole corpus: with dead letters,
    their batches differ."""
    checkpoint_every: int | None = Field(None, ge=1, le=10**9)
    """Steps between checkpoints; at most so much work is repeated after a failure. Null is as often as costs at most 2%
    of the time, and every 30 seconds at most."""
    log_every: int = Field(10, ge=1, le=10**9)
    """Steps between two points of the training curves."""
    corpus: CorpusConfig
    """The text, and how it becomes token ids."""
    teacher: sections.TeacherConfig = sections.TeacherConfig()
    """The conditional masked language model and its training."""
    teachers: Annotated[dict[Name, sections.TeacherConfig], AfterValidator(_not_empty)] | None = None
    """Several of them by name, each with the keys of `teacher`, which must be absent then; arms choose with
    `kd.teachers`. Their BERTs have the same vocabulary."""
    extract: sections.ExtractConfig = sections.ExtractConfig()
    """The teacher's soft labels."""
    decode: sections.DecodeConfig = sections.DecodeConfig()
    """The teacher's translations of the training sources."""
    kd: sections.KdConfig = sections.KdConfig()
    """What the students learn from, and the distillation loss."""
    student: sections.StudentConfig = sections.StudentConfig()
    """The student and its training."""
    arms: dict[Name, dict[str, Any]] = Field({"distilled": {}, "control": {"kd.alpha": 0}})
    """Students to compare: name and the `kd.*` and `student.*` keys that differ."""
    translate: sections.TranslateConfig = sections.TranslateConfig()
    """The search for translations, and their scores."""
    tracking: Annotated[sections.TrackingConfig, BeforeValidator(tracking_section)] = sections.TrackingConfig()
    """MLflow."""

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        if self.runtime == "local" and self.worker_range[0] > 1:
            raise ValueError(f"workers: {self.workers} need Ray; set workers=1 or runtime=ray")
        longest_side = self.corpus.max_side_tokens
        longest_pair = min(self.corpus.max_pair_tokens, 2 * longest_side)
        teachers = {f"teachers.{name}": of for name, of in (self.teachers or {}).items()} or {"teacher": self.teacher}
        trained: list[tuple[str, sections.TeacherConfig | sections.StudentConfig, str, int]] = [
            *((section, of, "pair", longest_pair + 3) for section, of in teachers.items()),
            ("student", self.student, "side", longest_side + 1),
        ]
        for section, settings, unit, tokens in trained:
            self._check_micro_batches(section, settings.micro_batches)
            budget = settings.batch_tokens // settings.micro_batches
            if budget < tokens:
                raise ValueError(
                    f"{section}.batch_tokens / micro_batches is {budget}, less than the longest admitted {unit} "
                    f"({tokens} tokens); raise it or lower corpus.max_side_tokens"
                )
        for section, topk in (("kd", self.kd.topk), ("extract", self.extract.topk or 0)):
            if topk > (most := self.corpus.max_vocabulary or topk):
                raise ValueError(f"{section}.topk {topk} is more than corpus.max_vocabulary {most}; lower it")
        if not self.teachers and (problem := self._sequence_problem()):
            raise ValueError(problem)
        if not self.arms:
            raise ValueError("arms is empty; name at least one student")
        return self

    @model_validator(mode="after")
    def _teachers_are_named(self) -> Self:
        """Makes `teacher` the first of several."""
        names = ", ".join(self.teachers or {})
        for name in self.kd.teachers or {}:
            if not self.teachers:
                raise ValueError(f"kd.teachers: there is no {name}, as no teachers are named; add teachers.{name}")
            if name not in self.teachers:
                raise ValueError(f"kd.teachers: there is no {name}; the teachers are {names}")
        if not self.teachers:
            return self
        if "teacher" in self.model_fields_set:
            raise ValueError(f"teacher: teachers has {names}; set teachers.NAME.KEY, or leave out one of both")
        return self.model_copy(update={"teacher": next(iter(self.teachers.values()))})

    def _sequence_problem(self, teacher: str = "teacher") -> str | None:
        if self.uses_monolingual and len(self.kd.teachers or {}) > 1:
            return (
                "corpus.monolingual: one teacher translates it; set kd.teachers to its name, or kd.monolingual_weight=0"
            )
        if self.uses_monolingual and self.teacher.direction == "both":
            return (
                "corpus.monolingual: needs a teacher that can translate it, and one that sees both sides cannot; set "
                f"{teacher}.direction=left_to_right, or kd.monolingual_weight=0"
            )
        if self.kd.sequence == "none":
            return None
        if len(self.kd.teachers or {}) > 1:
            return f"kd.sequence: {self.kd.sequence} takes the translations of one teacher; set kd.teachers to its name"
        if self.teacher.direction == "both":
            return (
                f"kd.sequence: {self.kd.sequence} needs a teacher that can translate, and one that sees both sides "
                f"cannot; set {teacher}.direction=left_to_right, or kd.sequence=none"
            )
        return None

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
        used = [arm.kd.topk for arm in self.arm_configs().values() if arm.kd.has_soft_labels]
        return self.extract.topk or max(used, default=self.kd.topk)

    def needs_of_bert(self) -> dict[str, int]:
        """What a teacher's BERT must have at least, as `teacher.source.check_bert` takes it."""
        layers = self.teacher.layers or 0
        return {"layers": layers, "pair_tokens": self.corpus.max_pair_tokens, "topk": self.stored_topk()}

    def extract_passes(self) -> int:
        """Times that extract sees each pair at most: as configured, once from left to right."""
        return self.extract.passes if self.teacher.direction == "both" else 1

    @property
    def no_translations(self) -> str:
        """Why the teacher translates nothing, as a message; empty where it can."""
        if self.teacher.direction == "left_to_right":
            return ""
        return "teacher.direction: a bidirectional teacher cannot translate; set teacher.direction=left_to_right"

    @property
    def no_augmentation(self) -> str:
        """Why there is no monolingual text for the teacher to translate, likewise."""
        nothing = "" if self.corpus.monolingual else "corpus.monolingual: no text is named; name its files"
        return nothing or self.no_translations

    @property
    def no_evaluation(self) -> str:
        """Why the teacher has no scores, likewise."""
        left_out = "" if self.translate.teacher else "translate.teacher: false leaves the teacher out; set it to true"
        return self.no_translations or left_out

    @property
    def uses_monolingual(self) -> bool:
        """Whether the student trains on monolingual text that the teacher has translated."""
        return self.corpus.monolingual is not None and self.kd.has_teacher and self.kd.monolingual_weight > 0

    @property
    def student_seed(self) -> int:
        """Seed of the student's initialisation, batches and dropout."""
        return self.seed if self.student.seed is None else self.student.seed

    def training_settings(self) -> dict[str, Any]:
        """What enters the fingerprint of every training."""
        names = ("precision", "gradient_compression")
        return {name: getattr(self, name) for name in names if name not in self.at_default()}

    def run_settings(self) -> dict[str, Any]:
        """What names a tracked run: every key that is part of a result, as fingerprints have it."""
        left_out = {*NOT_PART_OF_A_RESULT, *self.at_default(), self._derived}
        values = [(name, value) for name, value in self if name not in left_out]
        settings = {name: of.under_hashed_keys() if isinstance(of, Section) else of for name, of in values}
        if self.teachers:
            settings["teachers"] = {name: of.under_hashed_keys() for name, of in self.teachers.items()}
        return settings

    @property
    def _derived(self) -> str:
        """The one of teacher and teachers that was not given."""
        return "teacher" if self.teachers else "teachers"

    def as_given(
        self, *, exclude: Set[str] = frozenset(), mode: Literal["python", "json"] = "python"
    ) -> dict[str, Any]:
        """Every key as a file may give it: `teacher` or `teachers`, never both."""
        return self.model_dump(exclude={*exclude, self._derived}, mode=mode)

    def arm_configs(self) -> dict[str, Self]:
        """The configuration of every arm: this one with the arm's overrides.

        Where there are several teachers, `kd.teachers` has the weights of those that the arm learns from, and `teacher`
        is the heaviest of them.
        """
        configs = {}
        for arm, overrides in self.arms.items():
            tree, keys = self.as_given(), [key for key, _ in dotted(overrides)]
            # A mapping that counts as a whole is there twice as a whole and in part, too.
            if twice := [key for key in keys if sum(f"{other}.".startswith(f"{key}.") for other in keys) > 1]:
                raise UserError(f"arms.{arm}: {twice[0]} is there twice, dotted and nested; keep one")
            for key, value in dotted(overrides):
                if key.split(".")[0] not in ("kd", "student"):
                    raise UserError(f"arms.{arm}: {key} is not a kd.* or student.* key; arms differ in those alone")
                set_key(tree, key, value)
            configs[arm] = weighed = validated(type(self), tree, f"arms.{arm}")._weighed()
            (name, *_) = weighed.kd.teachers or [""]
            if self.teachers and (problem := weighed._sequence_problem(f"teachers.{name}")):
                raise UserError(f"arms.{arm}: {problem}")
        return configs

    def _weighed(self) -> Self:
        if not self.teachers:
            return self
        weights = self.kd.teachers or dict.fromkeys(self.teachers, 1 / len(self.teachers))
        weights = {name: weight for name, weight in weights.items() if weight > 0} if self.kd.has_teacher else {}
        heaviest = self.teachers[max(weights, key=weights.__getitem__)] if weights else self.teacher
        kd = self.kd.model_copy(update={"teachers": weights or None})
        return self.model_copy(update={"kd": kd, "teacher": heaviest})

    def teacher_configs(self) -> dict[str, Self]:
        """The configuration of every teacher by name: this one with it alone, and with the arms that learn from it.

        Of a configuration with the one `teacher` it is this one, under no name.
        """
        if not self.teachers:
            return {"": self}
        configs, arms = {}, self.arm_configs()
        for name, teacher in self.teachers.items():
            own = {
                arm: {key: value for key, value in dotted(self.arms[arm]) if not key.startswith("kd.teachers")}
                for arm, of_arm in arms.items()
                if name in (of_arm.kd.teachers or {})
            }
            kd = self.kd.model_copy(update={"teachers": None})
            configs[name] = self.model_copy(update={"teacher": teacher, "teachers": None, "kd": kd, "arms": own})
        return configs


NOT_PART_OF_A_RESULT = set(Config.model_fields).difference(
    {"name", "teachers"}, *(stage.sections for stage in STAGES.values())
)
"""Top-level keys that change how a result is come by, not what it is (workers, storage, tracking): no stage depends on
them, and none is in a fingerprint, so that a cluster reuses what a laptop has made."""
