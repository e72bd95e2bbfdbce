"""What of the configuration enters the fingerprint of each stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bertkd_ray.artifacts.artifact import PendingArtifact
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config
from bertkd_ray.corpus import prepare
from bertkd_ray.softlabels import extract
from bertkd_ray.student import distill
from bertkd_ray.teacher import finetune
from bertkd_ray.translation import evaluate, translate
from tests.config.conftest import DEMO, TEXT


@pytest.fixture
def text_corpus(tmp_path) -> dict[str, Any]:
    for name, text in (("a.de", "Hallo\n"), ("a.en", "hello\n"), ("b.en", "hi\n")):
        (tmp_path / name).write_text(text)
    return {**TEXT, "directory": str(tmp_path)}


def _fingerprints(config: Config, store: Store) -> dict[str, str]:
    """The fingerprint of every stage, with the fingerprints of its inputs made up."""
    pending: dict[str, PendingArtifact] = {
        "prepare": prepare.pending_artifact(config, store, {"bert_tokenizer": "bert-tokenizer"}),
        "finetune": finetune.pending_artifact(config, store, {"corpus": "corpus", "bert": "bert"}),
        "extract": extract.pending_artifact(config, store, {"corpus": "corpus", "teacher": "teacher"}),
        "translate": translate.pending_artifact(config, store, {"corpus": "corpus", "student": "student"}),
        "evaluate": evaluate.pending_artifact(config, store, {"corpus": "corpus", "teacher": "teacher"}),
    }
    for arm, arm_config in config.arm_configs().items():
        inputs = {"corpus": "corpus", **({"softlabels": "softlabels"} if arm_config.kd.has_teacher else {})}
        pending[f"distill/{arm}"] = distill.pending_artifact(arm_config, store, inputs)
    return {name: artifact.fingerprint for name, artifact in pending.items()}


STUDENTS = {"distill/distilled", "distill/control"}
ALL = {"prepare", "finetune", "extract", "translate", "evaluate", *STUDENTS}
EFFECTS: dict[str, set[str]] = {
    # What cannot change a result.
    "name=other": set(),
    "storage=elsewhere": set(),
    "workers=2": set(),
    "device=cpu": set(),
    "runtime=local": set(),
    "cpus_per_worker=1": set(),
    "max_failures=0": set(),
    "preemption_grace=1": set(),
    "resize_every=1": set(),
    "max_rejects=0.5": set(),
    "verify=sizes": set(),
    "log_every=1": set(),
    "checkpoint_every=7": set(),
    "tracking=none": set(),
    "teacher.model=renamed": set(),  # a BERT enters by content
    "translate.bootstrap_samples=10": set(),
    # What can.
    "gradient_compression=bf16": {"finetune", *STUDENTS},
    "gradient_compression=none": set(),  # the default of an option that came later
    "seed=2": {"finetune", *STUDENTS},
    "precision=float32": ALL - {"prepare"},
    "corpus.lowercase=true": {"prepare"},
    "corpus.cache=elsewhere": set(),
    "corpus.src_lang=nl": {"prepare"},
    "corpus.src_lang=deu": set(),  # de
    "corpus.tgt_lang=eng": set(),  # en
    "corpus.text=moses": {"prepare"},
    "corpus.clean.duplicates=true": {"prepare"},
    "corpus.train.weight=2": {"prepare"},
    "corpus.test={held_out: 0.1}": {"prepare"},
    "corpus.max_side_tokens=100": {"prepare"},
    "corpus.group_pairs=7": {"prepare"},
    "corpus.test.tgt=b.en": {"prepare"},
    "teacher.steps=5": {"finetune"},
    "teacher.peak_lr=1e-3": {"finetune"},
    "teacher.warmup_steps=100": {"finetune"},
    "teacher.warmup_steps=5000": set(),  # a twentieth of the steps, the default
    "teacher.pretrained=false": {"finetune"},
    "teacher.micro_batches=4": {"finetune"},
    "teacher.direction=left_to_right": {"finetune", "extract"},  # which sees each pair once then
    "teacher.direction=both": set(),  # the default of an option that came later
    "extract.passes=5": {"extract"},
    "extract.topk=16": {"extract"},
    "kd.topk=4": {"extract", "distill/distilled"},
    "kd.temperature=2": {"distill/distilled"},
    "kd.symmetric=true": {"distill/distilled"},
    "kd.symmetric=false": set(),
    "kd.alpha=0.9": {"distill/distilled"},
    "kd.alpha=[0.9, 0.3]": {"distill/distilled"},
    "kd.alpha=[0.5, 0.5]": set(),  # one weight
    "kd.at_end=false": {"distill/distilled"},
    "kd.at_end=true": set(),  # the default of an option that came later
    "student.steps=5": STUDENTS,
    "student.seed=2": STUDENTS,
    "student.seed=1": set(),  # the top-level seed
    "student.dropout=0.1": STUDENTS,
    "student.peak_lr=1e-3": STUDENTS,
    "student.peak_lr=9.882118e-4": set(),  # the paper's, the default
    "student.warmup_steps=4000": STUDENTS,
    "student.schedule=linear": STUDENTS,
    "student.schedule=inverse-sqrt": set(),  # the default of an option that came later
    "student.micro_batches=4": STUDENTS,
    "extract.forward_tokens=4096": {"extract"},
    "translate.forward_tokens=4096": {"translate", "evaluate"},
    "translate.beam=2": {"translate", "evaluate"},
    "translate.length_penalty=1": {"translate", "evaluate"},
    "translate.teacher=false": set(),
}


@pytest.mark.parametrize(("override", "changed"), EFFECTS.items(), ids=EFFECTS)
def test_what_enters_a_fingerprint(load, tmp_path, text_corpus, override, changed):
    tree = {**DEMO, "corpus": text_corpus, "teacher": {"micro_batches": 2}, "student": {"micro_batches": 2}}
    store = Store(str(tmp_path / "store"))
    before, after = _fingerprints(load(tree), store), _fingerprints(load(tree, override), store)
    assert {name for name in before if before[name] != after[name]} == changed


def test_options_that_came_later_are_in_no_fingerprint_at_their_defaults(load, tmp_path):
    store, inputs = Store(str(tmp_path)), {"corpus": "corpus", "bert": "bert", "softlabels": "labels"}

    def entered(config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
        teacher = finetune.pending_artifact(config, store, inputs).config["teacher"]
        return teacher, distill.pending_artifact(config, store, inputs).config["kd"]

    teacher, kd = entered(load(DEMO))
    assert "direction" not in teacher
    assert not {"symmetric", "at_end"} & set(kd)
    teacher, kd = entered(load(DEMO, "kd.symmetric=true", "teacher.direction=left_to_right"))
    assert teacher["direction"] == "left_to_right"
    assert kd["symmetric"] is True


def test_left_to_right_teachers_are_not_those_of_the_earlier_layout_and_bidirectional_ones_as_ever(load, tmp_path):
    """Fingerprints of version 080294b, whose left-to-right teachers read another input."""
    store, inputs = Store(str(tmp_path)), {"corpus": "corpus", "bert": "bert"}
    both, forward = load(DEMO), load(DEMO, "teacher.direction=left_to_right")
    assert finetune.pending_artifact(both, store, inputs).fingerprint == "7976c0162643237b"
    pending = finetune.pending_artifact(forward, store, inputs)
    teacher = {key: value for key, value in pending.config["teacher"].items() if key != "layout"}
    assert "mask_probability" not in teacher
    teacher["mask_probability"] = forward.teacher.mask_probability
    earlier = PendingArtifact.of(store, "teacher", {**pending.config, "teacher": teacher}, inputs)
    assert earlier.fingerprint == "3418861c7ccd24e6" != pending.fingerprint
    assert forward.run_settings()["teacher"]["layout"] == "prefix_lm"
    assert "layout" not in both.run_settings()["teacher"]


def test_mask_probability_counts_where_something_is_masked(load, tmp_path):
    store, inputs = Store(str(tmp_path)), {"corpus": "corpus", "bert": "bert"}
    for direction, different in (("both", 2), ("left_to_right", 1)):
        configs = [load(DEMO, f"teacher.direction={direction}", f"teacher.mask_probability={p}") for p in (0.15, 0.5)]
        fingerprints = {finetune.pending_artifact(config, store, inputs).fingerprint for config in configs}
        runs = {json.dumps(config.run_settings(), default=str) for config in configs}
        assert (len(fingerprints), len(runs)) == (different, different)


def test_text_enters_by_content_not_by_path(load, tmp_path, text_corpus):
    store = Store(str(tmp_path / "store"))
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("a.de", "a.en"):
        (moved / name).write_bytes((tmp_path / name).read_bytes())

    def fingerprint_of(directory: Path) -> str:
        config = load({**DEMO, "corpus": {**text_corpus, "directory": str(directory)}})
        return prepare.pending_artifact(config, store, {"bert_tokenizer": "bert-tokenizer"}).fingerprint

    here = fingerprint_of(tmp_path)
    assert fingerprint_of(moved) == here
    (moved / "a.en").write_text("hello!\n")
    assert fingerprint_of(moved) != here


def test_inputs_enter_the_fingerprint(load, tmp_path):
    config, store = load(DEMO), Store(str(tmp_path))
    for make_pending, other in (
        (finetune.pending_artifact, "bert"),
        (extract.pending_artifact, "teacher"),
        (translate.pending_artifact, "student"),
        (distill.pending_artifact, "softlabels"),
    ):
        fingerprints = {
            make_pending(config, store, {"corpus": first, other: second}).fingerprint
            for first, second in (("a", "b"), ("x", "b"), ("a", "x"))
        }
        assert len(fingerprints) == 3
    control = config.arm_configs()["control"]
    assert (
        distill.pending_artifact(control, store, {"corpus": "a", "softlabels": "b"}).fingerprint
        == distill.pending_artifact(control, store, {"corpus": "a"}).fingerprint
    )
    with pytest.raises(KeyError, match="softlabels"):
        distill.pending_artifact(config, store, {"corpus": "a"})
