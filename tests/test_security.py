"""What is never done with what comes from outside, by the source and by trying; and that no secret is written down."""

from __future__ import annotations

import ast
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from bertkd_ray.cli import main
from bertkd_ray.config import load_config
from bertkd_ray.config.sections import TeacherConfig
from bertkd_ray.pipeline.session import Session
from bertkd_ray.teacher.model import build_teacher
from bertkd_ray.training.context import TrainJob
from tests.helpers.failing_storage import FaultyStorage
from tests.helpers.local_project import QUICK, InProcessRuntime
from tests.helpers.small_config import write_config

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [
    path
    for room in ("bertkd_ray", "jobs", "benchmarks", "deploy", "tools")
    for path in sorted((ROOT / room).rglob("*.py"))
]

UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "joblib", "dill", "cloudpickle"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__", "mktemp", "system", "popen", "read_pickle", "unpack_archive"}
SAFE_CALLS = {"re.compile", "torch.compile"}
UNSAFE_NAMES = {"Loader", "FullLoader", "UnsafeLoader", "full_load", "unsafe_load", "_create_unverified_context"}
UNSAFE_KEYWORDS = {"trust_remote_code", "shell", "allow_pickle"}
"""May only be given as False."""


def unsafe_lines(source: str) -> Iterator[str]:
    """What of a module's source could run what it reads, by line."""
    for node in ast.walk(ast.parse(source)):
        for what in _unsafe(node):
            yield f"line {getattr(node, 'lineno', 0)}: {what}"


def _unsafe(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        yield from (name for name in names if name.split(".")[0] in UNSAFE_MODULES)
    elif isinstance(node, ast.Attribute) and node.attr in UNSAFE_NAMES:
        yield node.attr
    elif isinstance(node, ast.Call):
        yield from _unsafe_call(node)


def _unsafe_call(node: ast.Call) -> Iterator[str]:
    called = ast.unparse(node.func)
    name = called.rpartition(".")[2]
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    # A model's `eval()` has no argument.
    if name in UNSAFE_CALLS and called not in SAFE_CALLS and (name != "eval" or node.args):
        yield f"{called}()"
    yield from (f"{key}={given[key]}" for key in UNSAFE_KEYWORDS & set(given) if given[key] != "False")
    # Of `transformers`, which asks on the terminal unless it is told not to run code; torch's takes a tensor.
    if name == "from_pretrained" and called != "nn.Embedding.from_pretrained" and "trust_remote_code" not in given:
        yield f"{called} without trust_remote_code=False"
    if called == "torch.load" and given.get("weights_only") != "True":
        yield "torch.load without weights_only=True"
    if called in ("np.load", "numpy.load") and given.get("allow_pickle", "False") != "False":
        yield "np.load with pickles"
    if called == "yaml.load":
        yield "yaml.load"
    if name == "extractall" and given.get("filter") != "'data'":
        yield "an archive extracted without filter='data'"
    if given.get("verify") == "False":
        yield "certificates unchecked"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_runs_what_it_reads(path):
    assert list(unsafe_lines(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "bad",
    [
        "import pickle",
        "from joblib import load",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=flag)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.FullLoader)",
        "yaml.unsafe_load(text)",
        "class L(yaml.Loader): pass",
        "archive.extractall(path)",
        "archive.extractall(path, filter='tar')",
        "shutil.unpack_archive(a, b)",
        "AutoModel.from_pretrained(name)",
        "tokenizer_class.from_pretrained(name, **options)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=flag)",
        "subprocess.run(command, shell=True)",
        "os.system(command)",
        "eval(text)",
        "exec(text)",
        "np.load(path, allow_pickle=True)",
        "pd.read_pickle(path)",
        "tempfile.mktemp()",
        "requests.get(url, verify=False)",
    ],
)
def test_the_search_finds(bad):
    assert list(unsafe_lines(bad))


def test_the_search_lets_pass():
    good = "model.eval()\nre.compile(x)\ntorch.load(p, weights_only=True)\narchive.extractall(p, filter='data')"
    good += "\nAutoModel.from_pretrained(name, trust_remote_code=False)\nnn.Embedding.from_pretrained(weights)"
    assert list(unsafe_lines(good)) == []


class Bomb:
    """Writes a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path, ...]]:
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path) -> Path:
    """Is there when foreign code has run."""
    return tmp_path / "mark"


def test_the_bomb_is_one(mark):
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()


def test_a_checkpoint_with_objects_in_it_is_refused(tmp_path, mark):
    from bertkd_ray.training.checkpoint import read_checkpoint
    from bertkd_ray.training.context import World

    torch.save({"model": Bomb(mark)}, tmp_path / "training.pt")
    (tmp_path / "progress.json").write_text("{}")
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        read_checkpoint(tmp_path, World())
    assert not mark.exists()


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("project")
    write_config(directory)
    return directory


def test_a_bert_with_code_of_its_own_is_loaded_without_it(project, tmp_path, mark):
    import numpy as np

    bert = tmp_path / "bert"
    bert.mkdir()
    for path in (project / "bert").iterdir():
        (bert / path.name).write_bytes(path.read_bytes())
    settings = json.loads((bert / "config.json").read_text())
    settings["auto_map"] = {"AutoModel": "modeling.Own", "AutoConfig": "modeling.OwnConfig"}
    (bert / "config.json").write_text(json.dumps(settings))
    (bert / "modeling.py").write_text(f"from pathlib import Path\nPath({str(mark)!r}).touch()\n")
    (bert / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(mark)))
    assert main(["validate", str(project / "small.yaml"), f"teacher.model={bert}"]) == 0
    build_teacher(str(bert), np.arange(8, dtype=np.int32), TeacherConfig(), attention="eager", seed=1)
    (bert / "model.safetensors").unlink()
    assert main(["validate", str(project / "small.yaml"), f"teacher.model={bert}"]) == 2
    assert not mark.exists()


def test_published_ports_are_this_machines():
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))["services"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert [port for port in ports if not str(port).startswith("127.0.0.1:")] == []


LISTENERS = """
import glob, os, re, sys
from bertkd_ray.cli import main
from bertkd_ray.config import load_config
main(["validate", "nowhere.yaml"])  # sets the environment as every command does
from bertkd_ray.config import load_config
from bertkd_ray.execution.ray.session import RayRuntime
runtime = RayRuntime(load_config("configs/demo.yaml"))
runtime.start()

def family(pid):
    yield pid
    for listing in glob.glob(f"/proc/{pid}/task/*/children"):
        for child in open(listing).read().split():
            yield from family(child)

sockets = set()
for pid in family(os.getpid()):
    for link in glob.glob(f"/proc/{pid}/fd/*"):
        try:
            found = re.fullmatch(r"socket:\\[(\\d+)\\]", os.readlink(link))
        except OSError:
            continue
        if found:
            sockets.add(found[1])
for table in ("tcp", "tcp6"):
    for line in open(f"/proc/net/{table}").readlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[9] in sockets:
            print(fields[1].rpartition(":")[0])
runtime.close()
"""


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="sockets are looked up in /proc")
@pytest.mark.parametrize("address", [None, "", "local"])
def test_a_session_of_this_machine_listens_on_it_alone(monkeypatch, address):
    for name in ("RAY_ADDRESS", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"):
        monkeypatch.delenv(name, raising=False)
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    done = subprocess.run([sys.executable, "-c", LISTENERS], cwd=ROOT, capture_output=True, text=True, check=False)
    addresses = done.stdout.split()
    assert len(addresses) > 3, done.stderr
    # 127.0.0.1 as the kernel writes it, and the same as IPv6.
    assert set(addresses) <= {"0100007F", "0000000000000000FFFF00000100007F"}


IMPORTS = """
import ray
from bertkd_ray.config import load_config
from bertkd_ray.execution.ray.session import RayRuntime
from bertkd_ray.pipeline.pool import process_pool

def origin():
    import decoy_or_none
    return decoy_or_none.__file__

def outcome(call):
    try:
        return call()
    except Exception as error:
        return type(error).__name__

if __name__ == "__main__":
    with process_pool(1, quiet=True) as pool:
        print(pool.submit(len, "abc").result())
    runtime = RayRuntime(load_config("c.yaml"))
    runtime.start()
    print(outcome(lambda: ray.get(ray.remote(origin).remote())))
    runtime.close()
"""


@pytest.mark.slow
@pytest.mark.ray
def test_processes_import_nothing_of_the_working_directory(tmp_path):
    """A script elsewhere, as the console script is; the directory holds modules of the standard library's names."""
    work, script = tmp_path / "work", tmp_path / "scripts" / "driver.py"
    work.mkdir()
    script.parent.mkdir()
    script.write_text(IMPORTS, encoding="utf-8")
    (work / "c.yaml").write_text("name: x\ncorpus: { source: demo }\n", encoding="utf-8")
    (work / "decoy_or_none.py").write_text("", encoding="utf-8")
    for name in ("pickle", "socket"):
        (work / f"{name}.py").write_text("import os; os._exit(3)", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=work, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["3", "RayTaskError(ModuleNotFoundError)"], done.stderr


SECRET = "s3cr3t"


def test_no_secret_is_written_down(project, tmp_path, monkeypatch, capsys):
    """Manifests, reports, runs, output: storage and corpus are reached with a password and a token."""
    monkeypatch.setattr(Session, "runtime", InProcessRuntime())
    monkeypatch.setattr(InProcessRuntime, "close", lambda self: None, raising=False)
    user, token, text = f"faulty://KEY:{SECRET}@", f"?token={SECRET}", project / "text"
    given = [
        str(project / "small.yaml"),
        *QUICK,
        f"storage={user}{tmp_path}/store{token}",
        f"corpus.train.src={user}{text}/train.de{token}",
        f"corpus.train.tgt={user}{text}/train.en",
        f"tracking.uri=sqlite:///{tmp_path}/runs.db",
    ]
    said = []
    for side in ("de", "en"):
        (text / f"train.{side}").write_bytes(b"".join(b"%d x\n" % number for number in range(300)))
    with FaultyStorage():
        for command in (["run"], ["run", "--json"], ["inspect"], ["inspect", "--json"], ["validate"], ["distill"]):
            code = main([command[0], *given, *command[1:]])
            said.append(capsys.readouterr())
            assert code == 0, said[-1].err
    assert SECRET not in "".join(part for parts in said for part in parts)
    shown = json.loads(said[1].out)["stages"]["prepare"]["path"]
    assert re.fullmatch(rf"faulty://\*\*\*@{tmp_path}/store/corpus-[0-9a-f]+\?token=\*\*\*", shown)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 30
    assert [path for path in written if SECRET.encode() in path.read_bytes()] == []


def test_no_secret_is_in_the_text_of_a_training_which_ray_train_may_keep(project):
    overrides = [f"tracking.uri=postgresql://user:{SECRET}@host/db", f"corpus.train.src=s3://KEY:{SECRET}@bucket/x"]
    config = load_config(project / "small.yaml", overrides)
    assert config.tracking.uri == f"postgresql://user:{SECRET}@host/db"
    assert SECRET not in str(TrainJob("store", "teacher-1", {"corpus": "corpus-1"}, config))


URIS = f"nosuch://KEY:{SECRET}@host/x?secret={SECRET}"
MISTAKES = [
    [f"storage={URIS}"],
    [f"corpus.train.src={URIS}"],
    [f"corpus={{source: mixed, train: [{{jsonl: '{URIS}'}}], valid: {{jsonl: '{URIS}'}}, test: {{jsonl: '{URIS}'}}}}"],
    [f"corpus={{source: mixed, train: [{{parquet: '{URIS}'}}], valid: {{tsv: x}}, test: {{tsv: x}}}}"],
    [f"corpus={{source: iwslt14, archive: '{URIS}'}}"],
    [f"corpus={{source: iwslt14, archive: 'http://KEY:{SECRET}@127.0.0.1:9/'}}"],
    [f"teacher.model={URIS}"],
    [f"seed={URIS}"],
    [URIS],
    [f"--storage={URIS}"],
]


@pytest.mark.parametrize("overrides", MISTAKES, ids=lambda overrides: overrides[0].partition(URIS)[0][:50])
def test_no_secret_is_in_a_mistakes_line(project, capsys, overrides):
    try:
        code = main(["validate", str(project / "small.yaml"), *overrides])
    except SystemExit as error:  # of the parser of the command line
        code = error.code
    assert code == 2
    out, err = capsys.readouterr()
    assert "***" in err
    assert SECRET not in out + err


@pytest.mark.parametrize("damage", [b"\xff\n", b""], ids=["no UTF-8", "empty"])
def test_no_secret_is_in_what_is_said_of_a_corpus(project, tmp_path, capsys, damage):
    (tmp_path / "a").write_bytes(damage)
    uri = f"faulty://KEY:{SECRET}@{tmp_path}/a"
    with FaultyStorage():
        assert main(["validate", str(project / "small.yaml"), f"corpus.train.src={uri}"]) == 2
    err = capsys.readouterr().err
    assert f"faulty://***@{tmp_path}/a" in err
    assert SECRET not in err
