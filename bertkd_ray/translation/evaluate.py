"""The evaluate stage: a left-to-right teacher translates the valid and the test set, for a row of its own in the table.

The valid set is translated greedily, as students are validated, and the test set by the search of `translate`. The
stage takes what `translate` takes a student, times the teacher's size; `translate.teacher: false` leaves it out.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact
from bertkd_ray.artifacts.row_groups import write_parquet
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config
from bertkd_ray.config.sections import TranslateConfig
from bertkd_ray.core.console import log
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.core.stages import EVALUATE
from bertkd_ray.corpus.passes import TOKENIZER
from bertkd_ray.corpus.text_form import TextForm
from bertkd_ray.corpus.tokenizer import load_bert_ids, load_tokenizer
from bertkd_ray.execution.dead_letters import ErrorBudget
from bertkd_ray.execution.stage import StageContext
from bertkd_ray.teacher.finetune import MODEL, load_finished
from bertkd_ray.teacher.masking import SPECIAL_TOKENS_PER_PAIR
from bertkd_ray.translation.parts import PartTranslator, TranslatedSplit, TranslateJob, parts_of, translate_parts
from bertkd_ray.translation.translate import TRANSLATIONS, scores_of, search_settings

if TYPE_CHECKING:
    from bertkd_ray.decoding.batches import Translation

VALID_TRANSLATIONS = "valid.parquet"
"""Greedy translations of the valid set, in the form of those of the test set (`translations.parquet`)."""


def pending_artifact(config: Config, store: Store, inputs: dict[str, str]) -> PendingArtifact:
    """The evaluation artifact of the teacher."""
    return PendingArtifact.of(store, EVALUATE.artifact, search_settings(config), inputs)


def make(pending: PendingArtifact, context: StageContext) -> Artifact:
    """Translates valid and test split and scores both.

    A source that leaves no position of the BERT for a translation has an empty one, which a line says. Raises UserError
    when translating more than `max_rejects` of the sentences raises or kills its process; what is translated is kept,
    and a greater share finishes it.
    """
    from bertkd_ray.evaluation.metrics import tokenizer_for

    config, corpus, teacher = context.config, context.inputs["corpus"], context.inputs["teacher"]
    tokenize = tokenizer_for(TextForm.of(corpus).tgt_lang)
    parts = {split: parts_of(corpus, split, split) for split in ("valid", "test")}
    every = [part for of_split in parts.values() for part in of_split]
    job = TranslateJob(
        storage=pending.store.uri,
        staging=pending.staging,
        corpus=corpus.directory,
        model=teacher.directory,
        config=config,
        budget=ErrorBudget(EVALUATE.name, config.max_rejects, sum(part.rows for part in every)),
    )
    dead_letters = translate_parts(pending, context.runtime, every, TeacherTranslator, job)
    valid, test = (TranslatedSplit.of(pending, of_split) for of_split in parts.values())
    write_parquet(pending.store, valid.table, pending.directory, VALID_TRANSLATIONS, compression="zstd")
    write_parquet(pending.store, test.table, pending.directory, TRANSLATIONS, compression="zstd")
    _say_too_long(corpus, int(teacher.read_json(MODEL, "config.json")["max_position_embeddings"]))
    metrics, signatures = scores_of(test.table, "test", tokenize)
    metrics |= {**scores_of(valid.table, "valid", tokenize)[0], **test.speed(), "rejects": len(dead_letters)}
    info = {
        "signatures": signatures,
        "tokenize": tokenize,
        "precision": ", ".join(sorted(valid.precisions | test.precisions)),
        "trained_in": teacher.info.get("precision", ""),
    }
    return pending.commit(made=[VALID_TRANSLATIONS, TRANSLATIONS, *dead_letters.keep()], metrics=metrics, info=info)


def _say_too_long(corpus: Artifact, positions: int) -> None:
    for split in ("valid", "test"):
        lengths = Ragged.from_arrow(corpus.read_table(f"{split}/", ["src_ids"])["src_ids"]).lengths
        if count := int(np.sum(lengths > positions - SPECIAL_TOKENS_PER_PAIR)):
            log(
                f"warning: {count} sources of {split} fill the teacher's {positions} positions; their translations "
                "are empty",
                stage=EVALUATE.name,
            )


class TeacherTranslator(PartTranslator):
    """An actor that holds the teacher."""

    def _load(self, model: Artifact, scratch: Path) -> Tokenizer:
        self._model, self._specials = load_finished(model, scratch, self._device)
        tokenizer = self._corpus.local(TOKENIZER, scratch)
        self._bert_ids = load_bert_ids(tokenizer)
        return load_tokenizer(tokenizer)

    def _translate_ids(self, src: Ragged, search: TranslateConfig) -> list[list[Translation]]:
        from bertkd_ray.teacher.decoding import translate_ids

        return translate_ids(
            self._model,
            self._bert_ids,
            self._specials,
            src,
            beam=search.beam,
            alpha=search.length_penalty,
            n_best=search.n_best,
            batch_tokens=search.forward_tokens,
            precision=self._precision,
        )
