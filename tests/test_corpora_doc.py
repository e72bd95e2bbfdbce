"""Every configuration in docs/corpora.md loads, and the page names every way in."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import yaml

from bertkd_ray.config import load_config
from bertkd_ray.config.corpus import CleanConfig, CorpusConfig
from bertkd_ray.corpus.cleaning import REASONS

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = (DOCS / "corpora.md").read_text(encoding="utf-8")
BLOCKS = [
    (PAGE.rfind("\n## ", 0, found.start()), found[1])
    for found in re.finditer(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
]


@pytest.fixture
def load(tmp_path) -> Callable[[str], CorpusConfig]:
    def call(block: str) -> CorpusConfig:
        path = tmp_path / "c.yaml"
        path.write_text(f"name: mine\n{block}", encoding="utf-8")
        return load_config(path).corpus

    return call


@pytest.mark.parametrize("block", [text for _, text in BLOCKS], ids=[PAGE[at + 4 :].split("\n")[0] for at, _ in BLOCKS])
def test_every_configuration_loads(load, block):
    assert load(block)


def test_every_source_text_and_rule_is_shown(load):
    assert {load(text).source for _, text in BLOCKS} == set(get_args(CorpusConfig.model_fields["source"].annotation))
    corpora = [yaml.safe_load(text)["corpus"] for _, text in BLOCKS]
    assert {corpus.get("text", "raw") for corpus in corpora} == {"raw", "moses", "paper"}
    assert {rule for corpus in corpora for rule in corpus.get("clean", {})} == set(CleanConfig.model_fields)
    assert all(f"`{reason}`" in PAGE for reason in REASONS)


def test_every_link_inside_the_project_exists():
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", PAGE):
        assert (DOCS / target).exists(), target
