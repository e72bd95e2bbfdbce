"""The distill stage: trains one arm's student on the corpus, on the teacher's translations of it, or on both.

The targets come with the teacher's soft labels unless alpha is 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact, load
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config
from bertkd_ray.config.sections import KdConfig
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.stages import BY_ARTIFACT
from bertkd_ray.corpus.passes import TOKENIZER
from bertkd_ray.execution.dead_letters import DEAD_LETTERS
from bertkd_ray.execution.stage import StageContext
from bertkd_ray.softlabels.shards import LABELS, VALID_SHARDS, numbered
from bertkd_ray.student.start import START, load_start, share_start, start_hash
from bertkd_ray.training import saving
from bertkd_ray.training.context import TrainContext, TrainJob
from bertkd_ray.training.memory import naming_memory_keys

MODEL = saving.MODEL
"""A `save_pretrained` directory with its tokenizer, safetensors: `AutoModelForSeq2SeqLM` and `AutoTokenizer` load it
without this package."""
HISTORY = saving.HISTORY
"""The figures of the chosen checkpoint (`summary`) and the curves (`rows`)."""
_MAX_POSITIONS = 512
"""Length at which the saved student stops generating; its positions are computed, so this costs nothing."""
_PAIR_COLUMNS = ["id", "src_ids", "tgt_ids"]
_SOFT_COLUMNS = [*_PAIR_COLUMNS, *LABELS]
_BELOW = {"corpus": "train/", "decoded": "train/"}
"""Where the pairs to train on lie in an artifact that has other files, too."""
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def pending_artifact(config: Config, store: Store, inputs: dict[str, str]) -> PendingArtifact:
    """The student artifact of an arm.

    With alpha 0 the soft labels are no input: changing the teacher does not train the control again. What it starts
    from enters by its weights.
    """
    weight = {"monolingual_weight": config.kd.monolingual_weight} if config.uses_monolingual else {}
    several = _several_labels(config.kd, inputs)
    kd = config.kd.counting() | weight | ({"teacher_weights": list(several.values())} if len(several) > 1 else {})
    settings = {
        "student": config.student.fingerprinted(exclude=frozenset({"seed", "start"})),
        "kd": kd,
        "seed": config.student_seed,
        **config.training_settings(),
    }
    # Soft labels by number, not by the teachers' names, which change nothing.
    text = {numbered("softlabels", number): fingerprint for number, fingerprint in enumerate(several, start=1)}
    text = text or {kind: inputs[kind] for kind in training_text(config)}
    start = start_hash(config.student)
    made_from = {"corpus": inputs["corpus"], **text} | ({START: start} if start else {})
    return PendingArtifact.of(store, "student", settings, made_from)


def _several_labels(kd: KdConfig, fingerprints: Mapping[str, str]) -> dict[str, float]:
    """The weights of the soft labels of several teachers by their fingerprint, heaviest first; none of a single one.

    fingerprints: by kind, theirs under `softlabels/NAME`. Of the same ones the weights are added.
    """
    weights: dict[str, float] = {}
    if kd.has_soft_labels and kd.teachers and len(kd.teachers) > 1:
        for name, weight in kd.teachers.items():
            fingerprint = fingerprints[f"softlabels/{name}"]
            weights[fingerprint] = weights.get(fingerprint, 0.0) + weight
    return dict(sorted(weights.items(), key=lambda item: (-item[1], item[0])))


@dataclass(frozen=True)
class DistillJob(TrainJob):
    """What all workers of a student's training are given; several soft labels as `softlabels`, `softlabels.2`, …"""

    teacher_weights: tuple[float, ...] = ()
    """Weights of several soft labels, in their order."""


def training_text(config: Config) -> list[str]:
    """The kinds of the artifacts whose pairs a student trains on, all of them the same number of times."""
    kd, more = config.kd, ["monolingual"] if config.uses_monolingual else []
    references, translations = ("softlabels", "decodedlabels") if kd.has_soft_labels else ("corpus", "decoded")
    return {"none": [references], "instead": [translations], "beside": [references, translations]}[kd.sequence] + more


def make(pending: PendingArtifact, context: StageContext) -> Artifact:
    """Makes the student artifact of an arm. Raises UserError for soft labels or translations of another corpus, and for
    a start whose vocabulary is not the corpus'."""
    corpus = context.inputs["corpus"]
    kd, inputs = context.config.kd, {"corpus": corpus.directory}
    by_fingerprint = {artifact.fingerprint: artifact for artifact in context.inputs.values()}
    several = _several_labels(kd, {kind: artifact.fingerprint for kind, artifact in context.inputs.items()})
    texts = {numbered("softlabels", number): by_fingerprint[of] for number, of in enumerate(several, start=1)}
    for kind, text in (texts or {kind: context.inputs[kind] for kind in training_text(context.config)}).items():
        # The labels of translations are of a corpus by way of these.
        source = context.inputs["decoded"] if kind == "decodedlabels" else text
        if text is not corpus and (of := source.inputs["corpus"]) != corpus.fingerprint:
            raise UserError(
                f"{text.uri}: it belongs to corpus {of}, not to {corpus.fingerprint}; "
                f"run {BY_ARTIFACT[text.stage].name} again"
            )
        inputs[kind] = text.directory
    info = {"vocabulary": corpus.info["vocabulary"]}
    if context.config.student.start is not None:
        start = share_start(context.config.student, pending, corpus)
        inputs[START] = f"{pending.staging}/{START}"
        if start is not None:
            info[START] = start.fingerprint
    context.runtime.start()
    weights = tuple(several.values())
    job = DistillJob(pending.store.uri, pending.directory, inputs, context.config, teacher_weights=weights)
    context.runtime.train(pending, _train, job, context.on_rows)
    if len(weights) > 1:
        info["teachers"] = kd.teachers
    return saving.commit_trained(pending, info)


@naming_memory_keys("student")
def _train(job: DistillJob, context: TrainContext) -> None:
    """The training function of every Ray Train worker."""
    import torch

    from bertkd_ray.artifacts.row_groups import RowGroups
    from bertkd_ray.core.devices import resolve_attention, resolve_precision
    from bertkd_ray.softlabels.row_groups import LabelledRowGroups
    from bertkd_ray.student.model import build_student
    from bertkd_ray.student.subword_dropout import SubwordDropout
    from bertkd_ray.student.task import StudentTask, Validation
    from bertkd_ray.training.trainer import TrainSettings, fit

    config, student = job.config, job.config.student
    store = Store(job.storage)
    corpus = load(store, job.inputs["corpus"])
    device = context.world.device
    precision = resolve_precision(config.precision, device)
    model = build_student(
        student,
        vocab_size=corpus.info["vocabulary"],
        max_positions=max(_MAX_POSITIONS, config.corpus.max_side_tokens + 1),
        seed=config.student_seed,
        attention=resolve_attention("auto", device, training=True),
    )
    if START in job.inputs:
        load_start(model, store, job.inputs[START])
    torch.nn.Module.to(model, device)  # transformers' own `to` is untyped
    several = [numbered("softlabels", number) for number in range(1, len(job.teacher_weights) + 1)]
    texts = [load(store, job.inputs[kind]) for kind in (several or training_text(config))]
    # Of several teachers the valid split's labels are not mixed.
    validation = Validation.of(corpus, texts[0] if config.kd.has_soft_labels and len(several) < 2 else None)
    task = StudentTask(model, student, config.kd, validation, precision, job.teacher_weights)
    resample = None
    if student.subword_dropout:
        resample = SubwordDropout(
            validation.tokenizer,
            student.subword_dropout,
            seed=config.student_seed,
            max_tokens=config.corpus.max_side_tokens,
        )
    columns = _SOFT_COLUMNS if config.kd.has_soft_labels else _PAIR_COLUMNS
    exclude = (DEAD_LETTERS, VALID_SHARDS)
    groups: RowGroups
    if len(several) > 1:
        groups = LabelledRowGroups(texts)
    else:
        groups = reduce(add, [RowGroups(text, _BELOW.get(text.stage, ""), columns, exclude=exclude) for text in texts])
    settings = TrainSettings.from_config(config, student, config.student_seed)
    trained = fit(task, groups, settings, context, precision, resample)
    model.eval().load_state_dict(trained.weights)
    # Of a mean of weights no checkpoint has the figures.
    metrics = task.evaluate(context.world) if student.average > 1 else None
    if context.world.rank == 0:
        names = {name for name, _ in store.files(corpus.directory, TOKENIZER)}.intersection(_TOKENIZER_FILES)
        files = {name: store.read(corpus.directory, TOKENIZER, name) for name in names}
        saving.save_trained(job, model, trained, files, metrics)
