"""Every file of a finished store is as its manifest says, or the next command that uses it ends in one line."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bertkd_ray.artifacts.lock import hold_lock
from bertkd_ray.cli import main
from bertkd_ray.execution.ray.session import RayRuntime
from tests.helpers.local_project import QUICK, Project

TRIALS = 200
STAGES = ("corpus", "teacher", "softlabels", "student", "translation")
# The command that uses an artifact, and none that could be damaged before it.
USES = {
    "corpus": ["prepare"],
    "teacher": ["finetune"],
    "softlabels": ["extract"],
    "student": ["distill", "--arm", "control"],
    "translation": ["translate", "--arm", "control"],
}

Answer = tuple[int, str, str]
Bertkd = Callable[..., Answer]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """All five artifacts, finished; nobody may compute any of them again."""
    project = Project(tmp_path_factory.mktemp("project"))
    project.labels()
    project.translation()
    return project


@pytest.fixture
def bertkd(capsys, monkeypatch, project) -> Bertkd:
    """A command on the store, in this process."""
    monkeypatch.setattr(RayRuntime, "start", lambda self: pytest.fail("a finished artifact is made again"))

    def call(command: str, *arguments: str) -> Answer:
        given = [str(project.directory / "small.yaml"), *QUICK, "tracking=none"] if command != "validate" else []
        code = main([command, *given, *arguments])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def damaged(project) -> Iterator[Callable[[Path, bytes | None], None]]:
    """Writes a file of the store, or removes it (None), until the test ends."""
    before: dict[Path, bytes | None] = {}

    def put(path: Path, data: bytes | None) -> None:
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)

    def damage(path: Path, data: bytes | None) -> None:
        before.setdefault(path, path.read_bytes() if path.exists() else None)
        put(path, data)

    yield damage
    for path, data in before.items():
        put(path, data)


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def directory_of(project: Project, stage: str) -> Path:
    (found,) = Path(project.store.root).glob(f"{stage}-*")
    return found


def test_a_sound_store_is_used_as_it_is(project, bertkd):
    before = content(Path(project.store.root))
    for command, *options in USES.values():
        code, out, _ = bertkd(command, *options)
        assert code == 0
        assert {line.split()[1] for line in out.splitlines()} == {"cached"}
    assert bertkd("validate", "--artifacts", project.store.root)[:2] == (
        0,
        "ok  5 artifacts, every file as its manifest says\n",
    )
    assert content(Path(project.store.root)) == before


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "missing"),
        ("truncated", "{short} bytes, the manifest says {size}"),
        ("extra", "not in the manifest; move this file elsewhere: {victim}"),
        ("flipped", "its content differs from the manifest's checksum"),
    ],
)
def test_a_damaged_file_is_one_line_and_nothing_is_overwritten(project, bertkd, damaged, stage, kind, said):
    directory = directory_of(project, stage)
    name, size = max(project.store.files(directory.name), key=lambda file: file[1])
    data = (directory / name).read_bytes()
    changed = {"missing": None, "truncated": data[:-1], "flipped": bytes([data[0] ^ 1]) + data[1:], "extra": b""}[kind]
    victim = directory / name if kind != "extra" else directory / "part-999999.parquet"
    damaged(victim, changed)
    before = content(Path(project.store.root))
    command, *options = USES[stage]
    code, out, err = bertkd(command, *options)
    problem = (
        f"{directory.name}/{victim.relative_to(directory)}: {said.format(size=size, short=size - 1, victim=victim)}"
    )
    assert (code, out) == (2, "")
    remedy = "" if kind == "extra" else f"; copy it again, or move the directory {directory} elsewhere to make it again"
    assert err.splitlines()[-1] == f"bertkd: error: {problem}{remedy}"
    assert "Traceback" not in err
    assert content(Path(project.store.root)) == before
    code, out, err = bertkd("validate", "--artifacts", project.store.root)
    assert (code, out, err) == (2, f"{problem}\n", "")


def test_a_flipped_byte_is_not_looked_for_where_sizes_are_enough(project, bertkd, damaged):
    weights = directory_of(project, "teacher") / "model" / "model.safetensors"
    data = weights.read_bytes()
    damaged(weights, data[:-1] + bytes([data[-1] ^ 1]))
    assert bertkd("finetune", "verify=sizes")[0] == 0
    damaged(weights, data[:-1])
    assert bertkd("finetune", "verify=sizes")[0] == 2


def test_every_flipped_byte_is_found(project, bertkd, damaged):
    """One byte anywhere in any file, manifests too; by `validate`, and by the command that uses the artifact."""
    root = Path(project.store.root)
    draw = random.Random(4)
    files = [path for stage in STAGES for path in sorted(directory_of(project, stage).rglob("*")) if path.is_file()]
    missed = []
    for trial in range(TRIALS):
        # Every file first, in turn, then by chance.
        path = files[trial] if trial < len(files) else draw.choice(files)
        data = path.read_bytes()
        where, mask = draw.randrange(len(data)), draw.randrange(1, 256)
        damaged(path, data[:where] + bytes([data[where] ^ mask]) + data[where + 1 :])
        artifact = path.relative_to(root).parts[0]
        command, *options = USES[artifact.partition("-")[0]]
        shown = str(path.relative_to(root))
        for answer in (bertkd("validate", "--artifacts", str(root)), bertkd(command, *options)):
            code, out, err = answer
            *_, line = (out + err).splitlines()
            if code != 2 or shown not in line or "Traceback" in err:
                missed.append((shown, where, mask, code, line))
        damaged(path, data)
    assert missed == []


def test_a_manifest_of_another_schema_version(project, bertkd, damaged):
    path = directory_of(project, "corpus") / "manifest.json"
    damaged(path, path.read_bytes().replace(b'"schema": 1', b'"schema": 7'))
    code, _, err = bertkd("distill")
    assert (code, err.splitlines()[-1]) == (
        2,
        f"bertkd: error: {path.parent.name}/manifest.json: schema 7, this version reads 1; "
        "use another storage or the version that wrote it",
    )


def test_shards_of_another_teacher(project, bertkd, tmp_path, damaged):
    """Soft labels of another store under the name of those that are looked for."""
    labels = directory_of(project, "softlabels")
    other = Project(project.directory, f"storage={tmp_path / 'store'}", "extract.passes=3")
    made = other.labels()
    assert made.directory != labels.name
    for name in content(labels):
        theirs = Path(other.store.root) / made.directory / name
        damaged(labels / name, theirs.read_bytes())
    code, _, err = bertkd("extract")
    assert code == 2
    said = f"{labels.name}/manifest.json: is that of {made.directory}; give the directory its name back, or move it"
    assert err.splitlines()[-1] == f"bertkd: error: {said}"


def test_a_second_driver_is_told_of_the_first(project, bertkd):
    before = content(Path(project.store.root))
    directory = _student_of_another_seed(project)
    with hold_lock(project.store, directory):
        code, out, err = bertkd("distill", "--arm", "control", "seed=5")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"bertkd: error: {directory}: process ")
    assert "has been making it since " in err
    assert content(Path(project.store.root)) == before


def _student_of_another_seed(project: Project) -> str:
    from bertkd_ray.student import distill

    config = project.variant(Path(project.store.root), "seed=5").config.arm_configs()["control"]
    return distill.pending_artifact(config, project.store, {"corpus": project.corpus().fingerprint}).directory
