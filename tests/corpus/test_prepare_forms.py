"""Prepare from translation files: the pairs and token ids of the plain text, and counts of all that is left out."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from bertkd_ray.cli import main
from bertkd_ray.corpus.inspect import corpus_figures, open_corpus
from bertkd_ray.corpus.sources import read_monolingual
from tests.corpus.test_sources import corpus
from tests.helpers.local_project import QUICK, Project
from tests.helpers.translation_files import WRITERS, write_tmx


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))


def text_of(project: Project, split: str) -> list[tuple[str, str]]:
    sides = [gzip.decompress((project.directory / "text" / f"{split}.{s}.gz").read_bytes()) for s in ("de", "en")]
    return list(zip(*(side.decode().split("\n")[:-1] for side in sides), strict=True))


@pytest.mark.parametrize("form", sorted(WRITERS))
def test_prepare_makes_the_same_pairs_and_ids(project: Project, tmp_path: Path, form: str) -> None:
    keys = {
        split: json.dumps(WRITERS[form](tmp_path / f"{split}.file", text_of(project, split)))
        for split in ("train", "valid", "test")
    }
    given = [f"corpus.{split}={files}" for split, files in keys.items()]
    made = project.variant(tmp_path, "corpus.source=null", *given).corpus()
    plain = project.corpus()
    assert made.fingerprint != plain.fingerprint
    assert [(entry.path, entry.sha256) for entry in made.files] == [(entry.path, entry.sha256) for entry in plain.files]
    assert made.info["splits"] == plain.info["splits"]


def test_what_is_left_out_is_counted_and_shown(project: Project, tmp_path: Path) -> None:
    whole = write_tmx(tmp_path / "whole", text_of(project, "train")).read_text(encoding="utf-8")
    more = '<tu><tuv xml:lang="de"><seg>allein</seg></tuv></tu>'
    path = tmp_path / "train.tmx"
    path.write_text(whole.replace("</body>", f"{more}</body>"), encoding="utf-8")
    made = project.variant(tmp_path, "corpus.source=null", f"corpus.train={{tmx: {path}}}").corpus()
    assert made.info["splits"]["train"]["no_translation"] == 1
    figures = corpus_figures(open_corpus(made.path()), seed=1)
    assert figures.splits["train"].counted["no_translation"] == 1
    config = corpus(tmp_path, {"tmx": str(path)}, monolingual={"tmx": str(path)})
    left_out: Counter[str] = Counter()
    (tables,) = read_monolingual(config, left_out)
    sentences = [row["src"] for table in tables for row in table.to_pylist()]
    assert sentences == [*(src for src, _ in text_of(project, "train")), "allein"]
    assert not left_out


@pytest.mark.slow
def test_a_run_from_other_forms_scores_as_from_plain_text(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forms = {"train": "tmx", "valid": "po", "test": "xliff"}
    files = {split: WRITERS[form](tmp_path / split, text_of(project, split)) for split, form in forms.items()}
    given = ["corpus.source=null", *(f"corpus.{split}={json.dumps(keys)}" for split, keys in files.items())]
    results = []
    for storage, changes in (("plain", []), ("forms", given)):
        local = [*QUICK, "runtime=local", "tracking=none", f"storage={tmp_path / storage}"]
        assert main(["run", str(project.directory / "small.yaml"), *local, *changes, "--json"]) == 0
        results.append(json.loads(capsys.readouterr().out))
    plain, others = ([(score["arm"], score["test_bleu"]) for score in result["scores"]] for result in results)
    assert plain == others
