"""Stage 3, distill: trains one arm's student on the corpus, with the teacher's soft labels unless alpha is 0."""

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
"""A `save_pretrained` directory with its tokenizer, safetensors: `AutoModelForSeq2SeqLM` and `AutoTokenizer` load it
without this package."""
HISTORY = "history.json"
"""The figures of the chosen checkpoint and the curves, as a teacher's."""
_MAX_POSITIONS = 512
"""Length at which the saved student stops generating; its positions are computed, so this costs nothing."""
_PAIR_COLUMNS = ["src_ids", "tgt_ids"]
_SOFT_COLUMNS = [*_PAIR_COLUMNS, "topk_ids", "topk_logits", "logsumexp"]


def pending_artifact(config: Config, store: Store, corpus: str, softlabels: str | None) -> PendingArtifact:
    """The student artifact of an arm.

    corpus, softlabels: the fingerprints of its inputs. With alpha 0 the teacher is no input: changing it does not
    train the control again.
    """
    kd = config.kd.fingerprinted() if config.kd.alpha > 0 else {"alpha": 0.0}
    settings = {
        "student": config.student.fingerprinted(exclude=frozenset({"seed"})),
        "kd": kd,
        "seed": config.student_seed,
        "precision": config.precision,
    }
    inputs = {"corpus": corpus}
    if config.kd.alpha > 0:
        if softlabels is None:
            raise ValueError("an arm with alpha > 0 needs soft labels")
        inputs["softlabels"] = softlabels
    return PendingArtifact(store, "student", fingerprint("student", settings, inputs), settings, inputs)


def distill(
    work: PendingArtifact,
    config: Config,
    runtime: Runtime,
    corpus: Artifact,
    softlabels: Artifact | None,
    on_rows: Callable[[list[CurveRow]], None],
) -> Artifact:
    """Makes the student artifact of an arm. Raises UserError for soft labels of another corpus."""
    if config.kd.alpha > 0:
        assert softlabels is not None
        _require_same_corpus(corpus, softlabels)
    runtime.start()
    arguments = {
        "config": config.model_dump(),
        "storage": work.store.uri,
        "artifact": work.directory,
        "corpus": corpus.directory,
        "softlabels": softlabels.directory if softlabels is not None and config.kd.alpha > 0 else None,
        "vocabulary": corpus.info["vocabulary"],
    }
    runtime.train(work, _worker, arguments, on_rows)
    summary = json.loads(work.store.read(work.directory, HISTORY))["summary"]
    return work.commit(made=[MODEL, HISTORY], metrics=summary, info={"vocabulary": corpus.info["vocabulary"]})


def _require_same_corpus(corpus: Artifact, softlabels: Artifact) -> None:
    of = softlabels.inputs["corpus"]
    if of != corpus.fingerprint:
        raise UserError(
            f"{softlabels.uri}: its soft labels belong to corpus {of}, not to {corpus.fingerprint}; run extract again"
        )


def _worker(arguments: dict[str, Any], context: TrainContext) -> None:
    """The training function of every Ray Train worker."""
    import torch

    from bertkd_ray.artifacts.row_groups import RowGroups
    from bertkd_ray.core.devices import resolve_attention, resolve_precision
    from bertkd_ray.core.ragged import Ragged
    from bertkd_ray.corpus.moses import to_raw
    from bertkd_ray.corpus.tokenizer import load_tokenizer
    from bertkd_ray.evaluation.metrics import tokenizer_for
    from bertkd_ray.student.model import build_student
    from bertkd_ray.student.task import StudentTask, Validation, lengths
    from bertkd_ray.training.trainer import TrainSettings, fit

    config = Config.model_validate(arguments["config"])
    store, student = Store(arguments["storage"]), config.student
    corpus = load(store, arguments["corpus"])
    device = context.world.device
    precision = resolve_precision(config.precision, device)
    with scratch_directory("corpus-") as scratch:
        tokenizer = load_tokenizer(corpus.local(TOKENIZER, scratch))
    valid = corpus.read_table("valid/")
    text, tgt_lang = corpus.info.get("text", "raw"), corpus.info.get("tgt_lang", "en")
    validation = Validation(
        Ragged.from_arrow(valid["src_ids"]),
        Ragged.from_arrow(valid["tgt_ids"]),
        to_raw(valid["tgt"].to_pylist(), text, tgt_lang),
        tokenizer,
        tokenizer_for(tgt_lang),
        text,
        tgt_lang,
    )
    model = build_student(
        vocab_size=arguments["vocabulary"],
        layers=(student.encoder_layers, student.decoder_layers),
        width=student.width,
        ffn=student.ffn,
        heads=student.heads,
        dropout=student.dropout,
        attention_dropout=student.attention_dropout,
        activation_dropout=student.activation_dropout,
        max_positions=max(_MAX_POSITIONS, config.corpus.max_side_tokens + 1),
        seed=config.student_seed,
        attention=resolve_attention("auto", device, training=True),
    )
    torch.nn.Module.to(model, device)  # transformers' own `to` is untyped
    task = StudentTask(model, student, config.kd, validation, precision)
    groups = (
        RowGroups(load(store, arguments["softlabels"]), "part-", _SOFT_COLUMNS)
        if arguments["softlabels"]
        else RowGroups(corpus, "train/", _PAIR_COLUMNS)
    )
    settings = TrainSettings(
        seed=config.student_seed,
        checkpoint_every=config.checkpoint_every,
        log_every=config.log_every,
        **student.model_dump(include=set(TrainSettings.__dataclass_fields__) - {"seed"}),
    )
    trained = fit(task, groups, lengths, settings, context, precision)
    model.load_state_dict(trained.weights)
    figures = task.evaluate(context.world) if student.average > 1 else {}
    if context.world.rank == 0:
        _save(store, arguments, corpus, model, trained, figures)


def _save(
    store: Store,
    arguments: dict[str, Any],
    corpus: Artifact,
    model: Any,
    trained: TrainResult,
    averaged: dict[str, float],
) -> None:
    """Writes the student as an ordinary `save_pretrained` directory with its tokenizer, and the training curves."""
    from bertkd_ray.core.quiet import quiet_transformers
    from bertkd_ray.training.curves import validation_at

    with scratch_directory("student-") as scratch:
        directory = scratch / MODEL
        with quiet_transformers():
            model.save_pretrained(directory)
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            if store.exists(corpus.directory, TOKENIZER, name):
                (directory / name).write_bytes(store.read(corpus.directory, TOKENIZER, name))
        store.upload(directory, arguments["artifact"], MODEL)
    history = trained.state.history
    valid = averaged or validation_at(history, trained.state.best_step).metrics
    summary = {
        **valid,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": trained.state.step,
        "best_step": trained.state.best_step,
    }
    data = json.dumps({"summary": summary, "rows": [row.to_json() for row in history]}).encode()
    store.write(data, arguments["artifact"], HISTORY)
