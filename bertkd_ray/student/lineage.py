"""Which finished student a user means, by its directory or by the arm of a configuration, and what it was made from."""

from dataclasses import dataclass
from itertools import count, takewhile

from bertkd_ray.artifacts.artifact import Artifact, load_finished
from bertkd_ray.artifacts.store import store_above
from bertkd_ray.config import Config
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.stages import EVALUATE
from bertkd_ray.softlabels.shards import numbered
from bertkd_ray.training.saving import MODEL


@dataclass(frozen=True)
class Lineage:
    """A student and the finished artifacts around it; None, or none, where its store holds them no longer."""

    student: Artifact
    corpus: Artifact | None
    softlabels: Artifact | None
    """Those of the references, else those of the teacher's translations; None also for a student without any."""
    teacher: Artifact | None
    translations: tuple[Artifact, ...]
    """Translations of the student, the oldest first."""
    decoded: Artifact | None = None
    """The teacher's translations that the student was trained on."""
    other_softlabels: tuple[Artifact, ...] = ()
    """Those of a student of several teachers after the first, heaviest ones."""
    other_teachers: tuple[Artifact, ...] = ()

    monolingual: Artifact | None = None
    """Monolingual text, translated by the teacher, that the student was trained on."""

    @property
    def has_teacher(self) -> bool:
        """Whether the student learned from a teacher."""
        return not self.student.inputs.keys() <= {"corpus", "start"}


def student_at(location: str) -> Artifact:
    """The student artifact in a directory or at a URI, or around that `model` directory, its files checked.

    Raises UserError when there is none, it is another kind of artifact, or a file is not what the manifest says.
    """
    artifact = artifact_at(location)
    if artifact is None:
        raise UserError(
            f"{location}: no finished student is here; give a student artifact's directory or URI, or a CONFIG.yaml"
        )
    if artifact.stage != "student":
        raise UserError(f"{location}: is a {artifact.stage}, not a student; give the directory of a student artifact")
    artifact.require_intact("copy the student again, or move it elsewhere and run distill")
    return artifact


def artifact_at(location: str) -> Artifact | None:
    """The finished artifact of a directory, or of the artifact around a `model` directory; its files unchecked."""
    store, name = store_above(location)
    artifact = load_finished(store, name)
    return load_finished(*store_above(store.uri)) if artifact is None and name == MODEL else artifact


def distilled_arm(config: Config) -> str:
    """The first arm with a teacher; the first of all where none has one."""
    arms = config.arm_configs()
    return next((name for name, of_arm in arms.items() if of_arm.kd.has_teacher), next(iter(arms)))


def lineage_of(student: Artifact) -> Lineage:
    """What a student was made from, and its translations, as far as its store holds them."""
    labels = _input(student, "decodedlabels")
    softlabels = _input(student, "softlabels") or labels
    decoded = _input(student, "decoded") or _input(labels, "decoded")
    kinds = takewhile(student.inputs.__contains__, (numbered("softlabels", number) for number in count(2)))
    others = [labels for kind in kinds if (labels := _input(student, kind)) is not None]
    return Lineage(
        student,
        corpus=_input(student, "corpus"),
        softlabels=softlabels,
        teacher=_input(softlabels or decoded, "teacher"),
        translations=tuple(_made_from(student, "translation")),
        decoded=decoded,
        monolingual=_input(student, "monolingual"),
        other_softlabels=tuple(others),
        other_teachers=tuple(teacher for labels in others if (teacher := _input(labels, "teacher")) is not None),
    )


def evaluations_of(teacher: Artifact) -> list[Artifact]:
    """The finished evaluations of a teacher in its store, the oldest first."""
    return _made_from(teacher, EVALUATE.artifact)


def _made_from(source: Artifact, stage: str) -> list[Artifact]:
    """The finished artifacts of a stage that were made from one in its store, the oldest first."""
    store = source.store
    loaded = [load_finished(store, name) for name in store.directories() if name.startswith(f"{stage}-")]
    own = [each for each in loaded if each is not None and each.inputs.get(source.stage) == source.fingerprint]
    return sorted(own, key=lambda each: (each.created, each.directory))


def _input(of: Artifact | None, kind: str) -> Artifact | None:
    return load_finished(of.store, f"{kind.partition('.')[0]}-{of.inputs.get(kind)}") if of else None
