"""Monolingual text: what is dropped of it, what the teacher makes of the rest, and the students that train on that."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertkd_ray.artifacts.artifact import Artifact, load
from bertkd_ray.artifacts.store import Store
from bertkd_ray.cli import main
from bertkd_ray.config import load_config
from bertkd_ray.core.errors import UserError
from bertkd_ray.corpus.cleaning import ID_MONOLINGUAL_BIT
from bertkd_ray.execution.local import LocalRuntime
from bertkd_ray.execution.stage import StageContext
from bertkd_ray.pipeline.session import Session
from bertkd_ray.softlabels import augment
from bertkd_ray.softlabels.shards import decode_labels
from bertkd_ray.student.lineage import lineage_of
from bertkd_ray.translation.model_card import model_card
from bertkd_ray.translation.models import settings_of
from tests.helpers.local_project import QUICK, InProcessRuntime, Project
from tests.helpers.plain_teacher import PlainTeacher
from tests.helpers.translation_files import write_tmx
from tools.demo_corpus import demo_corpus

pytestmark = pytest.mark.slow

LONG = "Wort " * 120
FIRST = 1 << ID_MONOLINGUAL_BIT
SPEAKS = (
    "teacher.direction=left_to_right",
    "decode.beam=1",
    "corpus.clean.min_words=2",
    "corpus.clean.duplicates=true",
)


def write_text(directory: Path) -> tuple[list[str], list[str]]:
    """Two files, more.de.gz and other.de, with something for every rule; their lines."""
    text = directory / "text"
    test = gzip.decompress((text / "test.de.gz").read_bytes()).decode().splitlines()
    fresh = [src for src, _ in demo_corpus(seed=99, train=150, valid=1, test=1)["train"]]
    first = [*fresh[:100], "", test[0], test[1].upper(), "allein", LONG, fresh[3]]
    second = [fresh[5], *fresh[100:150], test[2]]
    (text / "more.de.gz").write_bytes(gzip.compress("".join(f"{line}\n" for line in first).encode()))
    (text / "other.de").write_text("".join(f"{line}\n" for line in second), encoding="utf-8")
    return first, second


@dataclass
class Augmented:
    project: Project
    made: Artifact
    lines: tuple[list[str], list[str]]
    runtime: InProcessRuntime


@pytest.fixture(scope="module")
def augmented(tmp_path_factory) -> Augmented:
    directory = tmp_path_factory.mktemp("project")
    Project(directory)
    lines = write_text(directory)
    project = Project(directory, *SPEAKS, "corpus.monolingual=[{src: more.de.gz}, {src: other.de}]")
    runtime = InProcessRuntime()
    return Augmented(project, made(project, runtime), lines, runtime)


def made(project: Project, runtime: Any, storage: str = "") -> Artifact:
    inputs = {"corpus": project.corpus(), "teacher": project.teacher()}
    fingerprints = {kind: artifact.fingerprint for kind, artifact in inputs.items()}
    pending = augment.pending_artifact(project.config, project.store, fingerprints)
    if storage:
        pending.fingerprint = storage
    return augment.make(pending, StageContext(project.config, runtime, inputs))


def expected_rows(lines: tuple[list[str], list[str]], test: list[str]) -> dict[int, str]:
    """The sentences that no rule drops, by id."""
    seen, kept = set(), {}
    known = {line.casefold() for line in test}
    for source, of_source in enumerate(lines):
        for number, line in enumerate(of_source):
            line = " ".join(line.split())
            overlaps, repeated = line.casefold() in known, line in seen
            if len(line.split()) < 2:
                continue
            seen.add(line)
            if not overlaps and not repeated and line != LONG.strip():
                kept[FIRST + (source << 40) + number] = line
    return kept


def test_every_rule_is_applied_and_counted(augmented):
    test = augmented.project.corpus().read_table("test/")["src"].to_pylist()
    kept = expected_rows(augmented.lines, test)
    table = augmented.made.read_table("shard-", ["id", "src_ids"])
    assert table["id"].to_pylist() == list(kept)
    counts = augmented.made.info["sentences"]
    read = sum(map(len, augmented.lines))
    dropped = {name: count for name, count in counts.items() if name not in ("read", "sentences", "src_tokens")}
    assert counts["read"] == read
    assert counts["sentences"] == len(kept) == augmented.made.metrics["pairs"]
    assert sum(dropped.values()) == read - len(kept)
    known = {line.casefold() for line in test}
    assert dropped["empty"] == 1
    assert dropped["too_few_words"] == 1
    assert dropped["too_many_words"] == 0
    assert dropped["side_too_long"] == 1
    assert dropped["test_overlap"] == sum(line.casefold() in known for of in augmented.lines for line in of)
    assert dropped["test_overlap"] >= 3
    assert counts["src_tokens"] == sum(map(len, table["src_ids"].to_pylist()))


def test_the_teacher_translates_it_and_labels_its_own_translation(augmented):
    plain = PlainTeacher(augmented.project)
    table = pq.read_table(augmented.made.path("shard-000001.parquet"))
    labels = decode_labels(table)
    for row in (0, 11):
        src, tgt = table["src_ids"][row].as_py(), table["tgt_ids"][row].as_py()
        assert tgt == plain.greedy(src, 2 * len(src) + 10)[0][:100]
        logits = plain.logits(src, tgt)
        start, end = labels.offsets[row : row + 2]
        assert np.allclose(labels.topk_logits[start:end], logits.topk(4, dim=1).values.numpy(), rtol=2e-3, atol=2e-3)
        assert np.allclose(labels.logsumexp[start:end], logits.logsumexp(1).numpy(), rtol=1e-4)


def test_a_run_that_was_cut_off_goes_on(augmented, monkeypatch):
    project, runtime = augmented.project, InProcessRuntime()

    class StoppedError(Exception):
        pass

    def stopped(self: Any, items: Any, worker: Any, job: Any) -> Any:
        for number, result in enumerate(LocalRuntime.map(self, items, worker, job)):
            if number == 1 and isinstance(worker, type):
                raise StoppedError
            yield result

    with monkeypatch.context() as patch:
        patch.setattr(InProcessRuntime, "map", stopped)
        with pytest.raises(StoppedError):
            made(project, runtime, "1" * 16)
    again = InProcessRuntime()
    finished = made(project, again, "1" * 16)
    assert again.mapped == ["fragment-000002.parquet"], "neither is text cleaned again, nor a shard made twice"
    for entry in augmented.made.files:
        assert project.store.read(finished.directory, entry.path) == project.store.read(
            augmented.made.directory, entry.path
        )
    assert finished.info == augmented.made.info
    assert finished.metrics == augmented.made.metrics


def test_what_cannot_be_translated_is_a_dead_letter(augmented, monkeypatch):
    from bertkd_ray.teacher import decoding

    plain, poison = decoding.translate_ids, augmented.made.read_table("shard-", ["id", "src_ids"]).slice(70, 1)
    tokens = poison["src_ids"][0].as_py()

    def translate_ids(model: Any, bert_ids: Any, specials: Any, src: Any, **options: Any) -> Any:
        if any(src.row(row).tolist() == tokens for row in range(len(src))):
            raise RuntimeError("no")
        return plain(model, bert_ids, specials, src, **options)

    monkeypatch.setattr(decoding, "translate_ids", translate_ids)
    with pytest.raises(UserError, match=r"^augment: 1 of \d+ pairs rejected .* RuntimeError: no"):
        made(augmented.project, InProcessRuntime(), "2" * 16)
    config = augmented.project.config
    augmented.project.config = augmented.project.with_max_rejects(0.05)
    try:
        finished = made(augmented.project, InProcessRuntime(), "2" * 16)
    finally:
        augmented.project.config = config
    assert pq.read_table(finished.path("rejects.parquet"))["id"].to_pylist() == poison["id"].to_pylist()
    assert finished.metrics["pairs"] == augmented.made.metrics["pairs"] - 1


@pytest.mark.parametrize("form", ["tsv", "jsonl", "parquet", "tmx"])
def test_every_form_gives_the_same_sentences(augmented, form, tmp_path):
    lines = [line for line in augmented.lines[0] if line]
    path = tmp_path / f"more.{form}"
    if form == "tsv":
        path.write_text("".join(f"x\t{line}\n" for line in lines), encoding="utf-8")
    elif form == "jsonl":
        path.write_text("".join(json.dumps({"de": line}) + "\n" for line in lines), encoding="utf-8")
    elif form == "tmx":
        write_tmx(path, [(line, "x") for line in lines])
    else:
        pq.write_table(pa.table({"en": ["x"] * len(lines), "de": lines}), path)
    column = "1" if form == "tsv" else "de"
    key = f"corpus.monolingual={{{form}: {path}, src_column: {column}}}"
    project = Project(augmented.project.directory, *SPEAKS, key)
    project._made = {"corpus": augmented.project.corpus(), "teacher": augmented.project.teacher()}
    ours = made(project, InProcessRuntime()).read_table("shard-", ["src_ids", "tgt_ids"])
    theirs = augmented.made.read_table("shard-", ["id", "src_ids", "tgt_ids"])
    first = theirs.filter(pa.array(theirs["id"].to_numpy() < FIRST + (1 << 40))).select(["src_ids", "tgt_ids"])
    assert ours.to_pylist() == first.to_pylist()


def test_without_monolingual_text_everything_keeps_its_name(augmented):
    directory, arms = (
        augmented.project.directory,
        "arms={distilled: {}, aside: {kd.monolingual_weight: 0}, control: {kd.alpha: 0}}",
    )
    without = load_config(directory / "small.yaml", [*QUICK, *SPEAKS, arms])
    having = load_config(directory / "small.yaml", [*QUICK, *SPEAKS, arms, "corpus.monolingual={src: other.de}"])
    weighed = load_config(
        directory / "small.yaml",
        [*QUICK, *SPEAKS, arms, "corpus.monolingual={src: other.de}", "kd.monolingual_weight=0.5"],
    )

    def names(config: Any, arm: str) -> dict[str, str]:
        return {stage: pending.directory for stage, pending in Session(config).pending_of_arm(config, arm).items()}

    for arm in ("control", "aside"):
        assert names(having, arm) == names(without, arm)
    before, after, other = (names(config, "distilled") for config in (without, having, weighed))
    assert set(after) == {*before, "augment"}
    assert {stage for stage in before if before[stage] != after[stage]} == {"distill", "translate"}
    assert {stage for stage in after if after[stage] != other[stage]} == {"distill", "translate"}


def test_a_pipeline_trains_on_it(augmented, capsys):
    path = str(augmented.project.directory / "small.yaml")
    arms = "arms={distilled: {}, hard: {kd.alpha: 0, kd.sequence: beside}, control: {kd.alpha: 0}}"
    changes = ["corpus.monolingual=[{src: more.de.gz}, {src: other.de}]", "kd.monolingual_weight=0.5", "runtime=local"]
    assert main(["validate", path, *QUICK, *SPEAKS, arms, *changes, "tracking=none"]) == 0
    read = sum(map(len, augmented.lines))
    assert f"text       {read} monolingual sentences" in capsys.readouterr().out
    assert main(["plan", path, *QUICK, *SPEAKS, arms, *changes, "--rate", "1"]) == 0
    assert "augment is not estimated" in capsys.readouterr().out
    assert main(["run", path, *QUICK, *SPEAKS, arms, *changes, "tracking=none", "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    stages = out["stages"]
    assert stages["augment"]["status"] == "cached"
    assert stages["augment"]["fingerprint"] == augmented.made.fingerprint
    inputs = {
        arm: set(json.loads(Path(stages[f"distill/{arm}"]["path"], "manifest.json").read_text())["inputs"])
        for arm in ("distilled", "hard", "control")
    }
    assert inputs == {
        "distilled": {"corpus", "softlabels", "monolingual"},
        "hard": {"corpus", "decoded", "monolingual"},
        "control": {"corpus"},
    }
    assert {stages[f"distill/{arm}"]["metrics"]["steps"] for arm in inputs} == {2}
    store, _, hard = stages["distill/hard"]["path"].rpartition("/")
    lineage = lineage_of(load(Store(store), hard))
    card = model_card(lineage, settings_of(lineage), "huggingface")
    assert f"trained on {augmented.made.metrics['pairs']} sentences of monolingual text" in card
    assert "their loss had weight 0.5." in card
    assert f"- `{augmented.made.directory}`, " in card
    page = Path(out["page"]).read_text(encoding="utf-8")
    assert f"{augmented.made.info['sentences']['sentences']} of {read} sentences of monolingual text" in page


def test_text_of_which_nothing_is_left_is_refused(augmented, tmp_path):
    (tmp_path / "short.de").write_text("eins\nzwei\n\n", encoding="utf-8")
    project = Project(augmented.project.directory, *SPEAKS, f"corpus.monolingual={{src: {tmp_path}/short.de}}")
    project._made = {"corpus": augmented.project.corpus(), "teacher": augmented.project.teacher()}
    with pytest.raises(UserError, match=r"^corpus\.monolingual: no sentence is left \(1 empty, 2 too_few_words\)$"):
        made(project, InProcessRuntime())
