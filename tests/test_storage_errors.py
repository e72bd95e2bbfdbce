"""A storage that refuses, in any stage: one line, exit code 1, nothing looks finished, the same command goes on."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bertkd_ray.artifacts.artifact import STAGING
from bertkd_ray.cli import main
from bertkd_ray.pipeline.session import Session
from tests.helpers.failing_storage import FaultyStorage
from tests.helpers.full_disk import ROOT, mount_failure, run_with_disk
from tests.helpers.local_project import QUICK, InProcessRuntime, Project

COMMANDS = {
    "corpus": ["prepare"],
    "teacher": ["finetune"],
    "softlabels": ["extract"],
    "student": ["distill", "--arm", "control"],
    "translation": ["translate", "--arm", "control"],
}
ERRORS = (
    (OSError(28, "No space left on device"), "(No space left on device); make room"),
    (OSError(122, "Disk quota exceeded"), "(Disk quota exceeded); make room"),
    (OSError(30, "Read-only file system"), "(Read-only file system); allow it"),
    (OSError(5, "Input/output error"), "(Input/output error); mend it"),
    (OSError("AWS Error ACCESS_DENIED during PutObject"), "(AWS Error ACCESS_DENIED during PutObject); allow it"),
)

Answer = tuple[int, list[str]]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """All five artifacts, made undisturbed."""
    project = Project(tmp_path_factory.mktemp("project"))
    project.labels()
    project.translation()
    return project


@pytest.fixture
def bertkd(project, monkeypatch, capsys) -> Callable[..., Answer]:
    """A command in this process, and what it says on stderr."""
    monkeypatch.setattr(Session, "runtime", InProcessRuntime())
    monkeypatch.setattr(InProcessRuntime, "close", lambda self: None, raising=False)

    def call(command: list[str], storage: str, *overrides: str) -> Answer:
        given = [str(project.directory / "small.yaml"), *QUICK, f"storage={storage}", "tracking=none", *overrides]
        return main([*command, *given]), capsys.readouterr().err.splitlines()

    return call


def files_of(directory: Path) -> dict[str, str]:
    """Path and checksum of every file that the manifest lists; curves carry times, so of them the path alone."""
    entries = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))["files"]
    return {entry["path"]: "" if entry["path"] == "history.json" else entry["sha256"] for entry in entries}


def artifact_in(storage: Path, stage: str) -> Path:
    (found,) = storage.glob(f"{stage}-*")
    return found


def require_sound(storage: Path, stage: str, project: Project) -> None:
    assert files_of(artifact_in(storage, stage)) == files_of(artifact_in(Path(project.store.root), stage))
    assert not list((storage / "work").glob("*/*"))


@pytest.mark.parametrize("stage", COMMANDS)
def test_a_bucket_that_refuses_in_the_middle(project, bertkd, tmp_path, stage):
    """At the first file, in the middle, and at the manifest; then it lets be written again."""
    command = COMMANDS[stage]

    def made_before(storage: Path) -> str:
        for other in list(COMMANDS)[: list(COMMANDS).index(stage)]:
            source = artifact_in(Path(project.store.root), other)
            shutil.copytree(source, storage / source.name)
        return FaultyStorage.uri(storage)

    with FaultyStorage() as sound:
        assert bertkd(command, made_before(tmp_path / "sound"))[0] == 0
    require_sound(tmp_path / "sound", stage, project)
    # The first two are the probe and the lock.
    manifest = next(at for at, path in enumerate(sound.written) if path.endswith("/manifest.json"))
    for number, writes in enumerate(sorted({2, (2 + manifest) // 2, manifest})):
        storage = tmp_path / f"{number}"
        error, said = ERRORS[(number + list(COMMANDS).index(stage)) % len(ERRORS)]
        uri = made_before(storage)
        with FaultyStorage(writes=writes, error=error):
            code, err = bertkd(command, uri)
        where = re.escape(f"bertkd: error: storage: faulty://{storage}/")
        assert re.fullmatch(
            rf"{where}\S+ cannot be written {re.escape(said)} and run the same command, which goes on from there",
            err[-1],
        )
        assert (code, "Traceback" in "".join(err)) == (1, False)
        assert not list(storage.glob(f"{stage}-*/manifest.json"))
        with FaultyStorage():
            code, err = bertkd(command, uri)
        assert code == 0, err
        require_sound(storage, stage, project)


@pytest.mark.parametrize("stage", ["corpus", "translation"])
def test_a_bucket_that_cannot_be_read_any_more(project, bertkd, stage, monkeypatch):
    """What was made before is there, and reading it is refused."""
    command = COMMANDS[stage]
    storage = FaultyStorage.uri(Path(project.store.root))
    with FaultyStorage(error=OSError("AWS Error ACCESS_DENIED during GetObject operation")) as faulty:
        faulty.reads = False
        code, err = bertkd(command, storage)
    assert code == 1
    assert re.fullmatch(
        r"bertkd: error: storage: faulty://\S+ cannot be read \(AWS Error ACCESS_DENIED during GetObject operation\); "
        "allow it and run the same command, which goes on from there",
        err[-1],
    )
    assert "Traceback" not in "".join(err)


CHILD = """
import contextlib, io, json, os, sys
from pathlib import Path
from bertkd_ray.cli import main
from bertkd_ray.pipeline.session import Session
from tests.helpers.local_project import InProcessRuntime

Session.runtime = InProcessRuntime()
InProcessRuntime.close = lambda self: None
disk, given, plan = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
filler = disk / "filler"


def leave(free):
    filler.unlink(missing_ok=True)
    found = os.statvfs(disk)
    with filler.open("wb") as file:
        file.write(bytes(max(0, found.f_bavail * found.f_frsize - free)))


def call(command):
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        code = main([*command, *given])
    return code, err.getvalue().splitlines()


for stage, command, free in plan:
    leave(free)
    code, err = call(command)
    finished = [path.parent.name for path in disk.glob("*/*/manifest.json")]
    scratch = [path.name for path in disk.rglob("*.partial")]
    filler.unlink()
    again = call(command) if free else (None, [])
    print(json.dumps([stage, free, code, err, finished, scratch, *again]), flush=True)
"""


@pytest.mark.skipif(bool(mount_failure()), reason=mount_failure())
def test_a_full_disk(project, tmp_path):
    """A real one, in every stage: with no room at all, and with room for half of what is to be written."""
    disk, script = tmp_path / "disk", tmp_path / "child.py"
    script.write_text(CHILD)
    given = [str(project.directory / "small.yaml"), *QUICK, f"storage={disk}/store", "tracking=none"]
    size = {
        stage: sum(path.stat().st_size for path in artifact_in(Path(project.store.root), stage).rglob("*"))
        for stage in COMMANDS
    }
    plan = [(stage, command, free) for stage, command in COMMANDS.items() for free in (0, size[stage] // 2)]
    copied = f"cp -r '{disk}/store' '{tmp_path}/after'"
    arguments = f"'{disk}' '{json.dumps(given)}' '{json.dumps(plan)}'"
    done = run_with_disk(f"$PYTHON '{script}' {arguments} && {copied}", disk, 50, PYTHONPATH=str(ROOT))
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer[:2] for answer in answers] == [[stage, free] for stage, _, free in plan], done.stderr
    for number, (stage, free, code, err, finished, scratch, again, later) in enumerate(answers):
        assert code == 1, (stage, free, err)
        assert re.fullmatch(
            rf"bertkd: error: storage: {disk}/store\S* cannot be written \(No space left on device; "
            r"[\d.]+ ([KM]i)?B free\); make room and run the same command, which goes on from there",
            err[-1],
        ), err
        assert "Traceback" not in "".join(err)
        assert len(finished) == number // 2
        assert scratch == []
        assert again in ((None,) if not free else (0,)), later
    for stage in COMMANDS:
        require_sound(tmp_path / "after", stage, project)


@pytest.mark.skipif(bool(mount_failure()), reason=mount_failure())
def test_a_full_temporary_directory_is_not_taken_for_the_storage(project, tmp_path):
    disk, script, storage = tmp_path / "disk", tmp_path / "child.py", tmp_path / "store"
    script.write_text(CHILD)
    shutil.copytree(project.store.root, storage, ignore=shutil.ignore_patterns("teacher-*", "softlabels-*"))
    given = [str(project.directory / "small.yaml"), *QUICK, f"storage={storage}", "tracking=none"]
    plan = [("teacher", COMMANDS["teacher"], 1 << 16)]
    done = run_with_disk(
        f"$PYTHON '{script}' '{disk}' '{json.dumps(given)}' '{json.dumps(plan)}'",
        disk,
        10,
        PYTHONPATH=str(ROOT),
        TMPDIR=str(disk),
    )
    _, _, code, err, _, _, again, later = json.loads(done.stdout)
    assert code == 1
    assert re.fullmatch(
        rf"bertkd: error: temporary directory: {disk} \(TMPDIR\) cannot be written \(.*[Nn]o space left on device.*; "
        r"[\d.]+ ([KM]i)?B free\); make room and run the same command, which goes on from there",
        err[-1],
    ), err
    assert again == 0, later
    require_sound(storage, "teacher", project)


@pytest.mark.slow
@pytest.mark.skipif(bool(mount_failure()), reason=mount_failure())
def test_a_full_disk_with_the_database_of_the_runs_on_it(project, tmp_path):
    disk, script = tmp_path / "disk", tmp_path / "child.py"
    script.write_text(CHILD)
    given = [str(project.directory / "small.yaml"), *QUICK, f"storage={disk}/store"]
    plan = [(stage, COMMANDS[stage], 1 << 14) for stage in ("corpus", "teacher")]
    done = run_with_disk(
        f"$PYTHON '{script}' '{disk}' '{json.dumps(given)}' '{json.dumps(plan)}'", disk, 40, PYTHONPATH=str(ROOT)
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 2, done.stderr
    for _, _, code, err, *_, again, later in answers:
        assert code == 1
        assert re.fullmatch(
            r"bertkd: error: (tracking\.uri|storage): .* cannot be written \(.*(disk is full|No space left).*\); "
            "make room and run the same command, which goes on from there",
            err[-1],
        ), err
        assert "Traceback" not in "".join(err), "\n".join(err)
        assert again == 0, later


UNDER_RAY = """
store='{disk}/store'
bertkd="$PYTHON -m bertkd_ray finetune {yaml} {settings} storage=$store tracking=none"
cp -r '{before}' "$store"
free=$(df --output=avail -k '{disk}' | tail -1)
head -c $(((free - 400) * 1024)) /dev/zero > '{disk}/filler'
$bertkd max_failures=0 || echo "code $?"
ls "$store"/*/manifest.json
rm '{disk}/filler'
$bertkd && cp -r "$store" '{after}'
"""


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.skipif(bool(mount_failure()), reason=mount_failure())
def test_a_disk_that_gets_full_with_ray_trains_checkpoints(project, tmp_path):
    """There is room for the first checkpoints; the command that goes on ends with the weights of an undisturbed run."""
    settings = ["teacher.steps=6", "teacher.eval_every=3", "checkpoint_every=1"]
    undisturbed = project.variant(tmp_path / "undisturbed", *settings)
    undisturbed.teacher()
    script = UNDER_RAY.format(
        disk=tmp_path / "disk",
        yaml=project.directory / "small.yaml",
        settings=" ".join([*QUICK, *settings]),
        before=tmp_path / "before",
        after=tmp_path / "after",
    )
    shutil.copytree(artifact_in(Path(project.store.root), "corpus"), tmp_path / "before" / project.corpus().directory)
    done = run_with_disk(script, tmp_path / "disk", 40, OMP_NUM_THREADS="1")
    said, *manifests, _, _ = done.stdout.splitlines()
    assert said == "code 1", done.stderr
    assert len(manifests) == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("bertkd: error: ")]
    staging = tmp_path / "disk" / "store" / STAGING
    assert re.fullmatch(
        rf"bertkd: error: storage: {staging}/[-./\w]+ cannot be written \(No space left on device; "
        r"[\d.]+ ([KM]i)?B free\); make room and run the same command, which goes on from there",
        line,
    )
    assert "Traceback" not in done.stderr
    assert f"finetune  resuming {artifact_in(tmp_path / 'after', 'teacher').name}" in done.stderr
    require_sound(tmp_path / "after", "teacher", undisturbed)
