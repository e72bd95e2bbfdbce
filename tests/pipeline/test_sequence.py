"""A whole pipeline whose arms train on the teacher's translations, under Ray and in this process."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from bertkd_ray.artifacts.artifact import Artifact, load
from bertkd_ray.artifacts.store import Store
from bertkd_ray.cli import main
from bertkd_ray.config import load_config
from bertkd_ray.plan.costs import plan_pipeline
from bertkd_ray.student.lineage import lineage_of
from bertkd_ray.translation.model_card import model_card
from bertkd_ray.translation.models import settings_of
from tests.helpers.local_project import QUICK
from tests.helpers.poison_records import artifact_bytes
from tests.helpers.small_config import write_config
from tools.demo_corpus import demo_corpus

pytestmark = [pytest.mark.slow, pytest.mark.ray]

ARMS = {
    "beside": {"kd.sequence": "beside"},
    "control": {"kd.alpha": 0},
    "hard": {"kd.sequence": "instead", "kd.alpha": 0},
}
CHANGES = [*QUICK, "teacher.direction=left_to_right", "decode.beam=2"]


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("project")
    lines = [src for src, _ in demo_corpus(seed=99, train=70, valid=1, test=1)["train"]]
    (directory / "more.de").write_text("".join(f"{line}\n" for line in [*lines, lines[0]]), encoding="utf-8")
    path = write_config(directory, tracking="none", arms=ARMS)
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    tree["corpus"]["monolingual"] = {"src": str(directory / "more.de")}
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def finished(path, ray_session) -> dict[str, Any]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(["run", str(path), *CHANGES, "--json"]) == 0
    return json.loads(out.getvalue())


def artifact_of(finished: dict[str, Any], stage: str) -> Artifact:
    store, _, name = finished["stages"][stage]["path"].rpartition("/")
    return load(Store(store), name)


def test_what_arms_share_is_made_once(finished):
    shared = [name for name in finished["stages"] if "/" not in name]
    assert sorted(shared) == sorted(["prepare", "finetune", "extract", "decode", "label", "augment", "evaluate"])
    assert [score["arm"] for score in finished["scores"]] == list(ARMS)
    deltas = {score["arm"]: score["delta"] for score in finished["scores"]}
    assert [arm for arm, delta in deltas.items() if delta is None] == ["control"], "hard labels have a teacher, too"
    steps = {finished["stages"][f"distill/{arm}"]["metrics"]["steps"] for arm in ARMS}
    assert steps == {2}


def test_it_is_found_again_and_an_arm_more_makes_a_student_alone(path, finished, capsys):
    more = json.dumps({**ARMS, "more": {"kd.sequence": "beside", "kd.alpha": 0}})
    assert main(["distill", str(path), *CHANGES, f"arms={more}", "--json"]) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert {name for name, made in stages.items() if made["status"] != "cached"} == {"distill/more"}


def test_the_translations_are_the_same_without_ray(path, finished, tmp_path, capsys):
    again = ["decode", str(path), *CHANGES, "runtime=local", f"storage={tmp_path}", "--json"]
    assert main(again) == 0
    local = json.loads(capsys.readouterr().out)["stages"]["decode"]
    assert local["fingerprint"] == finished["stages"]["decode"]["fingerprint"]
    assert local["metrics"] == finished["stages"]["decode"]["metrics"]
    assert artifact_bytes(f"{local['path']}/train") == artifact_bytes(f"{finished['stages']['decode']['path']}/train")


def test_monolingual_text_is_translated_the_same_without_ray(path, finished, tmp_path, capsys):
    assert main(["augment", str(path), *CHANGES, "runtime=local", f"storage={tmp_path}", "--json"]) == 0
    local = json.loads(capsys.readouterr().out)["stages"]["augment"]
    under_ray = finished["stages"]["augment"]
    assert local["fingerprint"] == under_ray["fingerprint"]
    assert local["metrics"] == under_ray["metrics"]
    assert artifact_bytes(local["path"]) == artifact_bytes(under_ray["path"])
    assert artifact_of(finished, "augment").info["sentences"]["read"] == 71


def test_the_page_says_what_the_targets_were(finished):
    page = Path(finished["page"]).read_text(encoding="utf-8")
    assert "It translated the sources of the training text itself, with beam 2: 242 sentences" in page
    assert '<th scope="row">Targets' in page
    assert page.count("teacher’s translations") + page.count("teacher&#39;s translations") >= 2


def test_the_card_of_a_student_says_what_it_learned_from(finished):
    cards = {}
    for arm in ("hard", "beside"):
        lineage = lineage_of(artifact_of(finished, f"distill/{arm}"))
        decoded, teacher = (artifact_of(finished, stage).fingerprint for stage in ("decode", "finetune"))
        assert (lineage.decoded.fingerprint, lineage.teacher.fingerprint) == (decoded, teacher)
        cards[arm] = model_card(lineage, settings_of(replace(lineage)), "huggingface")
    assert "instead of the\nreferences" in cards["hard"]
    assert "soft label" not in cards["hard"]
    assert "beside the\nreferences" in cards["beside"]
    assert "is the soft label" in cards["beside"]


def test_a_plan_has_the_stages(path):
    stages = plan_pipeline(load_config(path, CHANGES), tflops=1.0).as_json()["stages"]
    assert set(stages) == {
        *("prepare", "finetune", "extract", "decode", "label", "evaluate"),
        *(f"{stage}/{arm}" for stage in ("distill", "translate") for arm in ARMS),
    }
    assert stages["decode"]["flops"] > stages["label"]["flops"] > 0
    assert stages["distill/beside"]["epochs"] == pytest.approx(stages["distill/hard"]["epochs"] / 2, rel=0.1)
