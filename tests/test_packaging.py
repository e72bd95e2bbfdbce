"""The wheel and the sdist: what is in them, and that the wheel works outside of the checkout."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bertkd_ray import __version__
from tests.helpers.small_config import write_config

ROOT = Path(__file__).resolve().parents[1]
NOT_COPIED = (".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info", "_build", "build", "dist")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def python(*arguments: str | Path, cwd: Path, path: Path | None = None) -> str:
    """What a Python process prints; the installed packages are this one's, and `path` comes before them."""
    environment = {**os.environ, "PYTHONPATH": str(path or ""), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _not_copied(directory: str, names: list[str]) -> set[str]:
    """What a user's store and data are called at the top is a room of the package below."""
    stores = {"artifacts", "data"} if Path(directory) == ROOT else set()
    return stores | shutil.ignore_patterns(*NOT_COPIED)(directory, names)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A directory with `sdist/` and `wheel/`, both built from a copy of the working tree."""
    if importlib.util.find_spec("build") is None:
        pytest.skip("build is not installed; it comes with the extra dev")
    directory = tmp_path_factory.mktemp("built")
    tree = directory / "tree"
    shutil.copytree(ROOT, tree, ignore=_not_copied)
    for form in ("sdist", "wheel"):
        python("-m", "build", "--no-isolation", f"--{form}", "--outdir", directory / form, tree, cwd=directory)
    return directory


@pytest.fixture(scope="module")
def sdist(built) -> Path:
    """The unpacked sdist."""
    (archive,) = (built / "sdist").iterdir()
    assert archive.name == f"bertkd_ray-{__version__}.tar.gz"
    with tarfile.open(archive) as packed:
        packed.extractall(built / "unpacked", filter="data")
    return built / "unpacked" / archive.name.removesuffix(".tar.gz")


def contents(wheel_directory: Path) -> dict[str, bytes]:
    """The only wheel's files by name; RECORD only repeats the others."""
    (wheel,) = wheel_directory.glob("*.whl")
    assert wheel.name == f"bertkd_ray-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as packed:
        return {name: packed.read(name) for name in packed.namelist() if not name.endswith("RECORD")}


@pytest.fixture(scope="module")
def bertkd(built) -> Callable[..., str]:
    """`bertkd ARGUMENTS` of the installed wheel, in an empty directory."""
    target, empty = built / "site", built / "empty"
    empty.mkdir()
    (wheel,) = (built / "wheel").iterdir()
    pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps")
    python(*pip, "--target", target, wheel, cwd=empty)
    where = python("-c", "import bertkd_ray; print(bertkd_ray.__file__)", cwd=empty, path=target)
    assert where.strip() == str(target / "bertkd_ray" / "__init__.py")
    return lambda *arguments: python(target / "bin" / "bertkd", *arguments, cwd=empty, path=target)


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(built):
    wheel = contents(built / "wheel")
    package = [path for path in (ROOT / "bertkd_ray").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert {name for name in wheel if ".dist-info/" not in name} == {str(path.relative_to(ROOT)) for path in package}
    data = {
        "py.typed",
        "config/iso639.txt",
        "corpus/demo.tsv.zst",
        "report/template/page.html",
        "translation/template/model_card.md.j2",
    }
    assert {f"bertkd_ray/{name}" for name in data} < set(wheel)
    information = f"bertkd_ray-{__version__}.dist-info"
    assert wheel[f"{information}/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert b"bertkd = bertkd_ray.cli:main" in wheel[f"{information}/entry_points.txt"]


@pytest.mark.slow
def test_the_sdist_builds_the_same_wheel(built, sdist, tmp_path):
    shutil.copytree(sdist, tmp_path / "tree")
    python("-m", "build", "--no-isolation", "--wheel", "--outdir", built / "again", tmp_path / "tree", cwd=built)
    assert contents(built / "again") == contents(built / "wheel")


@pytest.mark.slow
def test_the_sdist_holds_what_a_checkout_does(sdist):
    for name in ("LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "README.md", "Makefile", "constraints.txt"):
        assert (sdist / name).read_bytes() == (ROOT / name).read_bytes()
    for directory in ("configs", "jobs", "deploy", "tests", "tools"):
        here = {path.relative_to(ROOT) for path in (ROOT / directory).rglob("*") if path.is_file()}
        there = {path.relative_to(sdist) for path in (sdist / directory).rglob("*") if path.is_file()}
        assert {path for path in here if "__pycache__" not in path.parts} == there
    strangers = {".git", ".venv", "artifacts", "data", "build", "dist"} & {path.name for path in sdist.iterdir()}
    assert strangers == set()
    assert not list(sdist.rglob("*.pyc"))


@pytest.mark.slow
def test_the_wheel_works_outside_of_the_checkout(bertkd, tmp_path):
    config = write_config(tmp_path)
    assert bertkd("--version").splitlines()[0].split() == ["bertkd", __version__]
    assert "usage: bertkd" in bertkd("--help")
    assert bertkd("completion", "bash").rstrip().endswith(" bertkd")
    demo = ["corpus.source=demo", *(f"corpus.{key}=null" for key in ("directory", "train", "valid", "test"))]
    for overrides, pairs in ([], "244"), (demo, "4,000"):
        lines = bertkd("validate", config, *overrides).splitlines()
        assert next(line.split() for line in lines if line.startswith("ok  train"))[2] == pairs


def test_every_direct_dependency_is_pinned():
    pinned = {
        canonicalize_name(line.partition("==")[0])
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    }
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    named = {canonicalize_name(Requirement(line).name) for line in [*PROJECT["dependencies"], *extras]}
    assert named - {canonicalize_name(PROJECT["name"])} <= pinned


def test_the_changelog_begins_with_this_version():
    headings = [
        line for line in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines() if line.startswith("## ")
    ]
    assert headings[0].startswith(f"## [{__version__}]")


def test_the_licence_is_the_one_that_is_named():
    words = " ".join((ROOT / "LICENSE").read_text(encoding="utf-8").split())
    assert PROJECT["license"] == "Apache-2.0"
    assert words.startswith("Apache License Version 2.0, January 2004")
    assert "END OF TERMS AND CONDITIONS" in words
