"""`bertkd submit`: what is refused before anything is sent, what travels, and how a job's end comes back."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bertkd_ray.cli import main
from bertkd_ray.core.errors import ReportedError, UserError
from bertkd_ray.execution import submission as submit
from bertkd_ray.execution.submission import SubmittedJob, packed
from tests.helpers.services import ROOT, Nodes, environment, free_port, ray_nodes
from tests.helpers.small_config import write_config

SECRET = "value-that-is-nobodys-business"


class Answer(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A working directory with a configuration; also this process's."""
    directory = tmp_path / "project"
    directory.mkdir()
    (directory / "c.yaml").write_text("name: x\nstorage: /shared/x\ncorpus: {source: demo}\n", encoding="utf-8")
    monkeypatch.chdir(directory)
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return directory


Bertkd = Callable[..., Answer]


@pytest.fixture
def bertkd(capsys) -> Bertkd:
    def call(*arguments: str) -> Answer:
        return Answer(main(list(arguments)), *capsys.readouterr())

    return call


RELATIVE = {
    "sqlite:///mlflow.db": True,
    "sqlite+pysqlite:///./mlflow.db": True,
    "file:mlruns": True,
    "./mlruns": True,
    "sqlite:////shared/mlflow.db": False,
    "file:///shared/mlruns": False,
    "/shared/mlruns": False,
    "http://mlflow:5000": False,
    "postgresql://mlflow@db/runs": False,
    "databricks": False,
    "none": False,
}
MISTAKES = {
    "unknown key": (["teacher.stepz=1"], "unknown key teacher.stepz; did you mean teacher.steps?"),
    "relative storage": (["storage=artifacts"], "storage: artifacts is relative, and a job's working directory is"),
    "tracking in the package": (
        ["tracking.uri=sqlite:///mlflow.db"],
        "tracking.uri: sqlite:///mlflow.db lies in the job's",
    ),
    "a directory of runs": (
        ["tracking.uri=mlruns"],
        "tracking.uri: mlruns lies in the job's working directory, which is",
    ),
    "credentials of a store": (["storage=s3://key:secret@bucket"], "storage: its credentials would stand in the job's"),
    "credentials of a server": (["tracking.uri=http://u:secret@h"], "tracking.uri: its credentials would stand in the"),
    "unset variable": (["--env", "NOBODY_SET_THIS"], "--env NOBODY_SET_THIS: is not set here; export it"),
    "no directory": (["--working-dir", "elsewhere"], "which is all that the job sees; set --working-dir"),
    "no URL": (["--address", "localhost:8265"], "--address localhost:8265: is no URL; the job server's is http://HOST"),
    "nobody there": (["--address", "http://127.0.0.1:9"], "http://127.0.0.1:9: no job server answers (<urlopen error"),
}


def test_runs_of_the_environment_would_be_lost_too(project, bertkd, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs/mlflow.db")
    code, out, err = bertkd("submit", "c.yaml")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "MLFLOW_TRACKING_URI: sqlite:///runs/mlflow.db lies in the job's working directory" in err


@pytest.mark.parametrize(("uri", "relative"), RELATIVE.items(), ids=RELATIVE)
def test_which_runs_would_be_lost_with_the_package(uri, relative):
    assert submit._is_relative(uri) is relative


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_sent(project, bertkd, arguments, message):
    code, out, err = bertkd("submit", "c.yaml", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("bertkd: error: ")
    assert message in err


def test_a_server_that_keeps_silent_is_one_line_within_seconds(project, bertkd, monkeypatch):
    monkeypatch.setattr(submit, "_ANSWER_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        code, out, err = bertkd("submit", "c.yaml", "--address", address)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "no job server answers (timed out)" in err
    assert "RAY_API_SERVER_ADDRESS" not in os.environ


def test_an_address_of_the_environment_is_asked_too(project, bertkd, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", f"http://127.0.0.1:{free_port()}")
    code, _, err = bertkd("submit", "c.yaml")
    assert code == 2
    assert "the cluster (RAY_API_SERVER_ADDRESS, RAY_ADDRESS or this machine's): no job server answers" in err


def test_a_study_is_checked_as_a_study(project, bertkd):
    (project / "s.yaml").write_text(
        "name: s\nbase: c.yaml\narms: {a: {}, control: {kd.alpha: 0}}\nseeds: [1, 1]\n", encoding="utf-8"
    )
    code, _, err = bertkd("submit", "s.yaml", "--job", "study")
    assert code == 2
    assert "1 stands there more than once" in err
    SubmittedJob("s.yaml", ["seeds=[1]"], "study").check()


@pytest.mark.parametrize(
    ("storage", "tracking", "variable", "said"),
    [
        ("s3://bucket/x", [], "", True),
        ("s3://bucket/x", ["tracking=none"], "", False),
        ("s3://bucket/x", [], "http://mlflow:5000", False),
        ("/shared/x", [], "", False),
    ],
    ids=["nothing", "a key", "the variable", "a directory"],
)
def test_storage_that_has_no_place_for_runs_is_said(project, capsys, monkeypatch, storage, tracking, variable, said):
    if variable:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", variable)
    SubmittedJob("c.yaml", [f"storage={storage}", *tracking]).check()
    line = "submit  tracking.uri is not set: the job fails unless the nodes set MLFLOW_TRACKING_URI\n"
    assert capsys.readouterr().err == (line if said else "")


def test_the_command_is_quoted_for_the_shell(project):
    (project / "my configs").mkdir()
    shutil.copy("c.yaml", "my configs/c.yaml")
    job = SubmittedJob(str(project / "my configs" / "c.yaml"), ["workers=[1, 4]", "name=a;b"], "distill")
    assert job.entrypoint() == ("python -m bertkd_ray distill 'my configs/c.yaml' 'workers=[1, 4]' 'name=a;b'")


def test_only_named_variables_travel_and_the_files_stay(project, monkeypatch):
    (project / "deploy").mkdir()
    (project / "deploy" / "runtime_env.yaml").write_text(
        "env_vars: {A: '1', B: '1'}\nexcludes: [x]\n", encoding="utf-8"
    )
    for name in ("B", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, f"{name} here")
    assert SubmittedJob("c.yaml", env=["B", "HF_TOKEN"]).runtime_env() == {
        "env_vars": {
            "A": "1",
            "B": "B here",
            "HF_TOKEN": "HF_TOKEN here",
            "MLFLOW_TRACKING_URI": "MLFLOW_TRACKING_URI here",
        },
        "excludes": ["x"],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("env_vars: {A: 1}", r"runtime_env\.yaml: env_vars must be names with text"),
        ("env_vars: [A]", r"runtime_env\.yaml: env_vars must be names with text"),
        ("working_dir: /x", r"runtime_env\.yaml: working_dir is what --working-dir says; remove it"),
        ("- x", r"runtime_env\.yaml: not a configuration"),
    ],
)
def test_a_runtime_env_that_ray_would_choke_on(project, text, message):
    (project / "deploy").mkdir()
    (project / "deploy" / "runtime_env.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        SubmittedJob("c.yaml").runtime_env()


def test_the_shipped_runtime_env_is_one():
    assert (
        SubmittedJob("configs/demo.yaml", working_dir=str(ROOT)).runtime_env()["env_vars"]["TOKENIZERS_PARALLELISM"]
        == "false"
    )


def test_what_ignore_files_name_stays_here(project):
    for name in ("artifacts/big", "inner/data", "inner/kept", "notes", ".git/config", "package/__pycache__/x.pyc"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_bytes(b"x")
    (project / ".gitignore").write_text("artifacts/\n/inner/data\n", encoding="utf-8")
    (project / ".rayignore").write_text("notes\n", encoding="utf-8")
    with packed(".", ["package"]) as (package, names):
        assert names == {"c.yaml", "inner/kept", ".gitignore", ".rayignore"}
        assert 0 < package.stat().st_size < 2000
    assert not package.exists()


SECRETS = [
    ".env",
    "deploy/.env",
    ".env.local",
    "prod.env",
    "certificates/server.pem",
    "tls.KEY",
    "ssh/id_rsa",
    "id_ed25519",
    "credentials.json",
    ".aws/credentials",
    "client_secret_1.json",
    ".aws/config",
    "bob_accessKeys.csv",
    "rootkey.csv",
    "kubeconfig.yaml",
    ".config/gh/hosts.yml",
    ".hf_token",
    "token",
    "pip.conf",
    "auth.json",
    "deploy/terraform.tfstate",
    "terraform.tfstate.backup",
    ".azure/msal_token_cache.json",
    ".mylogin.cnf",
    ".env-local",
    "kaggle.json",
    "prod.tfvars",
    ".bash_history",
    "netrc.txt",
    "service-account.json",
    "secrets.yaml",
    ".netrc",
    ".docker/config.json",
    "cache/huggingface/token",
    ".huggingface/token",
    ".databrickscfg",
    ".vault-token",
    "secret.yaml",
    "aws_credentials",
    "id_ed25519_sk",
    "id_rsa.bak",
    ".env~",
]


@pytest.mark.parametrize("name", SECRETS)
def test_a_file_that_looks_like_a_secret_is_named_and_stays_here(project, name):
    (project / name).parent.mkdir(parents=True, exist_ok=True)
    (project / name).write_text("harmless", encoding="utf-8")
    with pytest.raises(UserError) as refused, packed(".", []):
        pytest.fail("it was packed")
    assert str(refused.value) == (
        f"--working-dir .: {name} looks like a secret and would travel with the job; "
        "name it in .rayignore, or move it away"
    )
    (project / ".rayignore").write_text(f"{name}\n", encoding="utf-8")
    with packed(".", []) as (_, names):
        assert names == {"c.yaml", ".rayignore"}


def test_a_link_to_a_secret_and_a_private_key_by_another_name_stay_here(project, tmp_path):
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "id_rsa").write_text("harmless", encoding="utf-8")
    (project / "notes.txt").symlink_to(tmp_path / "keys" / "id_rsa")
    with pytest.raises(UserError, match=r"notes\.txt looks like a secret"), packed(".", []):
        pytest.fail("it was packed")
    (project / "notes.txt").unlink()
    (project / "notes.txt").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nno key\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"notes\.txt looks like a secret"), packed(".", []):
        pytest.fail("it was packed")


KEYS = {
    "after a mark of the byte order": "\ufeff-----BEGIN RSA PRIVATE KEY-----\nno key\n",
    "after a comment": "# mine\n-----BEGIN PRIVATE KEY-----\nno key\n",
    "in a variable": 'KEY="-----BEGIN RSA PRIVATE KEY-----\\nno key"',
    "in a service account's JSON": '{"type": "x", "private_key": "-----BEGIN PRIVATE KEY-----\\nno key"}',
}


@pytest.mark.parametrize("text", KEYS.values(), ids=KEYS)
def test_a_private_key_is_found_wherever_it_begins(project, text):
    (project / "notes.txt").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"notes\.txt looks like a secret"), packed(".", []):
        pytest.fail("it was packed")


def test_a_configuration_with_the_password_of_an_address_stays_here(project):
    (project / "d.yaml").write_text("tracking: {uri: 'https://bob:pw@server'}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"d\.yaml looks like a secret"), packed(".", []):
        pytest.fail("it was packed")
    (project / "d.yaml").rename(project / "d.yaml~")
    with pytest.raises(UserError, match=r"d\.yaml~ looks like a secret"), packed(".", []):
        pytest.fail("it was packed")
    (project / "d.yaml~").unlink()
    (project / "d.yaml").write_text("tracking: {uri: 'https://${USER}:${PASSWORD}@server'}\n", encoding="utf-8")
    (project / "README.md").write_text("ssh://git:pw@server is no way to write it", encoding="utf-8")
    with packed(".", []) as (_, names):
        assert names == {"c.yaml", "d.yaml", "README.md"}


@pytest.mark.parametrize("directory", [False, True])
def test_what_a_link_brings_from_outside_stays_there(project, tmp_path, directory):
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "diary.txt").write_text("x", encoding="utf-8")
    (project / "link").symlink_to(tmp_path / "private" if directory else tmp_path / "private" / "diary.txt")
    (project / "inside").symlink_to("c.yaml")
    name = "link/diary.txt" if directory else "link"
    with pytest.raises(UserError, match=f": {name} is behind a link that leads out of it"), packed(".", []):
        pytest.fail("it was packed")
    (project / ".rayignore").write_text("link\n", encoding="utf-8")
    with packed(".", []) as (_, names):
        assert names == {"c.yaml", "inside", ".rayignore"}


def test_the_password_of_a_tracking_server_travels_only_when_it_is_asked_for(project, bertkd, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://bob:pw@server")
    code, out, err = bertkd("submit", "c.yaml")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "MLFLOW_TRACKING_URI: its credentials would stand in the job's environment" in err
    assert "pw" not in err
    asked = submit.SubmittedJob("c.yaml", env=["MLFLOW_TRACKING_URI"])
    assert asked.runtime_env()["env_vars"] == {"MLFLOW_TRACKING_URI": "https://bob:pw@server"}


def test_the_runtime_environment_brings_no_password(project):
    (project / "deploy").mkdir()
    (project / ".rayignore").write_text("deploy\n", encoding="utf-8")
    job = submit.SubmittedJob("c.yaml")
    for tree in ("env_vars: {MLFLOW_TRACKING_URI: 'https://bob:pw@server'}", "pip: [--index-url=https://u:tok@server]"):
        (project / "deploy" / "runtime_env.yaml").write_text(tree, encoding="utf-8")
        with pytest.raises(UserError, match=r"deploy/runtime_env.yaml: its credentials would stand where Ray shows"):
            job.runtime_env()


def test_what_compose_has_the_user_write_is_in_both_ignore_files(project):
    (project / "deploy").mkdir()
    for name in (".env", "deploy/.env", "deploy/.env.production"):
        (project / name).write_text("PASSWORD=none", encoding="utf-8")
    for ignore in (".rayignore", ".gitignore"):
        shutil.copy(ROOT / ignore, project / ignore)
        with packed(".", []) as (_, names):
            assert names == {"c.yaml", ignore}
        (project / ignore).unlink()


def test_the_checkout_itself_can_be_sent(tmp_path):
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    if not names:
        pytest.skip("this is no checkout")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name, follow_symlinks=False)
    with packed(str(tmp_path), []) as (_, sent):
        assert {"configs/demo.yaml", "bertkd_ray/__main__.py", "deploy/runtime_env.yaml"} <= sent


def test_examples_public_keys_and_modules_travel(project):
    harmless = {".env.example", "id_rsa.pub", "secrets.py", "keys.txt", "environment.env.template", "tokenizer.json"}
    for name in harmless:
        (project / name).write_text("x", encoding="utf-8")
    with packed(".", []) as (_, names):
        assert names == {"c.yaml", *harmless}


def test_a_package_over_rays_limit_is_one_line(project, monkeypatch):
    import ray._private.runtime_env.packaging as packaging

    (project / "noise").write_bytes(os.urandom(4000))
    monkeypatch.setattr(packaging, "GCS_STORAGE_MAX_SIZE", 2048)
    with (
        pytest.raises(
            UserError, match=r"--working-dir \.: [\d.]+ KiB packed, and Ray takes less than 2\.00 KiB; name in"
        ),
        packed(".", []),
    ):
        pytest.fail("it was packed")


@pytest.mark.parametrize(
    ("status", "driver", "code", "reason"),
    [
        ("SUCCEEDED", 0, 0, ""),
        ("FAILED", 7, 7, " with exit code 7"),
        ("FAILED", -9, 137, " with exit code 137"),
        ("FAILED", None, 1, " (no such package)"),
        ("STOPPED", None, 1, ""),
    ],
)
def test_exit_codes(status, driver, code, reason):
    from ray.job_submission import JobDetails

    info = JobDetails(
        type="SUBMISSION", status=status, entrypoint="x", driver_exit_code=driver, message="no such\npackage"
    )
    assert (submit._exit_code(info), submit._reason(info)) == (code, reason)


class Broken:
    """A client whose log breaks off, and what it knows of the job then."""

    def __init__(self, outcome: Exception | str) -> None:
        self._outcome = outcome

    def get_address(self) -> str:
        return "http://head:8265"

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        yield "half a line"
        raise RuntimeError("WebSocket connection closed unexpectedly with close code 1006")

    def get_job_info(self, job: str) -> Any:
        from ray.job_submission import JobDetails

        if isinstance(self._outcome, Exception):
            raise self._outcome
        return JobDetails(type="SUBMISSION", status=self._outcome, entrypoint="x", driver_exit_code=0)


def test_a_log_that_breaks_off_is_no_end_of_the_job(capsys):
    job = submit.Submitted(Broken("SUCCEEDED"), "job-1")
    out = io.StringIO()
    assert submit.follow(job, out) == 0
    assert out.getvalue() == "half a line"
    err = capsys.readouterr().err.splitlines()
    assert "the log broke off (WebSocket connection closed unexpectedly with close code 1006)" in err[0]
    assert err[0].endswith("ray job logs --follow --address http://head:8265 job-1 shows all of it")
    assert err[1] == "submit  job-1 succeeded"


def test_a_cluster_that_is_gone_is_one_line():
    job = submit.Submitted(Broken(ConnectionError("refused")), "job-1")
    with pytest.raises(
        ReportedError, match=r"http://head:8265: answers no more \(refused\); job-1 may go on: ray"
    ) as raised:
        submit.follow(job, io.StringIO())
    assert raised.value.exit_code == 1


# --- against a job server ---------------------------------------------------------------------------------------------

_STAND_IN = """\
import json, os, sys, time
print(json.dumps({"argv": sys.argv[1:], "files": sorted(os.listdir()), "env": dict(os.environ)}), flush=True)
if "wait" in sys.argv[2]:
    print("waiting", flush=True)
    time.sleep(300)
if "die" in sys.argv[2]:
    os.kill(os.getpid(), 9)
sys.exit(7)
"""
"""A `bertkd_ray` that says what it sees and fails; the first in the job's path."""


@pytest.fixture(scope="module")
def credentials(tmp_path_factory) -> dict[str, str]:
    """How Ray's token authentication is told of its token."""
    token = tmp_path_factory.mktemp("ray") / "auth_token"
    token.write_text("0123456789abcdef" * 4, encoding="ascii")
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}


@pytest.fixture(scope="module")
def cluster(credentials) -> Iterator[Nodes]:
    with ray_nodes(2, env=environment(**credentials)) as nodes:
        yield nodes


@pytest.fixture
def stand_in(project) -> Path:
    package = project / "bertkd_ray"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(_STAND_IN, encoding="utf-8")
    for name in ("wait", "die"):
        shutil.copy(project / "c.yaml", project / f"{name}.yaml")
    (project / "private").write_text("x", encoding="utf-8")
    (project / ".gitignore").write_text("private\n", encoding="utf-8")
    return project


def start(directory: Path, cluster: Nodes, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """`bertkd submit` of this checkout from a project's directory."""
    # Whatever runs the tests in the background may have them ignore SIGINT, which children would inherit.
    taken = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
    script = f"{taken}; sys.path[0] = {str(ROOT)!r}; from bertkd_ray.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", script, "submit", *arguments, "--address", cluster.job_server]
    return subprocess.Popen(
        command, cwd=directory, env=environment(**variables), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(process: subprocess.Popen[str]) -> Answer:
    try:
        out, err = process.communicate(timeout=180)
    finally:
        process.kill()
    return Answer(process.returncode, out, err)


def until(process: subprocess.Popen[str], text: str) -> str:
    """What a process has printed once a line says something."""
    assert process.stdout is not None
    lines = ""
    for line in process.stdout:
        lines += line
        if text in line:
            return lines
    pytest.fail(f"{text!r} never came:\n{lines}\n{process.stderr.read() if process.stderr else ''}")


@pytest.mark.slow
@pytest.mark.ray
class TestOnACluster:
    def test_follow_shows_the_log_and_ends_with_the_jobs_exit_code(self, stand_in, cluster, credentials):
        variables = {"MLFLOW_TRACKING_URI": "http://mlflow:5000", "STORE_KEY": SECRET, "UNASKED": SECRET}
        arguments = ["c.yaml", "storage=/shared/a b", "--follow", "--env", "STORE_KEY"]
        code, out, err = ended(start(stand_in, cluster, *arguments, **credentials, **variables))
        assert code == 7, err
        lines = out.splitlines()
        job = lines[0].split()[1]
        assert lines[0] == f"Job:    {job}"
        assert lines[1] == f"Follow: ray job logs --follow --address {cluster.job_server} {job}"
        assert lines[2] == f"Stop:   ray job stop --address {cluster.job_server} {job}"
        seen = json.loads(next(line for line in lines if line.startswith("{")))
        assert seen["argv"] == ["run", "c.yaml", "storage=/shared/a b"]
        assert seen["files"] == [".gitignore", "bertkd_ray", "c.yaml", "die.yaml", "wait.yaml"]
        assert seen["env"]["STORE_KEY"] == SECRET
        assert seen["env"]["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
        assert "UNASKED" not in seen["env"]
        assert err.splitlines()[0].startswith("submit  .: 6 files, ")
        assert err.splitlines()[-1] == f"submit  {job} failed with exit code 7"
        assert SECRET not in err + "".join(lines[:3])

    def test_json_is_one_object_and_the_log_goes_to_stderr(self, stand_in, cluster, credentials):
        code, out, err = ended(start(stand_in, cluster, "die.yaml", "--follow", "--json", **credentials))
        answer = json.loads(out)
        assert code == answer["exit_code"] == 137
        assert set(answer) == {"job", "address", "follow", "stop", "exit_code"}
        assert answer["address"] == cluster.job_server
        assert '"argv": ["run", "die.yaml"]' in err

    def test_ctrl_c_leaves_the_job_alone(self, stand_in, cluster, credentials):
        follower = start(stand_in, cluster, "wait.yaml", "--follow", **credentials)
        stop = until(follower, "Stop:").splitlines()[-1].removeprefix("Stop:   ")
        until(follower, "waiting")
        follower.send_signal(signal.SIGINT)
        code, _, err = ended(follower)
        job = stop.split()[-1]
        assert (code, err.splitlines()[-1]) == (1, f"submit  {job} goes on; to end it: {stop}")
        assert self._ray(credentials, *stop.replace("stop", "status").split()[1:]).stdout.count("RUNNING") == 1
        assert self._ray(credentials, *stop.split()[1:]).returncode == 0

    def test_a_job_that_is_stopped_ends_its_follower(self, stand_in, cluster, credentials):
        follower = start(stand_in, cluster, "wait.yaml", "--follow", **credentials)
        stop = until(follower, "Stop:").splitlines()[-1].removeprefix("Stop:   ")
        until(follower, "waiting")
        assert self._ray(credentials, *stop.split()[1:]).returncode == 0
        code, _, err = ended(follower)
        assert (code, err.splitlines()[-1]) == (1, f"submit  {stop.split()[-1]} stopped")

    @pytest.mark.parametrize("token", [None, "another" * 8], ids=["no token", "another token"])
    def test_a_token_that_does_not_fit_is_one_line(self, stand_in, cluster, tmp_path, token):
        variables = {"HOME": str(tmp_path)}
        if token is not None:
            variables.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token)
        code, out, err = ended(start(stand_in, cluster, "c.yaml", **variables))
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert f"--address {cluster.job_server}: takes no job without its token (Authentication " in err
        assert "set RAY_AUTH_MODE=token" in err
        assert token is None or token not in err

    def test_a_stage_runs_on_the_cluster(self, project, cluster, credentials, tmp_path):
        """The command itself: its package travels with the configuration, and it attaches to the cluster."""
        shutil.copytree(ROOT / "bertkd_ray", project / "bertkd_ray", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(write_config(tmp_path / "small", tracking="none"), project / "small.yaml")
        code, out, err = ended(start(project, cluster, "small.yaml", "--job", "prepare", "--follow", **credentials))
        assert code == 0, out + err
        (corpus,) = (tmp_path / "small" / "artifacts").glob("corpus-*/manifest.json")
        assert f"prepare              done     {corpus.parent}" in out.splitlines()
        code, out, err = ended(
            start(project, cluster, "small.yaml", "teacher.model=/no/such", "--follow", **credentials)
        )
        assert code == 2
        assert "bertkd: error: teacher.model: there is no directory /no/such" in out

    @staticmethod
    def _ray(credentials: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("ray")), *words]
        return subprocess.run(command, env=environment(**credentials), capture_output=True, text=True, check=False)
