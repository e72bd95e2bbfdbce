"""The translate stage: beam search over the test split on an actor pool, then the scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from tokenizers import Tokenizer

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact
from bertkd_ray.artifacts.row_groups import write_parquet
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config
from bertkd_ray.config.sections import TranslateConfig
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.corpus.text_form import TextForm
from bertkd_ray.corpus.tokenizer import load_tokenizer
from bertkd_ray.execution.dead_letters import ErrorBudget
from bertkd_ray.execution.stage import StageContext
from bertkd_ray.student.distill import MODEL
from bertkd_ray.translation.parts import PartTranslator, TranslatedSplit, TranslateJob, parts_of, translate_parts

if TYPE_CHECKING:
    from bertkd_ray.decoding.batches import Translation

TRANSLATIONS = "translations.parquet"
"""Sources, references and hypotheses side by side."""
_NOT_HASHED = frozenset({"bootstrap_samples", "teacher"})


def pending_artifact(config: Config, store: Store, inputs: dict[str, str]) -> PendingArtifact:
    """The translation artifact of one student; the bootstrap compares finished translations."""
    return PendingArtifact.of(store, "translation", search_settings(config), inputs)


def search_settings(config: Config) -> dict[str, Any]:
    """What of the configuration translations depend on."""
    return {"translate": config.translate.fingerprinted(exclude=_NOT_HASHED), "precision": config.precision}


def make(pending: PendingArtifact, context: StageContext) -> Artifact:
    """Translates the test split and scores it; sources, references and hypotheses stand side by side in one table.

    Raises UserError when translating more than `max_rejects` of the sentences raises or kills its process; what is
    translated is kept, and a greater share finishes it.
    """
    from bertkd_ray.evaluation.metrics import tokenizer_for

    config, corpus = context.config, context.inputs["corpus"]
    tokenize = tokenizer_for(TextForm.of(corpus).tgt_lang)
    parts = parts_of(corpus, "test")
    job = TranslateJob(
        storage=pending.store.uri,
        staging=pending.staging,
        corpus=corpus.directory,
        model=context.inputs["student"].directory,
        config=config,
        budget=ErrorBudget("translate", config.max_rejects, sum(part.rows for part in parts)),
    )
    dead_letters = translate_parts(pending, context.runtime, parts, StudentTranslator, job)
    split = TranslatedSplit.of(pending, parts)
    write_parquet(pending.store, split.table, pending.directory, TRANSLATIONS, compression="zstd")
    metrics, signatures = scores_of(split.table, "test", tokenize)
    info = {"signatures": signatures, "tokenize": tokenize, "precision": ", ".join(sorted(split.precisions))}
    info["trained_in"] = context.inputs["student"].info.get("precision", "")
    metrics |= {**split.speed(), "rejects": len(dead_letters)}
    return pending.commit(made=[TRANSLATIONS, *dead_letters.keep()], metrics=metrics, info=info)


def scores_of(table: pa.Table, split: str, tokenize: str) -> tuple[dict[str, float], dict[str, str]]:
    """The scores of a table of translations as metrics of a split, `test/bleu` and others, and their signatures."""
    from bertkd_ray.evaluation.metrics import score

    tokens = None
    if "reference_tokens" in table.column_names:
        tokens = best_hypotheses(table, "hypotheses_tokens"), table["reference_tokens"].to_pylist()
    scores = asdict(score(best_hypotheses(table), table["reference"].to_pylist(), tokenize=tokenize, tokens=tokens))
    metrics = {f"{split}/{name}": value for name, value in scores.items() if isinstance(value, int | float)}
    return metrics, {name: value for name, value in scores.items() if isinstance(value, str)}


def best_hypotheses(table: pa.Table, column: str = "hypotheses") -> list[str]:
    """The first hypothesis of every sentence of a translation table; column: or `hypotheses_tokens`."""
    return [hypotheses[0] for hypotheses in table[column].to_pylist()]


def read_translations(artifact: Artifact) -> pa.Table:
    """The table of a translation artifact (`translation.parts.translation_schema`)."""
    return artifact.read_table(TRANSLATIONS)


def signatures_of(translations: Mapping[str, Artifact], command: str = "") -> dict[str, str]:
    """What the scores of translations are, by metric, those of several versions of sacrebleu beside each other.

    translations: by what people call them. command: what makes them, for the message. Raises UserError, in one line,
    where their BLEU is of different tokenizers. A line each says that they were computed in different precisions, and
    that their students' corpora differ.
    """
    from bertkd_ray.evaluation.metrics import DEFAULT_TOKENIZER

    tokenizers = {name: of.info.get("tokenize", DEFAULT_TOKENIZER) for name, of in translations.items()}
    for name, tokenize in tokenizers.items():
        first, expected = next(iter(tokenizers.items()))
        if tokenize != expected:
            # Characters are scored where the language's tokenizer is not installed, 13a by earlier versions.
            again, wanted = (first, tokenize) if expected in ("char", DEFAULT_TOKENIZER) else (name, expected)
            raise UserError(
                f"{name}: its BLEU is of {tokenize}, that of {first} of {expected}, so that they do not compare; move "
                f"{translations[again].display_uri} away, and run {command or 'bertkd translate'} again where {wanted} "
                "is installed"
            )
    signatures = [of.info["signatures"] for of in translations.values()]
    metrics = sorted(set[str]().union(*signatures))
    lines = {metric: ", ".join(dict.fromkeys(of[metric] for of in signatures if metric in of)) for metric in metrics}
    known = {name: of.info for name, of in translations.items() if of.info.get("trained_in")}
    computed = {name: f"trained in {of['trained_in']}, translated in {of['precision']}" for name, of in known.items()}
    if len(set(computed.values())) > 1:
        lines["precision"] = "; ".join(f"{name}: {precisions}" for name, precisions in computed.items())
    if len({of.inputs.get("corpus") for of in translations.values()}) > 1:
        lines["valid"] = "the corpora differ, and with them vocabularies or valid sets: figures of these do not compare"
    return lines


class StudentTranslator(PartTranslator):
    """An actor that holds the student."""

    def _load(self, model: Artifact, scratch: Path) -> Tokenizer:
        from bertkd_ray.student.saved_model import load_student

        directory = model.local(MODEL, scratch)
        self._model = load_student(directory, self._device)
        return load_tokenizer(directory)

    def _translate_ids(self, src: Ragged, search: TranslateConfig) -> list[list[Translation]]:
        from bertkd_ray.decoding.seq2seq import translate_ids

        return translate_ids(
            self._model,
            src,
            beam=search.beam,
            alpha=search.length_penalty,
            n_best=search.n_best,
            batch_tokens=search.forward_tokens,
            precision=self._precision,
        )
