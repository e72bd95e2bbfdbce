"""The whole pipeline through the command line, on a small corpus and a small BERT."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from bertkd_ray.cli import main
from tests.helpers.small_config import ODD_PAIRS, write_config

pytestmark = [pytest.mark.slow, pytest.mark.ray]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("project")
    write_config(directory)
    return directory


Bertkd = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def bertkd(capsys) -> Bertkd:
    def call(*arguments: str) -> tuple[int, dict[str, Any]]:
        code = main([*arguments, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return call


@pytest.fixture(scope="module")
def finished(project, ray_session) -> dict[str, Any]:
    """The `--json` of one run from nothing to the scores."""
    import contextlib
    import io

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(["run", str(project / "small.yaml"), "--json"]) == 0
    return json.loads(out.getvalue())


def test_json_has_the_contract_of_the_design(finished):
    stages = {"prepare", "finetune", "extract", "distill/distilled", "distill/control"}
    assert set(finished["stages"]) == stages | {"translate/distilled", "translate/control"}
    for entry in finished["stages"].values():
        assert set(entry) == {"path", "fingerprint", "seconds", "status", "metrics"}
        assert entry["status"] == "done"
        # A manifest's seconds are those of its stage, not of what was made before it.
        assert json.loads(Path(entry["path"], "manifest.json").read_text())["seconds"] <= entry["seconds"] + 0.01
        assert entry["path"].endswith(entry["fingerprint"])
    assert [score["arm"] for score in finished["scores"]] == ["distilled", "control"]
    assert finished["scores"][1]["delta"] is None
    assert finished["scores"][0]["delta"] == pytest.approx(
        finished["scores"][0]["test_bleu"] - finished["scores"][1]["test_bleu"], abs=0.01
    )


def test_a_second_run_is_cached_and_needs_no_ray(project, finished, bertkd, monkeypatch):
    from bertkd_ray.execution.ray.session import RayRuntime

    monkeypatch.setattr(RayRuntime, "start", lambda self: pytest.fail("a cached run started Ray"))
    code, again = bertkd("run", str(project / "small.yaml"))
    assert code == 0
    assert {entry["status"] for entry in again["stages"].values()} == {"cached"}
    assert again["scores"] == finished["scores"]


def test_odd_lines_are_pairs_like_any_other(finished):
    corpus = Path(finished["stages"]["prepare"]["path"])
    manifest = json.loads((corpus / "manifest.json").read_text())
    counts = manifest["info"]["splits"]["train"]
    assert (counts["read"], counts["pairs"]) == (244, 242)
    assert (counts["empty"], counts["side_too_long"]) == (1, 1)
    kept = pq.read_table(corpus / "train").to_pylist()
    assert [(row["id"], row["src"], row["tgt"]) for row in kept[-2:]] == [(240, *ODD_PAIRS[0]), (241, *ODD_PAIRS[1])]
    assert counts["src_unknown"] == counts["tgt_unknown"] == 0


def test_shards_mirror_the_fragments(finished):
    corpus, labels = (Path(finished["stages"][stage]["path"]) for stage in ("prepare", "extract"))
    fragments = sorted((corpus / "train").glob("*.parquet"))
    shards = sorted(labels.glob("shard-*.parquet"))
    assert [path.name.removeprefix("shard-") for path in shards] == [
        path.name.removeprefix("fragment-") for path in fragments
    ]
    for shard, fragment in zip(shards, fragments, strict=True):
        ours, theirs = pq.ParquetFile(shard), pq.ParquetFile(fragment)
        columns = ["id", "src_ids", "tgt_ids"]
        assert ours.read(columns).equals(theirs.read(columns))
        groups = [file.metadata.num_row_groups for file in (ours, theirs)]
        assert groups[0] == groups[1]
        for row in ours.read().to_pylist():
            positions = len(row["tgt_ids"]) + 1
            assert (len(row["topk_ids"]), len(row["topk_logits"])) == (4 * positions, 4 * positions)
            assert len(row["logsumexp"]) == positions
    metrics = finished["stages"]["extract"]["metrics"]
    assert 0 < metrics["fidelity/topk_mass"] <= 1
    assert metrics["fidelity/gold_first"] <= metrics["fidelity/gold_in_topk"] <= 1


def test_translations_stand_beside_source_and_reference(project, finished):
    table = pq.read_table(Path(finished["stages"]["translate/control"]["path"]) / "translations.parquet")
    assert table.column_names == ["id", "source", "reference", "hypotheses", "scores"]
    rows = table.to_pylist()
    assert [row["id"] for row in rows] == list(range(20))
    assert all(len(row["hypotheses"]) == 2 and row["scores"][0] >= row["scores"][1] for row in rows)


def test_the_student_translates_without_this_package(finished, tmp_path):
    student = Path(finished["stages"]["distill/distilled"]["path"]) / "model"
    script = tmp_path / "translate.py"
    script.write_text(
        "import sys\n"
        "from transformers import AutoModelForSeq2SeqLM, AutoTokenizer\n"
        f"model = AutoModelForSeq2SeqLM.from_pretrained({str(student)!r})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(student)!r})\n"
        "inputs = tokenizer('Der Mann sieht das Haus.', return_tensors='pt')\n"
        "found = model.generate(**inputs, max_new_tokens=8)\n"
        "print(tokenizer.decode(found[0], skip_special_tokens=True))\n"
        "assert not any(name.startswith('bertkd_ray') for name in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_runs_are_in_mlflow(project, finished):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project / 'artifacts' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("small")
    runs = client.search_runs([experiment.experiment_id])
    by_name = {run.info.run_name: run for run in runs}
    arms = {"small/distilled", "small/control"}
    assert set(by_name) == {"small", *arms, *finished["stages"]}
    assert {run.info.status for run in runs} == {"FINISHED"}
    parent = by_name["small"]
    for name, run in by_name.items():
        if name != "small":
            assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        if name in finished["stages"]:
            assert run.data.tags["bertkd.fingerprint"] == finished["stages"][name]["fingerprint"]
            assert run.data.tags["bertkd.artifact"] == finished["stages"][name]["path"]
        if name not in ("small", "prepare"):
            assert run.data.tags["bertkd.precision"] in ("bf16", "float32")
    losses = client.get_metric_history(by_name["distill/distilled"].info.run_id, "train/loss")
    assert [metric.step for metric in losses] == list(range(1, 21))
    inputs = by_name["distill/distilled"].inputs.dataset_inputs
    assert {item.dataset.name for item in inputs} == {"corpus", "softlabels"}
    figures = {item.path for item in client.list_artifacts(parent.info.run_id, "figures")}
    assert {"figures/finetuning.png", "figures/translation-losses.png"} <= figures
    assert "distilled/test_bleu" in parent.data.metrics


def test_changing_the_temperature_keeps_the_teacher_and_the_control(project, finished, bertkd):
    code, changed = bertkd("distill", str(project / "small.yaml"), "kd.temperature=5", "student.steps=20")
    assert code == 0
    status = {name: entry["status"] for name, entry in changed["stages"].items()}
    assert status.pop("distill/distilled") == "done"
    assert set(status.values()) == {"cached"}


def test_the_control_needs_no_teacher(project, finished, bertkd):
    code, changed = bertkd("distill", str(project / "small.yaml"), "teacher.steps=99999", "--arm", "control")
    assert code == 0
    assert set(changed["stages"]) == {"prepare", "distill/control"}
    assert changed["stages"]["distill/control"]["status"] == "cached"


def test_a_lost_shard_alone_is_computed_again(project, finished, bertkd):
    labels = Path(finished["stages"]["extract"]["path"])
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in labels.glob("*.parquet")}
    (labels / "manifest.json").unlink()
    lost = labels / "shard-000001.parquet"
    rows = pq.read_table(lost)
    lost.unlink()
    code, again = bertkd("extract", str(project / "small.yaml"))
    assert code == 0
    assert again["stages"]["extract"]["status"] == "resumed"
    after = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in labels.glob("*.parquet")}
    assert {name for name in before if before[name][0] != after[name][0]} == {lost.name}
    # The same rows bit for bit; the measured seconds beside them differ.
    assert pq.read_table(lost).equals(rows)
    ours = {key: value for key, value in again["stages"]["extract"]["metrics"].items() if key.startswith("fidelity/")}
    assert ours == {
        key: value for key, value in finished["stages"]["extract"]["metrics"].items() if key.startswith("fidelity/")
    }


def test_two_workers_have_the_curves_of_one(project, finished, bertkd, tmp_path):
    # What maps have made, which know no workers.
    for stage in ("prepare", "extract"):
        made = Path(finished["stages"][stage]["path"])
        shutil.copytree(made, tmp_path / "two" / made.name)
    code, two = bertkd(
        "distill", str(project / "small.yaml"), "workers=2", f"storage={tmp_path / 'two'}", "tracking=none"
    )
    assert code == 0
    made = {stage for stage, entry in two["stages"].items() if entry["status"] == "done"}
    assert made == {"finetune", "distill/distilled", "distill/control"}
    for stage in ("finetune", "distill/distilled", "distill/control"):
        curves = []
        for run in (finished, two):
            history = json.loads(Path(run["stages"][stage]["path"], "history.json").read_text())
            curves.append([row["train/loss"] for row in history["rows"] if "train/loss" in row])
        assert len(curves[0]) == 20
        assert curves[1] == pytest.approx(curves[0], rel=1e-5), stage
    # Workers are no part of a result.
    for stage in ("prepare", "finetune", "extract", "distill/distilled", "distill/control"):
        assert two["stages"][stage]["fingerprint"] == finished["stages"][stage]["fingerprint"]


def test_the_store_validates_until_a_byte_is_flipped(project, finished, capsys):
    store = str(project / "artifacts")
    assert main(["validate", "--artifacts", store]) == 0
    assert "every file as its manifest says" in capsys.readouterr().out
    victim = Path(finished["stages"]["distill/control"]["path"]) / "model" / "model.safetensors"
    data = victim.read_bytes()
    victim.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    try:
        assert main(["validate", "--artifacts", store]) == 2
        out = capsys.readouterr().out
        assert out.strip().endswith("model/model.safetensors: its content differs from the manifest's checksum")
    finally:
        victim.write_bytes(data)
