"""`~` in paths."""

import pwd
from pathlib import Path

import pytest

from bertkd_ray.artifacts.store import Store
from bertkd_ray.cli import main
from bertkd_ray.cli.parser import parse
from bertkd_ray.config import Config, load_config
from bertkd_ray.config.study import StudyConfig
from bertkd_ray.core.paths import expand_home
from bertkd_ray.tracking import default_uri


@pytest.fixture(autouse=True)
def home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")


@pytest.mark.parametrize(
    ("path", "expanded"),
    [
        ("~", "/home/ada"),
        ("~/runs", "/home/ada/runs"),
        ("sqlite:///~/mlflow.db", "sqlite:////home/ada/mlflow.db"),
        ("file://~/runs", "file:///home/ada/runs"),
        ("~nobody-of-this-name/runs", "~nobody-of-this-name/runs"),
        ("runs/~", "runs/~"),
        ("/runs/~/x", "/runs/~/x"),
        ("s3://bucket/~/x", "s3://bucket/~/x"),
        ("", ""),
    ],
)
def test_the_home_directory_stands_for_a_leading_tilde(path, expanded):
    assert expand_home(path) == expanded


def test_a_user_without_a_home_directory(monkeypatch, tmp_path, capsys):
    """As in a container that runs under a number that no file knows."""

    def unknown(number: int) -> None:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "c.yaml"
    path.write_text("name: x\ncorpus: {source: demo}\n")
    said = "this user has no home directory; set HOME, or give a whole path"
    for arguments, place in (
        (["prepare", str(path), "storage=~/runs"], "~/runs"),
        (["report", str(path), "--output=~/page.html"], "~/page.html"),
    ):
        assert main(arguments) == 2
        assert capsys.readouterr().err == f"bertkd: error: {place}: {said}\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.yaml"]
    assert expand_home("~nobody-of-this-name/runs") == "~nobody-of-this-name/runs"


def test_every_path_of_a_configuration():
    files = {"src": "~/a.de", "tgt": "~/a.en"}
    tree = {
        "name": "x",
        "storage": "~/runs",
        "tracking": {"uri": "sqlite:///~/mlflow.db"},
        "teacher": {"model": "~/bert"},
        "corpus": {
            "directory": "~/text",
            "cache": "~/cache",
            "train": [files, {"tsv": "~/a.tsv"}, {"jsonl": "~/a.jsonl"}, {"parquet": "~/a*.parquet"}],
            "valid": files,
            "test": {"dataset": "~/data"},
        },
    }
    config = Config.model_validate(tree)
    assert "~" not in config.model_dump_json()
    assert config.corpus.sources("valid")[0].src == "/home/ada/a.de"
    archive = Config.model_validate({"name": "x", "corpus": {"archive": "~/de-en.tgz", "cache": "~/c"}})
    assert archive.corpus.archive == "/home/ada/de-en.tgz"
    arms = {"a": {}, "b": {}}
    assert StudyConfig(name="s", base="~/c.yaml", arms=arms, seeds=[1]).base == "/home/ada/c.yaml"


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["run", "~/c.yaml"], "config"),
        (["report", "c.yaml", "--output=~/page.html"], "output"),
        (["export", "~/student", "--to", "huggingface", "--output", "out"], "config"),
        (["export", "student", "--to", "huggingface", "--output=~/out"], "output"),
        (["validate", "--artifacts=~/runs"], "artifacts"),
        (["compare", "a", "b", "--storage=~/runs"], "storage"),
        (["compare", "a", "b", "--tracking=sqlite:///~/m.db"], "tracking"),
        (["translate", "~/student"], "config"),
        (["inspect", "~/corpus"], "config"),
        (["study", "~/s.yaml"], "config"),
    ],
)
def test_every_path_of_a_command_line(arguments, option):
    value = str(getattr(parse(arguments), option))
    assert "/home/ada" in value
    assert "~" not in value


def test_paths_from_python(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("{name: x, storage: ~/runs, corpus: {source: demo}}")
    config = load_config("~/c.yaml")
    assert config.storage == f"{tmp_path}/runs"
    Store("~/runs").write(b"", "file")
    assert (tmp_path / "runs" / "file").is_file()
    assert not Path("~").exists()
    assert default_uri("~/runs") == f"sqlite:///{tmp_path}/runs/mlflow.db"
