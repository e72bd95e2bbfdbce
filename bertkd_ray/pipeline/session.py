"""What the pipelines of one command share: the store, the tracker, the runtime, and the artifacts that are known."""

from collections.abc import Mapping
from contextlib import ExitStack
from functools import cache, cached_property

from bertkd_ray.artifacts import artifact as artifacts
from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config
from bertkd_ray.config.results import owners_of, sources_of
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.stages import DISTILL, STAGES, Stage
from bertkd_ray.core.timeline import span
from bertkd_ray.execution.interface import Runtime
from bertkd_ray.execution.stage import stage_module
from bertkd_ray.tracking import default_uri, open_tracker
from bertkd_ray.tracking.interface import Tracker


class Session(ExitStack):
    """A context manager; tracker and runtime are opened when they are first used, and the end closes them."""

    def __init__(self, config: Config) -> None:
        """config: what storage, tracking and runtime are set up by; pipelines of a session agree in these."""
        super().__init__()
        self.config = config
        self.store = Store(config.storage)
        self.artifacts: dict[str, Artifact] = {}
        """Finished artifacts by directory: each is checked, or made, once."""
        self._pending: dict[tuple[str, str, tuple[tuple[str, str], ...]], PendingArtifact] = {}
        self._checked_bert, self._bert_hash = cache(_checked_bert), cache(_bert_hash)
        self._require_one_vocabulary = cache(_require_one_vocabulary)

    @cached_property
    def runtime(self) -> Runtime:
        """Ray, whose session the first stage that computes starts, or this process."""
        runtime = _runtime(self.config)
        self.callback(runtime.close)
        return runtime

    @cached_property
    def tracker(self) -> Tracker:
        """Where runs are recorded. Raises UserError when nobody answers there."""
        uri = self.config.tracking.uri or default_uri(self.store.uri)
        with span("tracker"):
            return open_tracker(uri, self.config.tracking.experiment or self.config.name)

    def bert(self, config: Config) -> str:
        """The directory of a configuration's BERT, of several teachers the first one's.

        Raises UserError for a model that no teacher can be made of, and for several with different vocabularies. The
        weights are needed where an arm has a teacher that starts from them.
        """
        if not config.teachers:
            return self._bert_of(config)
        from bertkd_ray.teacher.source import naming_teacher

        directories: dict[str, str] = {}
        for name, of_teacher in config.teacher_configs().items():
            with naming_teacher(name):
                directories[name] = self._bert_of(of_teacher)
        self._require_one_vocabulary(tuple(directories.items()))
        return next(iter(directories.values()))

    def _bert_of(self, config: Config) -> str:
        teacher = config.teacher
        if not any(of_arm.kd.has_teacher for of_arm in config.arm_configs().values()):
            return self._checked_bert(teacher.model, weights=False)
        return self._checked_bert(teacher.model, weights=teacher.pretrained, **config.needs_of_bert())

    def pending(self, stage: Stage, config: Config, inputs: Mapping[str, str]) -> PendingArtifact:
        """The artifact of a stage, finished or not. Text and BERT are read for their hashes, once.

        config: the arm's, for a stage that every arm has; inputs: fingerprints by kind of artifact. Raises UserError
        for text or a BERT that cannot be read.
        """
        key = stage.name, config.model_dump_json(include=set(stage.sections)), tuple(sorted(inputs.items()))
        if key not in self._pending:
            if stage.bert:
                inputs = {**inputs, stage.bert: self._bert_hash(self.bert(config), stage.bert)}
            self._pending[key] = stage_module(stage).pending_artifact(config, self.store, dict(inputs))
        return self._pending[key]

    def pending_of_arm(self, config: Config, arm: str) -> dict[str, PendingArtifact]:
        """The artifacts that an arm is made of, finished or not, in the order in which they are made.

        By stage, those of one of several teachers by stage and name, `extract/forward`.
        """
        of_arm, teachers = config.arm_configs()[arm], config.teacher_configs()
        pending: dict[str, PendingArtifact] = {}
        for stage in STAGES.values():
            for owner in owners_of(stage, "", of_arm):
                own = of_arm if stage.per_arm else teachers.get(owner, config) if stage.per_teacher else config
                if not stage.is_needed(own.arm_configs().get(arm, of_arm) if stage.per_teacher else of_arm):
                    continue
                sources = sources_of(stage, owner, own).items()
                inputs = {kind: pending[source.named(of)].fingerprint for kind, (source, of) in sources}
                pending[stage.named(owner)] = self.pending(stage, own, inputs)
        return pending

    def find(self, pending: PendingArtifact) -> Artifact | None:
        """The finished artifact, its files checked as `verify` says; None where it is not finished."""
        if pending.directory not in self.artifacts:
            checksums = self.config.verify == "checksums"
            artifact = artifacts.find(self.store, pending.stage, pending.fingerprint, checksums=checksums)
            if artifact is None:
                return None
            self.artifacts[pending.directory] = artifact
        return self.artifacts[pending.directory]


def student_of(config: Config, arm: str, origin: str) -> Artifact:
    """The finished student of an arm; origin: the configuration as the command line has it, for messages.

    Nothing is made. Raises UserError for an unknown arm, and for one that is not finished.
    """
    arms = config.arm_configs()
    if arm not in arms:
        raise UserError(f"--arm {arm}: the configuration has the arms {', '.join(arms)}")
    with Session(config) as session:
        student = session.find(session.pending_of_arm(config, arm)[DISTILL.name])
    if student is None:
        raise UserError(f"{origin}: the student of arm {arm} is not finished; run bertkd distill {origin} --arm {arm}")
    return student


def _require_one_vocabulary(directories: tuple[tuple[str, str], ...]) -> None:
    from bertkd_ray.teacher.source import require_one_vocabulary

    require_one_vocabulary(dict(directories))


def _checked_bert(model: str, *, weights: bool, **needs: int) -> str:
    from bertkd_ray.teacher.source import check_bert, resolve_model

    directory = resolve_model(model)
    check_bert(directory, weights=weights, **needs)
    return directory


def _bert_hash(directory: str, part: str) -> str:
    """sha256 of the BERT's files, or of its tokenizer's."""
    from bertkd_ray.corpus.bert_tokenizer import tokenizer_hash
    from bertkd_ray.teacher.source import model_hash

    return model_hash(directory) if part == "bert" else tokenizer_hash(directory)


def _runtime(config: Config) -> Runtime:
    if config.runtime == "local":
        from bertkd_ray.execution.local import LocalRuntime

        return LocalRuntime(config)
    from bertkd_ray.execution.ray.session import RayRuntime

    return RayRuntime(config)
