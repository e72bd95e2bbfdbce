"""The decode stage: the teacher translates the training sources by beam search, one file a fragment (`kd.sequence`).

Students that train on such translations are distilled at the level of sequences (Kim & Rush, 2016, arXiv 1606.07947).
The artifact has the form of a corpus with a training split alone: the label stage and the students read it as one. A
pair keeps its id. A fragment appears under its name in one step, so a run that was cut off goes on with those that are
missing; sources that cannot be translated are not in it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact, load
from bertkd_ray.artifacts.row_groups import parquet_bytes
from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config
from bertkd_ray.core.console import log
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.core.stages import DECODE
from bertkd_ray.corpus.passes import CORPUS_SCHEMA, TOKENIZER
from bertkd_ray.corpus.tokenizer import decode, load_bert_ids, load_tokenizer
from bertkd_ray.execution.attempts import STATS, Attempt, finished
from bertkd_ray.execution.dead_letters import ErrorBudget
from bertkd_ray.execution.device import open_device
from bertkd_ray.execution.resumable_map import FileJob, FinishedFile, resumable_map
from bertkd_ray.execution.stage import StageContext
from bertkd_ray.softlabels.fragments import kept_groups, read_fragment
from bertkd_ray.teacher.finetune import load_finished

if TYPE_CHECKING:
    from bertkd_ray.core.devices import Precision
    from bertkd_ray.execution.fault_isolation import FaultIsolation
    from bertkd_ray.teacher.masking import BertSpecials
    from bertkd_ray.teacher.model import ConditionalMaskedLM

DECODED_SCHEMA = pa.schema([*CORPUS_SCHEMA, ("score", pa.float32())])
"""A row is a source of the training text and what the teacher makes of it.

id: the pair's id in the corpus.
src: text, as in the corpus.
tgt: the teacher's translation as text, in the form of the corpus.
src_ids: its tokens, as in the corpus.
tgt_ids: the translation's tokens, without BOS and EOS.
score: log probability of the translation over the length penalty.
"""
_MANY = 0.01
"""Share of translations that do not end, or are empty, of which a line is said."""


@dataclass(frozen=True)
class DecodeJob(FileJob):
    """What an actor needs; artifact and teacher are directories in the store."""

    artifact: str
    teacher: str
    config: Config


@dataclass(frozen=True)
class DecodedFragment(FinishedFile):
    """A finished file of translations."""

    counts: dict[str, int] = field(default_factory=dict)
    """Tokens of both sides and of the references; translations that are empty, ended by a limit, or the reference."""
    precision: str = ""


def pending_artifact(config: Config, store: Store, inputs: dict[str, str]) -> PendingArtifact:
    """The artifact of the teacher's translations; the size of the batches shapes the last bits of bf16 sums."""
    settings = {"decode": config.decode.fingerprinted(), "precision": config.precision}
    return PendingArtifact.of(store, DECODE.artifact, settings, inputs)


def make(pending: PendingArtifact, context: StageContext) -> Artifact:
    """Makes the artifact of the teacher's translations.

    Raises UserError when translating more than `max_rejects` of the sources raises or kills its process; what is
    translated is kept, and a greater share finishes it.
    """
    config, corpus = context.config, context.inputs["corpus"]
    job = DecodeJob(
        storage=pending.store.uri,
        artifact=pending.directory,
        staging=pending.staging,
        corpus=corpus.directory,
        teacher=context.inputs["teacher"].directory,
        config=config,
        budget=ErrorBudget(DECODE.name, config.max_rejects, int(corpus.metrics["train/pairs"])),
    )
    fragments, dead_letters = resumable_map(
        pending,
        context.runtime,
        [entry.path for entry in corpus.files_below("train/")],
        FragmentTranslator,
        job,
        finished=lambda fragment: _finished(pending.store, job, fragment),
        unit="sentences",
    )
    with scratch_directory("tokenizer-") as scratch:
        pending.store.upload(corpus.local(TOKENIZER, scratch), pending.directory, TOKENIZER)
    metrics = _metrics(fragments)
    warn_of_many(metrics, DECODE.name)
    form = {key: value for key, value in corpus.info.items() if key in ("vocabulary", "text", "src_lang", "tgt_lang")}
    return pending.commit(
        made=[TOKENIZER, *sorted(fragment.name for fragment in fragments), *dead_letters.keep()],
        metrics={**metrics, "rejects": len(dead_letters)},
        info={**form, "precision": ", ".join(sorted({fragment.precision for fragment in fragments} - {""}))},
    )


class FragmentTranslator:
    """An actor that holds the teacher and translates the sources of fragments, given by their paths in the corpus."""

    def __init__(self, job: DecodeJob) -> None:
        from bertkd_ray.core.devices import resolve_precision

        self._store, self._job = Store(job.storage), job
        self._device = open_device(job.device)
        with scratch_directory("teacher-") as scratch:
            model, specials = load_finished(load(self._store, job.teacher), scratch, self._device)
            tokenizer = load(self._store, job.corpus).local(TOKENIZER, scratch)
            self._tokenizer, bert_ids = load_tokenizer(tokenizer), load_bert_ids(tokenizer)
        self._precision = resolve_precision(job.config.precision, self._device)
        self._translator = SourceTranslator(model, bert_ids, specials, job.config, self._precision)

    def __call__(self, fragment: str) -> DecodedFragment:
        """Writes one file unless it is there; its row groups are those of the fragment, less the rejected pairs."""
        if file := _finished(self._store, self._job, fragment):
            return file
        attempt = Attempt(self._store, self._job.staging, fragment)
        table, groups = read_fragment(self._store, self._job.corpus, fragment, ["id", "src", "src_ids", "tgt_ids"])
        src, references = (Ragged.from_arrow(table[name]) for name in ("src_ids", "tgt_ids"))
        isolation = self._job.isolation(self._store, table["id"].to_numpy(), attempt, fragment, self._device)
        tgt, scores, unended = self._translator.translate(src, isolation)
        columns = {
            "id": table["id"],
            "src": table["src"],
            "tgt": decode(self._tokenizer, [tgt.row(index).tolist() for index in range(len(tgt))]),
            "src_ids": table["src_ids"],
            "tgt_ids": tgt.to_arrow(pa.int32()),
            "score": scores,
        }
        rows = np.flatnonzero(isolation.kept)
        counts = translation_counts(src.take(rows), tgt.take(rows), unended[rows])
        counts |= _compared(tgt.take(rows), references.take(rows))
        file = DecodedFragment(fragment, len(table), len(isolation.dead_letters), counts, self._precision)
        stats = {"rows": len(rows), "rejects": file.dead_letters, "counts": counts, "precision": self._precision}
        schema = DECODED_SCHEMA.with_metadata({STATS: json.dumps(stats)})
        decoded, groups = pa.table(columns, schema=schema).take(rows), kept_groups(groups, isolation.kept)
        attempt.finish(isolation.dead_letters)
        self._store.write(parquet_bytes(decoded, groups, compression="zstd"), self._job.artifact, fragment)
        return file


@dataclass(frozen=True, eq=False)
class SourceTranslator:
    """A left-to-right teacher with its search; it is on the device to compute on.

    bert_ids: integers [V], the BERT id behind each token.
    """

    model: ConditionalMaskedLM
    bert_ids: NDArray[np.integer]
    specials: BertSpecials
    config: Config
    precision: Precision

    def translate(
        self, src: Ragged, isolation: FaultIsolation
    ) -> tuple[Ragged, NDArray[np.float32], NDArray[np.bool_]]:
        """The best translation of every source, its score, and whether it was ended by a limit.

        No translation is longer than a target of the corpus may be. Those of rejected sources are empty.
        """
        from bertkd_ray.decoding.batches import Translation, length_limits, translation_batches
        from bertkd_ray.teacher.decoding import translate_ids

        settings, corpus = self.config.decode, self.config.corpus
        best = [Translation([], 0.0)] * len(src)

        def compute(rows: NDArray[np.int64]) -> None:
            translated = translate_ids(
                self.model,
                self.bert_ids,
                self.specials,
                src.take(rows),
                beam=settings.beam,
                alpha=settings.length_penalty,
                batch_tokens=settings.forward_tokens,
                precision=self.precision,
            )
            for row, (translation,) in zip(rows.tolist(), translated, strict=True):
                best[row] = translation

        batches = translation_batches(src, beam=settings.beam, batch_tokens=settings.forward_tokens)
        isolation.run(batches, np.arange(len(src)), compute)
        most = np.minimum(corpus.max_side_tokens, corpus.max_pair_tokens - src.lengths)
        limits = np.minimum(length_limits(src.lengths, int(self.model.config.max_position_embeddings)), most + 1)
        tgt = Ragged.from_lists([translation.ids[:length] for translation, length in zip(best, most, strict=True)])
        unended = np.array([len(translation.ids) for translation in best]) >= limits
        return tgt, np.array([translation.score for translation in best], np.float32), unended


def translation_counts(src: Ragged, tgt: Ragged, unended: NDArray[np.bool_]) -> dict[str, int]:
    """Tokens of both sides, and translations that are empty and that were ended by a limit."""
    return {
        "src_tokens": int(src.lengths.sum()),
        "tgt_tokens": int(tgt.lengths.sum()),
        "empty": int((tgt.lengths == 0).sum()),
        "unended": int(unended.sum()),
    }


def warn_of_many(metrics: Mapping[str, float], stage: str) -> None:
    """Says so where many translations are empty or do not end."""
    for what, share in (("are empty", metrics["empty"]), ("do not end", metrics["unended"])):
        if share > _MANY:
            log(f"warning: {share:.1%} of the teacher's translations {what}; train it longer", stage=stage)


def _compared(tgt: Ragged, references: Ragged) -> dict[str, int]:
    same = (np.array_equal(tgt.row(index), references.row(index)) for index in range(len(tgt)))
    return {"reference_tokens": int(references.lengths.sum()), "as_reference": sum(same)}


def _finished(store: Store, job: DecodeJob, fragment: str) -> DecodedFragment | None:
    """The file of a fragment, or None when it has to be made."""
    stats = finished(store, job.staging, fragment, job.artifact, fragment)
    if stats is None:
        return None
    return DecodedFragment(
        fragment, stats["rows"] + stats["rejects"], stats["rejects"], stats["counts"], stats["precision"]
    )


def _metrics(fragments: list[DecodedFragment]) -> dict[str, float]:
    """The metrics of all files; shares are of the translations."""
    counts: Counter[str] = sum((Counter(fragment.counts) for fragment in fragments), Counter())
    pairs = sum(fragment.pairs - fragment.dead_letters for fragment in fragments)
    return {
        "train/pairs": pairs,
        "train/src_tokens": counts["src_tokens"],
        "train/tgt_tokens": counts["tgt_tokens"],
        "length_ratio": counts["tgt_tokens"] / max(1, counts["reference_tokens"]),
        **{name: counts[name] / max(1, pairs) for name in ("as_reference", "empty", "unended")},
    }
