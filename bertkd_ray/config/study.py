"""A study: one base configuration, arms that differ from it, and the seeds under which every arm is trained.

Every arm under every seed is a whole configuration with this one arm. All take the student's seed from the study, the
teacher's from the study too or else from the base, and store as many logits as the widest arm of their teacher asks
for; so whatever has the same fingerprint is made once: one corpus, a teacher a seed for all arms that leave it alone,
one pass of it over the corpus. Arms without a teacher are made once a student's seed.
"""

import json
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from bertkd_ray.config.config import Config
from bertkd_ray.config.loading import config_of, load_config, override, read_override, read_tree
from bertkd_ray.config.section import Location, Name, Section, dotted, set_key
from bertkd_ray.config.validation import validated
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.stages import EXTRACT, FINETUNE, STAGES

_OF_AN_ARM = (
    *("teacher.", "teachers.", "extract.", "decode.", "kd.", "student.", "translate."),
    *("corpus.train", "corpus.clean.", "corpus.max_vocabulary"),
)
"""Keys in which arms may differ. The rest is the same for all, the test set above all, so that scores compare."""


Seed = Annotated[int, Field(strict=True, ge=0, lt=2**31)]


class StudyConfig(Section):
    """A study file."""

    added_later = frozenset({"teacher_seeds"})

    name: Name
    """Name of the study and, unless `tracking.experiment` says otherwise, of its MLflow experiment."""
    base: Location
    """Path of the configuration that all arms start from, relative to the study file. Its own `arms` have no part."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """Keys of the base that are different in this study, for all arms."""
    arms: dict[Name, dict[str, Any]] = Field(min_length=2)
    """Each arm's keys that differ: of teacher or teachers, extract, decode, kd, student, translate, corpus.train,
    corpus.clean and corpus.max_vocabulary, the last three as far as the pairs that valid and test hold out of train
    stay the same."""
    control: str | None = None
    """The arm that the others are compared with; null is the only arm without a teacher, with kd.alpha 0."""
    seeds: list[Seed] = Field(min_length=1)
    """Seeds of the students."""
    teacher_seeds: list[Seed] | None = Field(None, min_length=1)
    """Seeds of the teachers: each makes a teacher and its pass over the corpus, from which a student of every seed
    learns. Arms without a teacher are made once a seed of `seeds`. Null is one teacher, of the base's `seed`."""

    @field_validator("seeds", "teacher_seeds")
    @classmethod
    def _seeds_differ(cls, seeds: list[int] | None) -> list[int] | None:
        for seed in seeds or []:
            if seeds and seeds.count(seed) > 1:
                raise ValueError(f"{seed} stands there more than once; a seed counts once")
        return seeds


@dataclass(frozen=True)
class Trial:
    """One arm under one seed of the student and, where the study varies it, one of the teacher."""

    arm: str
    seed: int
    config: Config
    """Complete, with this arm as its only one."""
    teacher_seed: int | None = None
    """None in a study without `teacher_seeds`, and for an arm without a teacher."""

    @property
    def title(self) -> str:
        """What people call it: `control, seed 1`."""
        return f"{self.arm}, seed {self.seed}{self._teacher(', teacher seed ')}"

    @property
    def key(self) -> str:
        """Name of it in outputs: `control/1`, `distilled/1/teacher-2`."""
        return f"{self.arm}/{self.seed}{self._teacher('/teacher-')}"

    @property
    def shared_key(self) -> str:
        """Arm, and seed of the teacher if there is one: `distilled`, `distilled/teacher-2`."""
        return self.arm + self._teacher("/teacher-")

    def _teacher(self, form: str) -> str:
        return "" if self.teacher_seed is None else f"{form}{self.teacher_seed}"


@dataclass(frozen=True)
class Study:
    """A study that has been read: every configuration of it is valid."""

    settings: StudyConfig
    control: str
    """The arm that the others are compared with."""
    trials: list[Trial]
    """Seed by seed, and under each seed arm by arm and teacher by teacher, so that after the first seed all arms can be
    compared."""
    is_finished: bool = False
    """Nothing is made for it: its students are finished, and other results that are not are left out."""

    @property
    def config(self) -> Config:
        """What storage, tracking and Ray are set up by; the same in all trials."""
        return self.trials[0].config


def load_study(path: str | Path, overrides: list[str] | None = None) -> Study:
    """Reads a study file. Overrides reach the base, those of `name`, `base`, `control`, `seeds`, `teacher_seeds` and
    `arms.*` the study.

    Raises UserError, in one line, for a file that is missing or malformed (the base too), an unknown key, an arm that
    does not validate or sets what arms may not, arms that are the same or hold other pairs out, no control or several,
    seeds of teachers where no arm has one, a registered model.
    """
    settings = _settings(path, overrides or [])
    base = Path(path).parent / settings.base
    if not base.is_file():
        raise UserError(f"{path}: base: there is no file {base}; give a path relative to the study file")
    load_config(base)
    common = read_tree(base)
    for key, value in dotted(settings.overrides):
        override(common, key, value)
    common.update(name=settings.name, arms={"base": {"kd.alpha": 0}})
    if config_of(deepcopy(common), f"{path}: overrides").tracking.registered_model:
        raise UserError(
            f"{path}: tracking.registered_model: a study logs no model that could be registered; set it to null in "
            "overrides, and register a student with bertkd run"
        )
    arms = _share_passes({arm: _arm_config(common, arm, keys, path) for arm, keys in settings.arms.items()})
    _require_different(arms, path)
    _require_same_held_out(arms, path)
    control = _control(settings, arms, path)
    return Study(settings, control, _trials(settings, arms, path))


def _trials(settings: StudyConfig, arms: dict[str, Config], path: str | Path) -> list[Trial]:
    if settings.teacher_seeds and not any(map(FINETUNE.is_needed, arms.values())):
        raise UserError(f"{path}: teacher_seeds: no arm has a teacher (kd.alpha above 0); remove teacher_seeds")
    trials = []
    for seed in settings.seeds:
        for arm, config in arms.items():
            of_seed = _with(config, "student", seed=seed)
            if settings.teacher_seeds is None or not FINETUNE.is_needed(config):
                trials.append(Trial(arm, seed, of_seed))
                continue
            for teacher_seed in settings.teacher_seeds:
                trials.append(Trial(arm, seed, of_seed.model_copy(update={"seed": teacher_seed}), teacher_seed))
    return trials


def _settings(path: str | Path, overrides: list[str]) -> StudyConfig:
    tree = read_tree(path)
    if "corpus" in tree and "base" not in tree:
        raise UserError(f"{path}: this is a configuration, not a study; give it to bertkd run, or make it a base")
    tree["overrides"] = _nested(tree.get("overrides", {}))
    if isinstance(tree.get("arms"), dict):
        tree["arms"] = {arm: _nested(keys) for arm, keys in tree["arms"].items()}
    for text in overrides:
        key, value = read_override(text)
        own = key.partition(".")[0] in StudyConfig.model_fields
        set_key(tree, key if own else f"overrides.{key}", value)
    settings = validated(StudyConfig, tree, str(path))
    for key, _ in dotted(settings.overrides):
        if key.partition(".")[0] in ("name", "arms") or key == "student.seed":
            raise UserError(f"{path}: overrides: {key} is the study's own; set name, arms and seeds beside overrides")
    return settings


def _nested(keys: Any) -> Any:
    """Sections instead of dotted keys, so that a later override finds a key however it was written."""
    if not isinstance(keys, dict):
        return keys
    tree: dict[str, Any] = {}
    for key, value in dotted(keys):
        set_key(tree, key, value)
    return tree


def _arm_config(common: dict[str, Any], arm: str, keys: dict[str, Any], path: str | Path) -> Config:
    tree = deepcopy(common)
    tree["arms"] = {arm: {}}
    for key, value in dotted(keys):
        is_known = key.partition(".")[0] in Config.model_fields
        if key == "student.seed" or (is_known and not key.startswith(_OF_AN_ARM)):
            allowed = ", ".join(name.removesuffix(".") for name in _OF_AN_ARM)
            raise UserError(
                f"{path}: arms.{arm}: {key} is the same for all arms; they differ in {allowed}, and seeds has the seeds"
            )
        override(tree, key, value)
    return config_of(tree, f"{path}: arms.{arm}")


def _share_passes(arms: dict[str, Config]) -> dict[str, Config]:
    """The arms, storing what the widest arm of the same teacher pass uses, unless extract.topk says how many."""
    passes = {arm: _passes(config) for arm, config in arms.items() if config.kd.has_soft_labels}
    widest: dict[str, int] = {}
    # As often as there are arms: one of several teachers stores as many of each, and others then do so for its sake.
    for arm, names in [*passes.items()] * len(passes):
        topk = max(arms[arm].kd.topk, *(widest.get(name, 0) for name in names))
        widest.update(dict.fromkeys(names, topk))
    return {
        arm: _with(config, "extract", topk=widest[passes[arm][0]])
        if arm in passes and config.extract.topk is None
        else config
        for arm, config in arms.items()
    }


def _passes(config: Config) -> list[str]:
    """Names of the passes of its teachers over the corpus, whatever the number of logits that its arm uses."""
    named = FINETUNE.all_sections() | {EXTRACT.section}
    return [of.model_dump_json(include=named) for of in config.teacher_configs().values() if of.arms]


def _require_different(arms: dict[str, Config], path: str | Path) -> None:
    seen: dict[str, str] = {}
    for arm, config in arms.items():
        text = json.dumps(_settings_that_count(config), sort_keys=True)
        if text in seen:
            raise UserError(
                f"{path}: arms.{arm} has the same settings as arms.{seen[text]}, but for keys that change nothing; "
                "remove one of them"
            )
        seen[text] = arm


def _settings_that_count(config: Config) -> dict[str, Any]:
    """What a student and its translations depend on; without a teacher the BERT's tokenizer is all there is of it."""
    settings = config.run_settings()
    del settings["arms"], settings["translate"]["bootstrap_samples"], settings["translate"]["teacher"]
    settings["extract"].update(topk=config.stored_topk(), passes=config.extract_passes())
    settings["corpus"] = {**settings["corpus"], "train": config.corpus.train_as_read()}
    settings["kd"] = config.kd.counting()
    if config.uses_monolingual:
        settings["kd"]["monolingual_weight"] = config.kd.monolingual_weight
    if config.student.start:  # an artifact, or the model directory in it
        settings["student"]["start"] = config.student.start.rstrip("/").removesuffix("/model")
    needed = {section for stage in STAGES.values() if stage.is_needed(config) for section in stage.sections}
    for section in {stage.section for stage in STAGES.values()} - needed:
        settings.pop(section, None)
    if not config.kd.has_teacher:
        # Prepare, too, depends on a teacher, but on its tokenizer alone.
        for section in ("teacher", "teachers"):
            settings.pop(section, None)
        settings["bert"] = config.teacher.model
    elif config.teachers:
        (arm,) = config.arm_configs().values()
        weights = arm.kd.teachers or {}
        # Not by their names, equal ones as one; how often one sees a pair follows from its direction.
        summed: dict[str, float] = {}
        for name, weight in weights.items():
            teacher = json.dumps(settings["teachers"][name], sort_keys=True)
            summed[teacher] = round(summed.get(teacher, 0) + weight, 9)
        settings["teachers"] = summed
        settings.get("extract", {}).pop("passes", None)
    return settings


def _require_same_held_out(arms: dict[str, Config], path: str | Path) -> None:
    """Refuses arms that differ in what pairs are held out for valid or test, of which scores would not compare."""
    (first, held_out), *others = ((arm, _held_out_by(config)) for arm, config in arms.items())
    for arm, of_arm in others:
        for key, value in of_arm.items():
            if value != held_out[key]:
                splits = " and ".join(arms[arm].corpus.held_out())
                raise UserError(
                    f"{path}: arms.{arm}: {key} is not that of arms.{first}, so that other pairs are held out for "
                    f"{splits} and scores do not compare; make it the same, or give files instead of held_out"
                )


def _held_out_by(config: Config) -> dict[str, Any]:
    """The keys of arms that decide which pairs are held out; none where no split is.

    The BERT and a weight below 1 decide the vocabulary, by which long pairs are dropped; a larger one repeats pairs.
    Equal sentences are held out together: none overlaps with a test set that is held out too.
    """
    if not (corpus := config.corpus).held_out():
        return {}
    train = [{**files, "weight": min(files["weight"], 1.0)} for files in corpus.train_as_read()]
    clean = corpus.clean.model_dump(exclude={"test_overlap"} if corpus.test and corpus.test.held_out else None)
    rules = {f"corpus.clean.{key}": value for key, value in clean.items()}
    vocabulary = {"corpus.max_vocabulary": corpus.max_vocabulary}
    return {"teacher.model": config.teacher.model, "corpus.train": train, **vocabulary, **rules}


def _control(settings: StudyConfig, arms: dict[str, Config], path: str | Path) -> str:
    controls = [arm for arm, config in arms.items() if not config.kd.has_teacher]
    names = ", ".join(controls) or "none"
    if settings.control in controls or (settings.control is None and len(controls) == 1):
        return settings.control or controls[0]
    if settings.control is not None:
        raise UserError(f"{path}: control: {settings.control} is no arm with kd.alpha 0; those are {names}")
    if not controls:
        others = ["kd.sequence: none"] if any(config.kd.sequence != "none" for config in arms.values()) else []
        keys = ", ".join(["kd.alpha: 0", *others])
        what = keys.replace(":", "").replace(",", " and")
        raise UserError(f"{path}: arms: no arm has {what}; add a control to compare with, control: {{{keys}}}")
    raise UserError(
        f"{path}: arms: {names} all have kd.alpha 0; say which of them the others are compared with, "
        f"control: {controls[0]}"
    )


def _with(config: Config, section: str, **settings: Any) -> Config:
    return config.model_copy(update={section: getattr(config, section).model_copy(update=settings)})
