"""The distill stage: trains one arm's student on the corpus, on the teacher's translations of it, or on both.

The targets come with the teacher's soft labels unless alpha is 0.
"""

from functools import reduce
from operator import add

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact, load
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.stages import BY_ARTIFACT
from bertkd_ray.corpus.passes import TOKENIZER
from bertkd_ray.execution.dead_letters import DEAD_LETTERS
from bertkd_ray.execution.stage import StageContext
from bertkd_ray.softlabels.shards import VALID_SHARDS
from bertkd_ray.student.start import START, load_start, share_start, start_hash
from bertkd_ray.training import saving
from bertkd_ray.training.context import TrainContext, TrainJob

MODEL = saving.MODEL
"""A `save_pretrained` directory with its tokenizer, safetensors: `AutoModelForSeq2SeqLM` and `AutoTokenizer` load it
without this package."""
HISTORY = saving.HISTORY
"""The figures of the chosen checkpoint (`summary`) and the curves (`rows`)."""
_MAX_POSITIONS = 512
"""Length at which the saved student stops generating; its positions are computed, so this costs nothing."""
_PAIR_COLUMNS = ["id", "src_ids", "tgt_ids"]
_SOFT_COLUMNS = [*_PAIR_COLUMNS, "topk_ids", "topk_logits", "logsumexp"]
_BELOW = {"corpus": "train/", "decoded": "train/"}
"""Where the pairs to train on lie in an artifact that has other files, too."""
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def pending_artifact(config: Config, store: Store, inputs: dict[str, str]) -> PendingArtifact:
    """The student artifact of an arm.

    With alpha 0 the soft labels are no input: changing the teacher does not train the control again. What it starts
    from enters by its weights.
    """
    weight = {"monolingual_weight": config.kd.monolingual_weight} if config.uses_monolingual else {}
    settings = {
        "student": config.student.fingerprinted(exclude=frozenset({"seed", "start"})),
        "kd": config.kd.counting() | weight,
        "seed": config.student_seed,
        "precision": config.precision,
    }
    kinds = dict.fromkeys(["corpus", *training_text(config)])
    start = start_hash(config.student)
    made_from = {kind: inputs[kind] for kind in kinds} | ({START: start} if start else {})
    return PendingArtifact.of(store, "student", settings, made_from)


def training_text(config: Config) -> list[str]:
    """The kinds of the artifacts whose pairs a student trains on, all of them the same number of times."""
    kd, more = config.kd, ["monolingual"] if config.uses_monolingual else []
    references, translations = ("softlabels", "decodedlabels") if kd.has_soft_labels else ("corpus", "decoded")
    return {"none": [references], "instead": [translations], "beside": [references, translations]}[kd.sequence] + more


def make(pending: PendingArtifact, context: StageContext) -> Artifact:
    """Makes the student artifact of an arm. Raises UserError for soft labels or translations of another corpus, and for
    a start whose vocabulary is not the corpus'."""
    corpus = context.inputs["corpus"]
    inputs = {"corpus": corpus.directory}
    for kind in training_text(context.config):
        text = context.inputs[kind]
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
    job = TrainJob(pending.store.uri, pending.directory, inputs, context.config)
    context.runtime.train(pending, _train, job, context.on_rows)
    return saving.commit_trained(pending, info)


def _train(job: TrainJob, context: TrainContext) -> None:
    """The training function of every Ray Train worker."""
    import torch

    from bertkd_ray.artifacts.row_groups import RowGroups
    from bertkd_ray.core.devices import resolve_attention, resolve_precision
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
    texts = [load(store, job.inputs[kind]) for kind in training_text(config)]
    validation = Validation.of(corpus, texts[0] if config.kd.has_soft_labels else None)
    task = StudentTask(model, student, config.kd, validation, precision)
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
