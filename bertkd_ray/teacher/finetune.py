"""The finetune stage: trains the conditional masked language model with Ray Train."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact, load
from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.paths import expand_home
from bertkd_ray.corpus.passes import TOKENIZER
from bertkd_ray.execution.stage import StageContext
from bertkd_ray.teacher.masking import BertSpecials
from bertkd_ray.training import saving
from bertkd_ray.training.context import TrainContext, TrainJob
from bertkd_ray.training.memory import naming_memory_keys

if TYPE_CHECKING:
    import torch

    from bertkd_ray.teacher.model import ConditionalMaskedLM

MODEL = saving.MODEL
"""A `save_pretrained` directory, safetensors: BERT's encoder and MLM transform under transformers' names, and the
output layer `output.weight` [V, H], `output.bias` [V] over the student's vocabulary."""
HISTORY = saving.HISTORY
"""`summary`: the chosen checkpoint's figures; `rows`: the curves, an object a point with `step`, `time` (seconds since
1970) and `train/…` or `valid/…` figures."""
SPECIALS = "specials.json"
"""The file in the model's directory with BERT's ids of `[PAD]`, `[CLS]`, `[SEP]` and `[MASK]`."""


def pending_artifact(config: Config, store: Store, inputs: dict[str, str]) -> PendingArtifact:
    """The teacher artifact; the BERT enters by content, not by name."""
    teacher = config.teacher.fingerprinted(exclude=frozenset({"model"}))
    settings = {"teacher": teacher, "seed": config.seed, **config.training_settings()}
    return PendingArtifact.of(store, "teacher", settings, inputs)


def make(pending: PendingArtifact, context: StageContext) -> Artifact:
    """Makes the teacher artifact; the BERT to start from is on every node."""
    config, corpus = context.config, context.inputs["corpus"]
    vocabulary = corpus.info["vocabulary"]
    if config.stored_topk() > vocabulary:
        # Extraction would find it, hours later.
        raise UserError(f"kd.topk: {config.stored_topk()} is more than the {vocabulary} tokens of the corpus; lower it")
    context.runtime.start()
    inputs = {"corpus": corpus.directory, "bert": pending.inputs["bert"]}
    # Workers are in another directory, from which a relative path leads elsewhere; a hub's cache is each node's own.
    model = context.bert if Path(expand_home(config.teacher.model)).is_dir() else config.teacher.model
    teacher = config.teacher.model_copy(update={"model": model})
    job = TrainJob(pending.store.uri, pending.directory, inputs, config.model_copy(update={"teacher": teacher}))
    context.runtime.train(pending, _train, job, context.on_rows)
    return saving.commit_trained(pending, {"bert": config.teacher.model, "vocabulary": vocabulary})


def load_finished(teacher: Artifact, scratch: Path, device: torch.device) -> tuple[ConditionalMaskedLM, BertSpecials]:
    """The teacher of an artifact, to read with on a device, and BERT's special tokens; scratch: for remote files.

    Raises UserError as `teacher.model.load_teacher`.
    """
    from torch import nn

    from bertkd_ray.core.devices import resolve_attention
    from bertkd_ray.teacher.model import load_teacher

    directory = teacher.local(MODEL, scratch)
    model = load_teacher(directory, attention=resolve_attention("auto", device, training=False))
    nn.Module.to(model, device)  # transformers' own `to` is untyped
    return model, BertSpecials(**json.loads((directory / SPECIALS).read_text(encoding="utf-8")))


@naming_memory_keys("teacher")
def _train(job: TrainJob, context: TrainContext) -> None:
    """The training function of every Ray Train worker."""
    import torch

    from bertkd_ray.artifacts.row_groups import RowGroups
    from bertkd_ray.core.devices import resolve_attention, resolve_precision
    from bertkd_ray.corpus.tokenizer import load_bert_ids
    from bertkd_ray.teacher.model import build_teacher
    from bertkd_ray.teacher.pruned_embedding import PrunedEmbedding, decay_until
    from bertkd_ray.teacher.source import bert_specials, model_hash, resolve_model
    from bertkd_ray.teacher.task import TeacherTask
    from bertkd_ray.training.trainer import TrainSettings, fit

    config, teacher = job.config, job.config.teacher
    corpus = load(Store(job.storage), job.inputs["corpus"])
    device = context.world.device
    bert = resolve_model(teacher.model)
    with scratch_directory("corpus-") as scratch:
        bert_ids = load_bert_ids(corpus.local(TOKENIZER, scratch))
    specials = bert_specials(bert)
    attention = resolve_attention(teacher.attention, device, training=True)
    model = build_teacher(bert, bert_ids, teacher, attention=attention, seed=config.seed)
    # Once it is read: a copy of it may have been going on since the driver's look, and other nodes may have another.
    if model_hash(bert) != job.inputs["bert"]:
        raise UserError(
            f"teacher.model: {bert} on {platform.node()} is not, or no longer, what this run began with; give all "
            "nodes the same whole files, and run the command again"
        )
    embedding = PrunedEmbedding(model, bert_ids, specials)
    torch.nn.Module.to(model, device)  # transformers' own `to` is untyped
    columns = ["id", "src_ids", "tgt_ids"]
    valid = corpus.read_table("valid/", columns).combine_chunks()
    precision = resolve_precision(config.precision, device)
    task = TeacherTask(model, teacher, config.seed, embedding.bert_ids, embedding.specials, valid, precision)
    embedding.accept_whole_moments(task.optimizer)
    settings = TrainSettings.from_config(config, teacher, config.seed)
    trained = fit(task, RowGroups(corpus, "train/", columns), settings, context, precision)
    if context.world.rank == 0:
        decay = decay_until(trained.state.best_step, task.learning_rate, teacher.weight_decay)
        embedding.load_whole(trained.weights, decay=decay)
        saving.save_trained(job, model, trained, {SPECIALS: json.dumps(specials._asdict()).encode()})
