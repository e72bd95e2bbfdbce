"""The finished stages of a pipeline, written by hand: no model, but every number that a page shows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact, fingerprint
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config, config_of
from bertkd_ray.report.results import Results
from tests.helpers.hand_made_corpus import write_corpus_artifact

HOSTILE = '</td><script>alert(1)</script><img src=x onerror=alert(2)> & "du" \'<'
SOURCES = [f"Satz {number} mit <b>{HOSTILE}</b>" for number in range(12)]
REFERENCES = [f"sentence {number} stands here, as {HOSTILE} does" for number in range(12)]
SAID = {
    # Right but for two sentences; right in every other one.
    "distilled": [f"{line} not" if row in (3, 5) else line for row, line in enumerate(REFERENCES)],
    "control": [line if row % 2 else f"sentence {row} is lost" for row, line in enumerate(REFERENCES)],
}
FIDELITY = {"topk_mass": 0.875, "gold_in_topk": 0.9375, "gold_first": 0.75, "entropy_t1": 0.5, "entropy_t10": 1.25}
FIDELITY_BY_PART = {
    "end": {"positions": 12, "gold_first": 1.0, "gold_perplexity": 1.25},
    "not_end": {"positions": 44, "gold_first": 0.25, "gold_perplexity": 4.5},
    "gold_first": {"positions": 23, "gold_first": 1.0, "gold_perplexity": 1.5},
    "gold_not_first": {"positions": 33, "gold_first": 0.0},  # none of the references is among the k
}
SIGNATURES = {"bleu_signature": "nrefs:1|tok:13a", "chrf_signature": "nc:6|nw:0"}


def small_config(storage: Path | str, *overrides: str) -> Config:
    """Two arms, with a teacher and without."""
    tree: dict[str, Any] = {"name": "small", "storage": str(storage), "corpus": {"source": "demo"}}
    tree["translate"] = {"bootstrap_samples": 20}
    return config_of(tree, "small.yaml", list(overrides))


def finished_stages(storage: Path) -> dict[str, Artifact]:
    """All seven artifacts of `small_config`."""
    counts = {"train": {"read": 9, "empty": 4, "length_ratio": 2, "not_nfc": 5}}
    # Longer sources towards the end; every third reference is of a token that the training text has often.
    test = [("a", ["▁a"] * (1 + row), "b", ["▁b" if row % 3 == 0 else "<unk>"]) for row in range(len(SOURCES))]
    corpus = write_corpus_artifact(storage, test=test, counts=counts, first_test_id=100, id_step=1)
    info = {**corpus.info, "vocabulary": 1234, "src_lang": "de", "tgt_lang": "en", "text": "raw"}
    corpus = replace(corpus, info=info)
    stages = {"prepare": corpus}
    store = corpus.store
    teacher = _made(
        store,
        "teacher",
        {"corpus": corpus.fingerprint, "bert": "b" * 64},
        {"valid/loss": 0.5, "valid/accuracy": 0.875, "parameters": 23_764_264},
        history=_teacher_history(),
    )
    labels = _made(
        store,
        "softlabels",
        {"corpus": corpus.fingerprint, "teacher": teacher.fingerprint},
        {
            **{f"fidelity/{name}": value for name, value in FIDELITY.items()},
            **{f"fidelity/{part}/{name}": value for part, of in FIDELITY_BY_PART.items() for name, value in of.items()},
            "positions": 56,
            "bytes_per_position": 28.5,
        },
        {"k": 8, "mask_scheme": "strided, 7 passes"},
    )
    stages |= {"finetune": teacher, "extract": labels}
    for number, arm in enumerate(SAID):
        inputs = {"corpus": corpus.fingerprint, **({"softlabels": labels.fingerprint} if arm == "distilled" else {})}
        metrics = {
            "parameters": 1_275_392,
            "valid/bleu": 61.5 + number,
            "valid/accuracy": 0.75,
            "valid/perplexity": 2.5,
        }
        student = _made(store, "student", inputs, metrics, history=_student_history(10.0 * number))
        stages[f"distill/{arm}"] = student
        stages[f"translate/{arm}"] = _translated(store, arm, corpus, student)
    return stages


def results_of(stages: dict[str, Artifact], *overrides: str) -> Results:
    """Of all stages, under `small_config`."""
    config = small_config(stages["prepare"].store.uri, *overrides)
    return Results(config, stages, command="bertkd run small.yaml")


def _translated(store: Store, arm: str, corpus: Artifact, student: Artifact) -> Artifact:
    number = list(SAID).index(arm)
    metrics = {"test/bleu": 60.25 - number, "test/chrf": 70.125 - number, "test/legacy_bleu": 61.75 - number}
    columns = {
        "id": list(range(100, 112)),
        "source": SOURCES,
        "reference": REFERENCES,
        "hypotheses": pa.array([[line] for line in SAID[arm]], pa.list_(pa.string())),
    }
    return _made(
        store,
        "translation",
        {"corpus": corpus.fingerprint, "student": student.fingerprint},
        {**metrics, "test/length_ratio": 0.975, "rejects": 2 * number},
        {"signatures": SIGNATURES, "tokenize": "13a"},
        translations=pa.table(columns),
    )


def _made(
    store: Store,
    stage: str,
    inputs: dict[str, str],
    metrics: dict[str, float],
    info: dict[str, Any] | None = None,
    *,
    history: list[dict[str, float]] | None = None,
    translations: pa.Table | None = None,
) -> Artifact:
    work = PendingArtifact(store, stage, fingerprint(stage, {}, inputs), {}, inputs)
    made = {}
    if history is not None:
        made["history.json"] = json.dumps({"rows": history}).encode()
    if translations is not None:
        sink = pa.BufferOutputStream()
        pq.write_table(translations, sink)
        made["translations.parquet"] = bytes(sink.getvalue())
    for name, data in made.items():
        store.write(data, work.directory, name)
    return work.commit(made=made, metrics=metrics, info=info or {})


def _teacher_history() -> list[dict[str, float]]:
    rows: list[dict[str, float]] = [{"step": step, "time": 0.0, "train/loss": 5 / step} for step in range(1, 41)]
    return rows + [
        {"step": step, "time": 0.0, "valid/loss": 6 / step, "valid/accuracy": step / 50} for step in (20, 40)
    ]


def _student_history(bleu: float) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = [{"step": step, "time": 0.0, "train/nll": 7 / step} for step in range(1, 41)]
    more = {"valid/nll": 1.5, "valid/accuracy": 0.625}
    return rows + [{"step": step, "time": 0.0, "valid/bleu": bleu + step, **more} for step in (20, 40)]
