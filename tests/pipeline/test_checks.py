"""What `validate` finds before hours are spent, and what it finds in a store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from bertkd_ray.artifacts.artifact import PendingArtifact, fingerprint
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import load_config
from bertkd_ray.core.errors import UserError
from bertkd_ray.pipeline import checks
from bertkd_ray.pipeline.checks import check_config, check_store
from bertkd_ray.pipeline.pipeline import Pipeline
from tests.helpers.small_config import write_config


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return write_config(tmp_path_factory.mktemp("project"))


@pytest.fixture
def check(path) -> Callable[..., list[str]]:
    return lambda *overrides: list(check_config(load_config(path, list(overrides))))


def test_everything_that_holds_is_told(check, path):
    storage, tracking, teacher, device, *splits = check("device=cpu")
    assert storage == f"storage    {path.parent / 'artifacts'} can be written"
    assert tracking == f"tracking   sqlite:///{path.parent / 'artifacts/mlflow.db'} will be made"
    assert teacher.startswith(f"teacher    {path.parent / 'bert'}: 2 layers, ")
    assert device == "device     cpu, float32, 1 worker; as seen from this machine"
    assert splits == ["train      244 pairs", "valid      24 pairs", "test       20 pairs"]


def test_a_check_leaves_nothing_in_the_store(check, path):
    check()
    assert Store(str(path.parent / "artifacts")).files() == []


def test_what_takes_days_is_warned_of(check, capsys, monkeypatch):
    check("student.steps=10", "teacher.steps=10")
    assert "warning" not in capsys.readouterr().err
    check("student.steps=1000000000", "teacher.steps=10")
    time, epochs = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert "this takes" in time
    assert "distill/" in time
    assert "1,000,000,000 steps see the training text" in epochs
    # Of a cluster's devices nothing is known here.
    monkeypatch.setattr(checks, "cluster_address", lambda: "10.0.0.1:6379")
    monkeypatch.setattr(checks, "_nodes", lambda config: 2)
    check("student.steps=1000000000", "teacher.steps=10", "runtime=ray")
    assert "this takes" not in (err := capsys.readouterr().err)
    assert "1,000,000,000 steps" in err


def test_every_form_is_read(check, path):
    directory = path.parent / "text"
    pairs = [{"src": f"s{n}", "tgt": f"t{n}"} for n in range(3)]
    (directory / "a.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    (directory / "a.tsv").write_text("".join(f"{pair['src']}\t{pair['tgt']}\n" for pair in pairs))
    pq.write_table(pa.Table.from_pylist(pairs), directory / "a.parquet")
    (directory / "a.zst").write_bytes(pa.compress(b"x\ny\n", codec="zstd", asbytes=True))
    train = "[{jsonl: a.jsonl, weight: 2}, {tsv: a.tsv}, {parquet: '*.parquet'}, {src: a.zst, tgt: a.zst}]"
    splits = check(f"corpus.train={train}", "corpus.source=mixed", "corpus.valid={held_out: 0.015}")[-3:]
    assert splits == ["train      11 pairs in 4 sources", "valid      1.50% of train, held out", "test       20 pairs"]
    (directory / "a.jsonl").write_text('{"src": "x"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl:1: no tgt here, only src; name a key"):
        check(f"corpus.train={train}", "corpus.source=mixed")


@pytest.mark.parametrize("kind", ["xlm-roberta", "modernbert", "t5"])
def test_a_teacher_that_is_no_bert_is_told_before_anything_is_made(check, path, tmp_path, kind):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    said = rf"^teacher\.model: .*config\.json is of type {kind}; supported are bert, distilbert, ernie"
    with pytest.raises(UserError, match=said):
        check(f"teacher.model={tmp_path}")
    store = tmp_path / "store"
    pipeline = Pipeline(load_config(path, [f"teacher.model={tmp_path}", f"storage={store}"]))
    with pipeline, pytest.raises(UserError, match=said):
        pipeline.make("prepare")
    assert Store(str(store)).files() == []


def test_a_bert_with_exactly_enough_positions(check):
    assert check("corpus.max_pair_tokens=509")


def test_a_storage_that_cannot_be_written(check, path):
    with pytest.raises(UserError, match=r"^storage: .*small\.yaml/store cannot be written"):
        check(f"storage={path}/store")


def test_a_tracking_server_that_does_not_answer(check):
    with pytest.raises(UserError, match=r"^tracking\.uri: cannot use http://127\.0\.0\.1:9 \("):
        check("tracking.uri=http://127.0.0.1:9")


def test_no_tracking(check):
    assert check("tracking=none")[1] == "tracking   none"


def test_the_nodes_of_a_cluster_are_asked(check, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.7:6379")
    monkeypatch.setattr(checks, "_nodes", lambda config: 3)
    assert check()[2] == "cluster    3 node(s), which see the storage"
    assert check("runtime=local")[2].startswith("teacher")


def test_gpus_that_are_not_there(check, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    two = ["device=gpu", "workers=2"]
    with pytest.raises(UserError, match="device: gpu with workers: 2, but this machine has 1 GPUs; lower workers"):
        check(*two)


def test_gpus_that_are_there(check, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("bertkd_ray.core.devices.best_device", lambda: torch.device("cuda", 0))
    assert "cuda, float32, 2 workers" in check("device=gpu", "workers=2")[3]


def test_an_empty_split(check, monkeypatch):
    monkeypatch.setattr(checks, "read_sources", lambda corpus, split: [iter([])])
    with pytest.raises(UserError, match=r"corpus\.train: the files are empty"):
        check()


@pytest.fixture
def store(tmp_path) -> Store:
    """Two finished artifacts, unfinished work, and files that belong to neither."""
    store = Store(str(tmp_path / "store"))
    for stage in ("corpus", "teacher"):
        work = PendingArtifact(store, stage, fingerprint(stage, {}, {}), {}, {})
        store.write(b"hello", work.directory, "sub", "a.txt")
        store.write(b"world", work.directory, "b.txt")
        work.commit(made=["sub", "b.txt"], metrics={}, info={})
    store.write(b"half", "student-0123456789abcdef", "model.bin")
    store.write(b"{}", "work", "student-0123456789abcdef", "manifest.json")
    store.write(b"x", "mlflow.db")
    return store


def artifact_of(store: Store, stage: str) -> str:
    return f"{stage}-{fingerprint(stage, {}, {})}"


def test_a_sound_store(store):
    assert check_store(store.uri) == (2, [])


def test_every_problem_is_told(store):
    corpus, teacher = artifact_of(store, "corpus"), artifact_of(store, "teacher")
    store.write(b"hellp", corpus, "sub", "a.txt")
    store.write(b"worlds", corpus, "b.txt")
    store.fs.delete_file(store.path(teacher, "b.txt"))
    store.write(b"", teacher, "c.txt")
    count, problems = check_store(store.uri)
    assert count == 2
    assert problems == [
        f"{corpus}/b.txt: 6 bytes, the manifest says 5",
        f"{corpus}/sub/a.txt: its content differs from the manifest's checksum",
        f"{teacher}/b.txt: missing",
        f"{teacher}/c.txt: not in the manifest; move this file elsewhere: {store.path(teacher, 'c.txt')}",
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"not json", "not JSON"), (b'{"schema": 99}', "schema 99"), (b"{}", "schema None")],
)
def test_a_broken_manifest_does_not_hide_the_other_artifacts(store, content, said):
    corpus, teacher = artifact_of(store, "corpus"), artifact_of(store, "teacher")
    store.write(content, corpus, "manifest.json")
    store.write(b"", teacher, "c.txt")
    count, (first, second) = check_store(store.uri)
    assert count == 2
    assert first.startswith(f"{corpus}/manifest.json: {said}")
    assert second == f"{teacher}/c.txt: not in the manifest; move this file elsewhere: {store.path(teacher, 'c.txt')}"


def test_a_directory_that_is_no_store(tmp_path, store):
    for directory in (tmp_path / "nowhere", tmp_path, tmp_path / "store" / artifact_of(store, "corpus")):
        with pytest.raises(UserError, match="no finished artifact is here; give the storage directory"):
            check_store(str(directory))


def test_a_problem_ends_the_command_with_exit_code_2(store, capsys):
    from bertkd_ray.cli import main

    assert main(["validate", "--artifacts", store.uri]) == 0
    assert capsys.readouterr().out == "ok  2 artifacts, every file as its manifest says\n"
    store.write(b"worlds", artifact_of(store, "corpus"), "b.txt")
    assert main(["validate", "--artifacts", store.uri, "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "artifacts": 2,
        "problems": [f"{artifact_of(store, 'corpus')}/b.txt: 6 bytes, the manifest says 5"],
    }
