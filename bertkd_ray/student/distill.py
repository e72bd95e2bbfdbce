"""Stage 3, distill: trains one arm's student on the corpus, with the teacher's soft labels unless alpha is 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact, load
from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config
from bertkd_ray.config.sections import KdConfig, StudentConfig
from bertkd_ray.core.errors import UserError
from bertkd_ray.corpus.passes import TOKENIZER
from bertkd_ray.execution.dead_letters import DEAD_LETTERS
from bertkd_ray.training import saving
from bertkd_ray.training.settings import TrainSettings

if TYPE_CHECKING:
    from bertkd_ray.execution.stage import StageContext
    from bertkd_ray.student.task import Validation
    from bertkd_ray.training.context import TrainContext

MODEL = saving.MODEL
"""A `save_pretrained` directory with its tokenizer, safetensors: `AutoModelForSeq2SeqLM` and `AutoTokenizer` load it
without this package."""
HISTORY = saving.HISTORY
"""The figures of the chosen checkpoint and the curves, as a teacher's."""
_MAX_POSITIONS = 512
"""Length at which the saved student stops generating; its positions are computed, so this costs nothing."""
_PAIR_COLUMNS = ["src_ids", "tgt_ids"]
_SOFT_COLUMNS = [*_PAIR_COLUMNS, "topk_ids", "topk_logits", "logsumexp"]
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True)
class DistillSettings:
    """How the student of an arm is trained."""

    student: StudentConfig
    kd: KdConfig
    precision: Literal["auto", "bf16", "float32"]
    max_side_tokens: int
    """Of the corpus; the student has a position for each, and one for the end of the sentence."""
    training: TrainSettings
    """Its seed is that of initialisation, batches and dropout."""

    @classmethod
    def from_config(cls, config: Config) -> DistillSettings:
        """The settings of an arm, given by its configuration."""
        training = TrainSettings.from_config(config, config.student, config.student_seed)
        return cls(config.student, config.kd, config.precision, config.corpus.max_side_tokens, training)

    @property
    def has_teacher(self) -> bool:
        """Whether soft labels enter the loss."""
        return self.kd.alpha > 0

    def fingerprinted(self) -> dict[str, Any]:
        """What enters the fingerprint; without a teacher the other keys of the loss have no meaning."""
        return {
            "student": self.student.fingerprinted(exclude=frozenset({"seed"})),
            "kd": self.kd.fingerprinted() if self.has_teacher else {"alpha": 0.0},
            "seed": self.training.seed,
            "precision": self.precision,
        }


@dataclass(frozen=True)
class DistillJob:
    """What a train worker needs: the store and directories in it, and the settings."""

    storage: str
    artifact: str
    corpus: str
    softlabels: str | None
    """None without a teacher."""
    settings: DistillSettings


def pending_artifact(config: Config, store: Store, inputs: dict[str, str]) -> PendingArtifact:
    """The student artifact of an arm.

    With alpha 0 the soft labels are no input: changing the teacher does not train the control again.
    """
    settings = DistillSettings.from_config(config)
    kinds = ["corpus", "softlabels"] if settings.has_teacher else ["corpus"]
    return PendingArtifact.of(store, "student", settings.fingerprinted(), {kind: inputs[kind] for kind in kinds})


def make(pending: PendingArtifact, context: StageContext) -> Artifact:
    """Makes the student artifact of an arm. Raises UserError for soft labels of another corpus."""
    settings, corpus = DistillSettings.from_config(context.config), context.inputs["corpus"]
    labels = None
    if settings.has_teacher:
        softlabels = context.inputs["softlabels"]
        _require_same_corpus(corpus, softlabels)
        labels = softlabels.directory
    context.runtime.start()
    job = DistillJob(pending.store.uri, pending.directory, corpus.directory, labels, settings)
    context.runtime.train(pending, _train, job, context.on_rows)
    return saving.commit_trained(pending, {"vocabulary": corpus.info["vocabulary"]})


def _require_same_corpus(corpus: Artifact, softlabels: Artifact) -> None:
    of = softlabels.inputs["corpus"]
    if of != corpus.fingerprint:
        raise UserError(
            f"{softlabels.uri}: its soft labels belong to corpus {of}, not to {corpus.fingerprint}; run extract again"
        )


def _train(job: DistillJob, context: TrainContext) -> None:
    """The training function of every Ray Train worker."""
    import torch

    from bertkd_ray.artifacts.row_groups import RowGroups
    from bertkd_ray.core.devices import resolve_attention, resolve_precision
    from bertkd_ray.student.model import build_student
    from bertkd_ray.student.task import StudentTask, lengths
    from bertkd_ray.training.trainer import fit

    settings, student = job.settings, job.settings.student
    store = Store(job.storage)
    corpus = load(store, job.corpus)
    device = context.world.device
    precision = resolve_precision(settings.precision, device)
    model = build_student(
        student,
        vocab_size=corpus.info["vocabulary"],
        max_positions=max(_MAX_POSITIONS, settings.max_side_tokens + 1),
        seed=settings.training.seed,
        attention=resolve_attention("auto", device, training=True),
    )
    torch.nn.Module.to(model, device)  # transformers' own `to` is untyped
    task = StudentTask(model, student, settings.kd, _validation(corpus), precision)
    groups = (
        RowGroups(load(store, job.softlabels), "", _SOFT_COLUMNS, exclude=DEAD_LETTERS)
        if job.softlabels
        else RowGroups(corpus, "train/", _PAIR_COLUMNS)
    )
    trained = fit(task, groups, lengths, settings.training, context, precision)
    model.load_state_dict(trained.weights)
    # Of a mean of weights no checkpoint has the figures.
    validation = task.evaluate(context.world) if student.average > 1 else None
    if context.world.rank == 0:
        names = {name for name, _ in store.files(corpus.directory, TOKENIZER)}.intersection(_TOKENIZER_FILES)
        files = {name: store.read(corpus.directory, TOKENIZER, name) for name in names}
        saving.save_trained(store, job.artifact, model, trained, files=files, validation=validation)


def _validation(corpus: Artifact) -> Validation:
    """The valid split, its references as raw text."""
    from bertkd_ray.core.ragged import Ragged
    from bertkd_ray.corpus.moses import to_raw
    from bertkd_ray.corpus.text_form import TextForm
    from bertkd_ray.corpus.tokenizer import load_tokenizer
    from bertkd_ray.student.task import Validation

    valid, form = corpus.read_table("valid/"), TextForm.of(corpus)
    with scratch_directory("corpus-") as scratch:
        tokenizer = load_tokenizer(corpus.local(TOKENIZER, scratch))
    return Validation(
        Ragged.from_arrow(valid["src_ids"]),
        Ragged.from_arrow(valid["tgt_ids"]),
        to_raw(valid["tgt"].to_pylist(), form.text, form.tgt_lang),
        tokenizer,
        form,
    )
