from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertkd_ray.artifacts import artifact as artifacts
from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact, fingerprint
from bertkd_ray.artifacts.store import Store
from bertkd_ray.core.errors import UserError
from bertkd_ray.pipeline.checks import check_store


def make(store: Store, stage: str = "corpus", text: bytes = b"hello") -> Artifact:
    work = PendingArtifact(store, stage, fingerprint(stage, {"x": 1}, {}), {"x": 1}, {})
    store.write(text, work.directory, "sub", "file.txt")
    store.write(b"unfinished", work.staging, "checkpoint")
    return work.commit(made=["sub"], metrics={"rows": 3.0}, info={"note": "n"})


def test_fingerprint_depends_on_everything_and_on_nothing_else():
    base = fingerprint("corpus", {"a": 1, "b": [1.5, None, "x"]}, {"text": "abc"})
    assert base == fingerprint("corpus", {"b": [1.5, None, "x"], "a": 1}, {"text": "abc"})
    assert len(base) == 16
    others = [
        fingerprint("teacher", {"a": 1, "b": [1.5, None, "x"]}, {"text": "abc"}),
        fingerprint("corpus", {"a": 2, "b": [1.5, None, "x"]}, {"text": "abc"}),
        fingerprint("corpus", {"a": 1, "b": [1.5, None, "x"]}, {"text": "abd"}),
        fingerprint("corpus", {"a": True, "b": [1.5, None, "x"]}, {"text": "abc"}),
    ]
    assert len({base, *others}) == 5


@pytest.mark.parametrize("value", [Path("x"), {1, 2}, b"bytes", (1, 2), object()])
def test_what_has_no_fingerprint_is_refused(value):
    with pytest.raises(TypeError, match="has no fingerprint"):
        fingerprint("corpus", {"deep": {"value": value}}, {})


def test_nan_has_no_fingerprint():
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint("corpus", {"value": float("nan")}, {})


def test_an_artifact_exists_only_with_its_manifest(tmp_path):
    store = Store(str(tmp_path))
    work = PendingArtifact(store, "corpus", "0" * 16, {}, {})
    assert not work.resumed
    store.write(b"x", work.directory, "part")
    assert work.resumed
    assert artifacts.find(store, "corpus", "0" * 16) is None
    work.commit(made=["part"], metrics={}, info={})
    assert artifacts.find(store, "corpus", "0" * 16) is not None


def test_commit_lists_files_with_sizes_checksums_and_row_groups(tmp_path):
    store = Store(str(tmp_path))
    work = PendingArtifact(store, "corpus", "1" * 16, {}, {})
    store.fs.create_dir(store.path(work.directory))
    pq.write_table(pa.table({"a": list(range(5))}), store.path(work.directory, "p.parquet"), row_group_size=2)
    store.write(b"hello", work.directory, "sub", "file.txt")
    done = work.commit(made=["p.parquet", "sub"], metrics={}, info={})
    by_path = {entry.path: entry for entry in done.files}
    assert by_path["p.parquet"].row_groups == [2, 2, 1]
    assert by_path["sub/file.txt"].bytes == 5
    # sha256 of "hello", as any other tool prints it
    assert by_path["sub/file.txt"].sha256 == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert [entry.path for entry in done.files_below("sub/")] == ["sub/file.txt"]
    assert done.libraries["pyarrow"] == pa.__version__


def test_commit_removes_unfinished_work(tmp_path):
    done = make(Store(str(tmp_path)))
    assert not (tmp_path / "work" / done.directory).exists()


def test_a_finished_artifact_is_found_again_with_its_figures(tmp_path):
    store = Store(str(tmp_path))
    done = make(store)
    found = artifacts.find(store, "corpus", done.fingerprint)
    assert found is not None
    assert (found.metrics, found.info, found.stage) == ({"rows": 3.0}, {"note": "n"}, "corpus")
    assert list(found.problems(checksums=True)) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b"hellO"), "its content differs from the manifest's checksum"),
        (lambda path: path.write_bytes(b"hell"), "4 bytes, the manifest says 5"),
        (lambda path: path.unlink(), "missing"),
        (lambda path: (path.parent / "more").write_bytes(b""), "/sub/more"),
    ],
)
def test_damage_is_found(tmp_path, damage, message):
    done = make(Store(str(tmp_path)))
    damage(tmp_path / done.directory / "sub" / "file.txt")
    problems = list(done.problems(checksums=True))
    assert len(problems) == 1
    assert problems[0].startswith(f"{done.directory}/sub/")
    assert problems[0].endswith(message)


def test_of_an_additional_file_nothing_but_that_file_is_to_be_moved(tmp_path):
    store = Store(str(tmp_path))
    done = make(store)
    store.write(b"", done.directory, "sub", "notes.txt")
    name = f"{done.directory}/sub/notes.txt"
    with pytest.raises(UserError) as error:
        artifacts.find(store, "corpus", done.fingerprint)
    assert str(error.value) == f"{name}: not in the manifest; move this file elsewhere: {tmp_path / name}"
    with pytest.raises(UserError, match=r"move this file elsewhere: \S+notes.txt$"):
        done.require_intact("copy it again")


def test_a_damaged_file_is_said_before_an_additional_one(tmp_path):
    store = Store(str(tmp_path))
    done = make(store)
    store.write(b"", done.directory, "a.txt")
    (tmp_path / done.directory / "sub" / "file.txt").write_bytes(b"")
    with pytest.raises(UserError, match=r"file.txt: 0 bytes, the manifest says 5; copy it again$"):
        done.require_intact("copy it again")


SYSTEM_FILES = (
    ".DS_Store",
    "sub/.DS_Store",
    "Thumbs.db",
    "desktop.ini",
    "Desktop.ini",
    "._file.txt",
    ".nfs000000a1b2c3",
)


@pytest.mark.parametrize("name", SYSTEM_FILES)
def test_what_operating_systems_leave_is_no_part_of_an_artifact(tmp_path, name):
    store = Store(str(tmp_path))
    work = PendingArtifact(store, "corpus", "1" * 16, {}, {})
    store.write(b"system", work.directory, name)
    assert not work.resumed
    store.write(b"hello", work.directory, "sub", "file.txt")
    done = work.commit(made=["sub"], metrics={}, info={})
    assert [entry.path for entry in done.files] == ["sub/file.txt"]
    assert store.exists(work.directory, name)
    store.write(b"changed", work.directory, name)
    assert artifacts.find(store, "corpus", done.fingerprint) is not None
    assert store.exists(work.directory, name)


def test_a_truncated_artifact_is_refused_in_one_line(tmp_path):
    store = Store(str(tmp_path))
    done = make(store)
    (tmp_path / done.directory / "sub" / "file.txt").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"file.txt: 0 bytes, the manifest says 5; copy it again, or move the directory"
    ):
        artifacts.find(store, "corpus", done.fingerprint)


def test_a_manifest_of_another_schema_is_refused(tmp_path):
    store = Store(str(tmp_path))
    done = make(store)
    path = tmp_path / done.directory / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))
    with pytest.raises(UserError, match="schema 99, this version reads 1"):
        artifacts.find(store, "corpus", done.fingerprint)
    path.write_text("[]")
    with pytest.raises(UserError, match="not a manifest"):
        artifacts.find(store, "corpus", done.fingerprint)
    path.write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        artifacts.find(store, "corpus", done.fingerprint)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.replace(b'"rows": 3.0', b'"rows": 4.0'),
        lambda data: data.replace(b'"rows": 3.0', b'"rows": NaN'),
        lambda data: data.replace(b'"note": "n"', b'"note": "\\ud800"'),
        lambda data: json.dumps(json.loads(data), indent=2, sort_keys=True).encode(),
        lambda data: data + b"\n",
    ],
    ids=["value", "not a number", "half a surrogate", "other white space", "line end"],
)
def test_a_manifest_that_was_changed_is_refused(tmp_path, damage):
    store = Store(str(tmp_path))
    done = make(store)
    path = tmp_path / done.directory / "manifest.json"
    data = path.read_bytes()
    path.write_bytes(damage(data))
    assert path.read_bytes() != data
    with pytest.raises(
        UserError, match=r"manifest\.json: its content differs from its own checksum; copy it again, or"
    ):
        artifacts.find(store, "corpus", done.fingerprint)


@pytest.mark.parametrize(
    "damage", [lambda data: data.replace(b'"checksum"', b'"checksun"'), lambda _: b'{"schema": 1}']
)
def test_a_manifest_without_a_checksum_is_refused(tmp_path, damage):
    store = Store(str(tmp_path))
    done = make(store)
    path = tmp_path / done.directory / "manifest.json"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        UserError, match=r"has no checksum of its own, as those of earlier versions; use another storage or the version"
    ):
        artifacts.find(store, "corpus", done.fingerprint)


def test_the_manifest_carries_the_checksum_of_what_else_it_says(tmp_path):
    """As anyone can compute it, who drops the line and dumps the rest in the same form."""
    done = make(Store(str(tmp_path)))
    said = json.loads((tmp_path / done.directory / "manifest.json").read_text(encoding="utf-8"))
    checksum = said.pop("checksum")
    rest = json.dumps(said, indent=1, sort_keys=True, ensure_ascii=False)
    assert checksum == hashlib.sha256(rest.encode()).hexdigest()


def test_an_artifact_under_another_name_is_refused(tmp_path):
    store = Store(str(tmp_path))
    done = make(store)
    other = "f" * 16
    (tmp_path / done.directory).rename(tmp_path / f"corpus-{other}")
    with pytest.raises(UserError, match=rf"corpus-{other}/manifest\.json: is that of {done.directory}; give"):
        artifacts.find(store, "corpus", other)


def test_contents_are_read_unless_sizes_are_enough(tmp_path):
    store = Store(str(tmp_path))
    done = make(store)
    (tmp_path / done.directory / "sub" / "file.txt").write_bytes(b"hellO")
    with pytest.raises(
        UserError, match=r"file\.txt: its content differs from the manifest's checksum; copy it again, or"
    ):
        artifacts.find(store, "corpus", done.fingerprint)
    assert artifacts.find(store, "corpus", done.fingerprint, checksums=False) is not None


def test_commit_takes_what_was_made_and_removes_the_rest(tmp_path, capsys):
    store = Store(str(tmp_path))
    work = PendingArtifact(store, "corpus", "2" * 16, {}, {})
    for name in ("model/a", "model/sub/b", "model.old/c", "history.json", "part-7.parquet"):
        store.write(b"x", work.directory, *name.split("/"))
    left = tmp_path / work.directory / "model" / ".a.0123456789ab.partial"
    left.write_bytes(b"half")
    done = work.commit(made=["model", "history.json"], metrics={}, info={})
    kept = ["history.json", "model/a", "model/sub/b"]
    assert [entry.path for entry in done.files] == kept
    assert [name for name, _ in store.files(work.directory)] == sorted([*kept, "manifest.json"])
    assert not left.exists()
    said = f"{work.directory}: removed model.old/c, part-7.parquet, left by an earlier attempt\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("made", [["part", "more"], ["part", "par"], ["sub"]])
def test_commit_misses_what_was_made(tmp_path, made):
    store = Store(str(tmp_path))
    work = PendingArtifact(store, "corpus", "3" * 16, {}, {})
    store.write(b"x", work.directory, "part")
    with pytest.raises(ValueError, match=f"lacks {made[-1]}, which was made"):
        work.commit(made=made, metrics={}, info={})
    assert store.files(work.directory) == [("part", 1)]


def test_a_writer_that_is_killed_after_the_commit_does_no_harm(tmp_path):
    store = Store(str(tmp_path))
    done = make(store)
    (tmp_path / done.directory / "sub" / ".file.txt.0123456789ab.partial").write_bytes(b"half")
    assert list(done.problems(checksums=True)) == []
    assert artifacts.find(store, "corpus", done.fingerprint) is not None


def test_work_of_a_finished_artifact_is_removed_by_who_finds_it(tmp_path):
    """Its driver was killed between the manifest and the end of the commit."""
    store = Store(str(tmp_path))
    done = make(store)
    store.write(b"", "work", done.directory, "checkpoint", "model.bin")
    store.write(b"", "work", "corpus-of-another", "checkpoint")
    artifacts.load(store, done.directory)
    assert store.exists("work", done.directory, "checkpoint", "model.bin")
    artifacts.find(store, "corpus", done.fingerprint)
    assert store.files("work") == [("corpus-of-another/checkpoint", 0)]


OPERATIONS = ("write", "keep_only", "delete", "sha256", "files")


def test_a_kill_between_any_two_operations_of_a_commit(tmp_path, monkeypatch):
    """Before the manifest the same files are committed again; after it the artifact is found, and its work removed."""

    class Killed(BaseException):
        pass

    def commit(store: Store) -> Artifact:
        work = PendingArtifact(store, "corpus", "4" * 16, {}, {})
        return work.commit(made=["part", "sub"], metrics={}, info={})

    outcomes = []
    for moment in range(20):
        store = Store(str(tmp_path / f"{moment}"))
        store.write(b"x", f"corpus-{'4' * 16}", "part")
        store.write(b"y", f"corpus-{'4' * 16}", "sub", "part")
        store.write(b"z", f"corpus-{'4' * 16}", "stranger")
        store.write(b"unfinished", "work", f"corpus-{'4' * 16}", "checkpoint")
        left = moment
        with monkeypatch.context() as patch:
            for name in OPERATIONS:
                original = getattr(Store, name)

                def operation(self, *arguments, original=original):
                    nonlocal left
                    if left == 0:
                        raise Killed
                    left -= 1
                    return original(self, *arguments)

                patch.setattr(Store, name, operation)
            try:
                commit(store)
                killed = False
            except Killed:
                killed = True
        found = artifacts.find(store, "corpus", "4" * 16)
        outcomes.append((killed, found is not None))
        again = found or commit(store)
        assert [entry.path for entry in again.files] == ["part", "sub/part"]
        assert list(again.problems(checksums=True)) == []
        assert store.files("work") == []
        if not killed:
            break
    # Six operations before the manifest is there, one after it, and the moment that is too late.
    assert outcomes == [(True, False)] * 5 + [(True, True), (False, True)]


@pytest.mark.parametrize("linked", [f"corpus-{'5' * 16}", f"work/corpus-{'5' * 16}", "work"])
def test_an_artifact_is_not_made_through_a_link(tmp_path, linked):
    mine = tmp_path / "mine"
    (mine / f"corpus-{'5' * 16}").mkdir(parents=True)
    (mine / "letter").write_text("dear")
    place = tmp_path / "store" / linked
    place.parent.mkdir(parents=True)
    place.symlink_to(mine)
    if linked.startswith("work"):
        Store(str(tmp_path / "store")).write(b"unfinished", f"corpus-{'5' * 16}", "part")
    work = PendingArtifact(Store(str(tmp_path / "store")), "corpus", "5" * 16, {}, {})
    with pytest.raises(
        UserError, match=rf"/{linked} is a link, and what it leads to is not touched; move it elsewhere"
    ):
        assert work.resumed
    assert [path.name for path in mine.rglob("letter")] == ["letter"]


def test_commit_removes_links_and_not_what_they_lead_to(tmp_path):
    store, mine = Store(str(tmp_path / "store")), tmp_path / "mine"
    mine.mkdir()
    (mine / "letter").write_text("dear")
    work = PendingArtifact(store, "corpus", "6" * 16, {}, {})
    store.write(b"x", work.directory, "part")
    Path(store.path(work.directory, "photos")).symlink_to(mine)
    work.commit(made=["part"], metrics={}, info={})
    assert sorted(path.name for path in Path(store.path(work.directory)).iterdir()) == ["manifest.json", "part"]
    assert (mine / "letter").read_text() == "dear"


@pytest.mark.parametrize("name", ["sub/.DS_Store", "._x", ".x.0123456789ab.partial", "desktop.ini", "sub/file.txt"])
def test_a_link_is_no_file_of_an_artifact(tmp_path, name):
    store, secret = Store(str(tmp_path / "store")), tmp_path / "file.txt"
    done = make(store)
    secret.write_bytes(b"hello")
    place = Path(store.path(done.directory, name))
    place.unlink(missing_ok=True)
    place.symlink_to(secret)
    said = f"{done.directory}/{name}: a link, which is not followed; move it elsewhere: {place}"
    assert next(done.problems(checksums=True)) == said
    assert next(iter(check_store(store.storage)[1])) == said
    with pytest.raises(UserError) as error:
        artifacts.find(store, "corpus", done.fingerprint)
    assert str(error.value) == said


def test_a_copy_holds_what_the_manifest_lists(tmp_path):
    done = make(Store(str(tmp_path / "store")))
    (Path(done.path("sub")) / ".DS_Store").write_bytes(b"names of files")
    assert [path.name for path in done.copy("sub", tmp_path / "copy").iterdir()] == ["file.txt"]


def test_an_artifact_that_is_a_link_is_one_line_a_check(tmp_path):
    done = make(Store(str(tmp_path / "theirs")))
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / done.directory).symlink_to(done.path())
    count, problems = check_store(str(tmp_path / "store"))
    assert (count, len(problems)) == (1, 1)
    assert f"/{done.directory} is a link, and what it leads to is not touched" in problems[0]
