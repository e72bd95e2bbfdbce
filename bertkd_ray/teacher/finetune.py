"""Stage 1, finetune: trains the conditional masked language model with Ray Train."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact, fingerprint, load
from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config
from bertkd_ray.core.errors import UserError
from bertkd_ray.corpus.prepare import TOKENIZER

if TYPE_CHECKING:
    from bertkd_ray.execution.interface import Runtime, TrainContext
    from bertkd_ray.training.curves import CurveRow
    from bertkd_ray.training.trainer import TrainResult

MODEL = "model"
"""A `save_pretrained` directory, safetensors: BERT's encoder and MLM transform under transformers' names, and the
output layer `output.weight` [V, H], `output.bias` [V] over the student's vocabulary."""
HISTORY = "history.json"
"""`summary`: the chosen checkpoint's figures; `rows`: the curves, an object a point with `step`, `time` (seconds since
1970) and `train/…` or `valid/…` figures."""
SPECIALS = "specials.json"
"""In the model's directory: BERT's ids of `[PAD]`, `[CLS]`, `[SEP]` and `[MASK]`."""


def pending_artifact(config: Config, store: Store, corpus: str, bert_hash: str) -> PendingArtifact:
    """The teacher artifact; the BERT enters by content, not by name."""
    settings = {
        "teacher": config.teacher.fingerprinted(exclude=frozenset({"model"})),
        "seed": config.seed,
        "precision": config.precision,
    }
    inputs = {"corpus": corpus, "bert": bert_hash}
    return PendingArtifact(store, "teacher", fingerprint("teacher", settings, inputs), settings, inputs)


def finetune(
    work: PendingArtifact,
    config: Config,
    runtime: Runtime,
    corpus: Artifact,
    bert: str,
    on_rows: Callable[[list[CurveRow]], None],
) -> Artifact:
    """Makes the teacher artifact. bert: directory of the BERT to start from, on every node."""
    vocabulary = corpus.info["vocabulary"]
    if config.stored_topk() > vocabulary:
        # Extraction would find it, hours later.
        raise UserError(f"kd.topk: {config.stored_topk()} is more than the {vocabulary} tokens of the corpus; lower it")
    runtime.start()
    arguments = {
        "config": config.model_dump(),
        "storage": work.store.uri,
        "artifact": work.directory,
        "corpus": corpus.directory,
        "model": config.teacher.model,
    }
    runtime.train(work, _worker, arguments, on_rows)
    summary = json.loads(work.store.read(work.directory, HISTORY))["summary"]
    return work.commit(
        made=[MODEL, HISTORY],
        metrics=summary,
        info={"bert": config.teacher.model, "vocabulary": vocabulary},
    )


def _worker(arguments: dict[str, Any], context: TrainContext) -> None:
    """The training function of every Ray Train worker."""
    import torch

    from bertkd_ray.artifacts.row_groups import RowGroups
    from bertkd_ray.core.devices import resolve_attention, resolve_precision
    from bertkd_ray.corpus.tokenizer import load_bert_ids
    from bertkd_ray.teacher.model import build_teacher
    from bertkd_ray.teacher.source import bert_specials, resolve_model
    from bertkd_ray.teacher.task import TeacherTask, lengths
    from bertkd_ray.training.trainer import TrainSettings, fit

    config = Config.model_validate(arguments["config"])
    store, teacher = Store(arguments["storage"]), config.teacher
    corpus = load(store, arguments["corpus"])
    device = context.world.device
    bert = resolve_model(arguments["model"])
    with scratch_directory("corpus-") as scratch:
        bert_ids = load_bert_ids(corpus.local(TOKENIZER, scratch))
    specials = bert_specials(bert)
    model = build_teacher(
        bert,
        bert_ids,
        pretrained=teacher.pretrained,
        attention=resolve_attention(teacher.attention, device, training=True),
        dropout=teacher.dropout,
        attention_dropout=teacher.attention_dropout,
        layers=teacher.layers,
        left_to_right=teacher.left_to_right,
        seed=config.seed,
    )
    torch.nn.Module.to(model, device)  # transformers' own `to` is untyped
    columns = ["id", "src_ids", "tgt_ids"]
    valid = corpus.read_table("valid/", columns).combine_chunks()
    precision = resolve_precision(config.precision, device)
    task = TeacherTask(model, teacher, config.seed, bert_ids, specials, valid, precision)
    settings = TrainSettings(
        seed=config.seed,
        checkpoint_every=config.checkpoint_every,
        log_every=config.log_every,
        **teacher.model_dump(include=set(TrainSettings.__dataclass_fields__)),
    )
    trained = fit(task, RowGroups(corpus, "train/", columns), lengths, settings, context, precision)
    if context.world.rank == 0:
        model.load_state_dict(trained.weights)
        _save(store, arguments["artifact"], corpus, model, specials._asdict(), trained)


def _save(
    store: Store, artifact: str, corpus: Artifact, model: Any, specials: dict[str, int], trained: TrainResult
) -> None:
    """Writes the teacher as a `save_pretrained` directory with the tokenizer of its output, and the training curves."""
    from bertkd_ray.core.quiet import quiet_transformers
    from bertkd_ray.training.curves import validation_at

    with scratch_directory("teacher-") as scratch:
        directory = scratch / MODEL
        with quiet_transformers():
            model.save_pretrained(directory)
        (directory / SPECIALS).write_text(json.dumps(specials), encoding="utf-8")
        store.upload(directory, artifact, MODEL)
    history = trained.state.history
    summary = {
        **validation_at(history, trained.state.best_step).metrics,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": trained.state.step,
        "best_step": trained.state.best_step,
    }
    store.write(
        json.dumps({"summary": summary, "rows": [row.to_json() for row in history]}).encode(), artifact, HISTORY
    )
