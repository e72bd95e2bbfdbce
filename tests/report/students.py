"""Students with translations, written by hand into a store: manifests and one table each, no weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact, fingerprint
from bertkd_ray.artifacts.store import Store
from bertkd_ray.evaluation.metrics import score
from bertkd_ray.translation.translate import TRANSLATIONS

SOURCES = ["Der Hund schläft heute im Garten.", "Eine Katze sieht das alte Haus.", "Wir lesen.", "Ja."]
REFERENCES = ["The dog sleeps in the garden today.", "A cat sees the old house.", "We are reading.", "Yes."]


def _made(store: Store, stage: str, config: dict[str, Any], inputs: dict[str, str], **of: Any) -> Artifact:
    work = PendingArtifact(store, stage, fingerprint(stage, config, inputs), config, inputs)
    return work.commit(made=[], metrics=of.get("metrics", {}), info=of.get("info", {}))


def write_corpus(storage: Path, **config: Any) -> Artifact:
    """A corpus without text."""
    settings = {"lowercase": False, "clean": {"max_words": None}, **config}
    return _made(Store(str(storage)), "corpus", settings, {"text": "7" * 64})


def write_student(corpus: Artifact, *, alpha: float = 0.0, teacher_steps: int = 100, **student: Any) -> Artifact:
    """A student, with a teacher and its soft labels where alpha is above 0."""
    store, inputs = corpus.store, {"corpus": corpus.fingerprint}
    kd: dict[str, Any] = {"alpha": alpha}
    if alpha > 0:
        kd["topk"] = 8
        config = {"teacher": {"steps": teacher_steps}, "seed": 1}
        metrics = {"valid/accuracy": 0.5, "parameters": 9}
        info = {"bert": "some/bert"}
        teacher = _made(store, "teacher", config, {**inputs, "bert": "8" * 64}, metrics=metrics, info=info)
        labels_of = {**inputs, "teacher": teacher.fingerprint}
        metrics = {"fidelity/topk_mass": 0.9, "pairs": 4}
        inputs["softlabels"] = _made(store, "softlabels", {"topk": 8}, labels_of, metrics=metrics).fingerprint
    config = {"student": {"width": 32, **student}, "kd": kd, "seed": 1}
    return _made(store, "student", config, inputs, metrics={"valid/bleu": 30.5, "parameters": 1234})


def write_translation(
    student: Artifact,
    hypotheses: Sequence[str],
    *,
    references: Sequence[str] = REFERENCES,
    sources: Sequence[str] = SOURCES,
    beam: int = 5,
    tokenize: str = "13a",
) -> Artifact:
    """Translations of the test text, scored."""
    store, config = student.store, {"translate": {"beam": beam}, "precision": "auto"}
    inputs = {"corpus": student.inputs["corpus"], "student": student.fingerprint}
    work = PendingArtifact(store, "translation", fingerprint("translation", config, inputs), config, inputs)
    columns = {
        "id": pa.array(range(10, 10 * len(sources) + 10, 10), pa.int64()),
        "source": pa.array(sources),
        "reference": pa.array(references),
        "hypotheses": pa.array([[one, "a worse one"] for one in hypotheses]),
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    store.write(bytes(sink.getvalue()), work.directory, TRANSLATIONS)
    scores = score(hypotheses, references)
    metrics = {"test/bleu": scores.bleu, "test/chrf": scores.chrf}
    return work.commit(
        made=[TRANSLATIONS], metrics=metrics, info={"signatures": {"bleu": scores.bleu_signature}, "tokenize": tokenize}
    )
