"""`bertkd submit`: a command as a job of a Ray cluster, through the job server that `ray job submit` speaks to.

The working directory travels as Ray packs it, less what its ignore files name. The configuration is read here first, so
that a mistake in it costs no job. Ray keeps a job's environment in clear, so of the variables set here only
MLFLOW_TRACKING_URI and those that are asked for by name travel.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shlex
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.config import load_config, read_tree
from bertkd_ray.config.study import load_study
from bertkd_ray.core.console import human_bytes, log
from bertkd_ray.core.environment import default_variables
from bertkd_ray.core.errors import ReportedError, UserError, one_line
from bertkd_ray.core.redaction import has_credentials, redacted
from bertkd_ray.tracking.interface import NO_TRACKING

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

# Ray takes its addresses from here first, and only then what it is given.
_ADDRESS = "RAY_API_SERVER_ADDRESS"
_TRACKING_URI = "MLFLOW_TRACKING_URI"
_ANSWER_SECONDS = 10.0
_POLL_SECONDS = 0.5
_LONGEST_REASON = 300
# Files that hold passwords, tokens and private keys, by their names.
_BACKUP = r"(~|\.(bak|backup|old|orig|save|swp|\d+))?"
_SECRET = re.compile(
    r"(.*/)?(\.env([-_.].+)?|.+\.env|\.envrc|.+\.(pem|key|p12|pfx|jks|keystore|ppk|kdbx)|id_(rsa|dsa|ecdsa|ed25519)(_sk)?"
    r"|(aws_?)?credentials(\..+)?|.+[-_]credentials\.json|client_secret.*\.json|service[-_]account.*\.json"
    r"|\.?secrets?(\.(ya?ml|json|toml|ini|env|txt))?|[._]?netrc(\.txt)?|kaggle\.json|\.\w+_history|access_tokens\.db"
    r"|\.(pgpass|pypirc|npmrc|git-credentials|htpasswd|dockercfg|s3cfg|boto|databrickscfg|vault-token|my\.cnf)"
    r"|(.+\.)?kubeconfig(\.ya?ml)?|rclone\.conf|\.?((auth|hf)_)?token|\.docker/config\.json|\.(kube|aws)/config"
    r"|(.*accesskeys|rootkey)\.csv|.+\.tf(state|vars)|pip\.conf|auth\.json|gh/hosts\.yml|msal_token_cache\..+|\.mylogin\.cnf"
    r"|\.?huggingface/(stored_)?tokens?)" + _BACKUP,
    re.IGNORECASE,
)
_PRIVATE_KEY = re.compile(rb'(^|[:=]\s*["\']?)[\s\xef\xbb\xbf]*-----BEGIN [A-Z ]*PRIVATE KEY', re.MULTILINE)
_OF_SETTINGS = re.compile(
    rf"(?i)(.*/)?(config|\.(gitmodules|condarc)|.+\.(ya?ml|json|toml|ini|cfg|conf|sh|ipynb)|requirements.*\.txt){_BACKUP}"
)
_EXAMPLE = re.compile(r".+\.(example|sample|template|dist|py)", re.IGNORECASE)


@dataclass(frozen=True)
class SubmittedJob:
    """What is to be submitted."""

    config: str
    """The configuration (of a study: the study file), as a path here."""
    overrides: Sequence[str] = ()
    command: str = "run"
    """A command of `bertkd` that takes a configuration."""
    working_dir: str = "."
    env: Sequence[str] = ()
    """Names of variables whose values here the job is to have."""

    def check(self) -> None:
        """Raises UserError for what the cluster would find wrong later, or would lose."""
        for override in self.overrides:
            if redacted(override) != override:
                raise UserError(
                    f"{override.partition('=')[0]}: its credentials would stand in the job's command line, which Ray "
                    "shows; give them to the cluster's nodes as variables, or name variables set here with --env"
                )
        if self.command == "study":
            config = load_study(self.config, list(self.overrides)).trials[0].config
        else:
            config = load_config(self.config, list(self.overrides))
        storage = config.storage
        if "://" not in storage and not Path(storage).is_absolute():
            raise UserError(
                f"storage: {storage} is relative, and a job's working directory is removed after it; "
                "set storage= to a directory that all nodes share, or to s3:// or gs://"
            )
        tracking = config.tracking.uri or self.runtime_env()["env_vars"].get(_TRACKING_URI)
        if not tracking and "://" in storage:
            log("tracking.uri is not set: the job fails unless the nodes set MLFLOW_TRACKING_URI", stage="submit")
        if tracking and _is_relative(tracking):
            key = "tracking.uri" if config.tracking.uri else _TRACKING_URI
            raise UserError(
                f"{key}: {tracking} lies in the job's working directory, which is removed after it; give a tracking "
                "server (http://…), sqlite:////ABSOLUTE/FILE or none"
            )

    @cached_property
    def config_inside(self) -> str:
        """The configuration's path below the working directory. Raises UserError where it lies elsewhere."""
        root, file = Path(self.working_dir).resolve(), Path(self.config).resolve()
        if not file.is_relative_to(root):
            raise UserError(f"{self.config}: is not below {root}, which is all that the job sees; set --working-dir")
        return file.relative_to(root).as_posix()

    def entrypoint(self) -> str:
        """The shell command that the cluster runs in its copy of the working directory."""
        return shlex.join(["python", "-m", "bertkd_ray", self.command, self.config_inside, *self.overrides])

    def runtime_env(self) -> dict[str, Any]:
        """`deploy/runtime_env.yaml` of the working directory, with the variables that travel."""
        file = Path(self.working_dir) / "deploy/runtime_env.yaml"
        tree = read_tree(file) if file.exists() else {}
        if "working_dir" in tree:
            raise UserError(f"{file}: working_dir is what --working-dir says; remove it")
        variables = tree.get("env_vars") or {}
        if not isinstance(variables, dict) or not all(isinstance(value, str) for value in variables.values()):
            raise UserError(f"{file}: env_vars must be names with text; put numbers and truth values in quotes")
        missing = [name for name in self.env if name not in os.environ]
        if missing:
            raise UserError(f"--env {missing[0]}: is not set here; export it, or leave the option out")
        if has_credentials(str(tree)):
            raise UserError(
                f"{file}: its credentials would stand where Ray shows the job; name variables set here by --env"
            )
        tracking = os.environ.get(_TRACKING_URI, "")
        if redacted(tracking) != tracking and _TRACKING_URI not in self.env:
            raise UserError(
                f"{_TRACKING_URI}: its credentials would stand in the job's environment, which Ray shows; set it, or "
                f"MLFLOW_TRACKING_USERNAME and _PASSWORD, on the cluster's nodes, or pass it as it is with --env"
            )
        passed = {name: os.environ[name] for name in (_TRACKING_URI, *self.env) if name in os.environ}
        return {**tree, "env_vars": {**variables, **passed}}


def _is_relative(tracking: str) -> bool:
    """Whether runs would go into the working directory: an sqlite file, or a directory, without an absolute path."""
    scheme, _, path = tracking.rpartition("://") if "://" in tracking else tracking.rpartition(":")
    if scheme.startswith("sqlite"):
        return not path.removeprefix("/").startswith(("/", "~"))
    return scheme in ("", "file") and tracking not in (NO_TRACKING, "databricks") and not path.startswith(("/", "~"))


@dataclass(frozen=True)
class Submitted:
    """A job that a cluster has taken."""

    client: JobSubmissionClient
    id: str

    def as_json(self) -> dict[str, Any]:
        """The object that `bertkd submit --json` prints.

        follow: the command that shows the job's log from its beginning on. stop: the command that ends it; the stages
        that it has finished stay.
        """
        address = str(self.client.get_address())
        here = shlex.join(["--address", address, self.id])
        follow, stop = f"ray job logs --follow {here}", f"ray job stop {here}"
        return {"job": self.id, "address": address, "follow": follow, "stop": stop}


def submit(job: SubmittedJob, address: str | None = None) -> Submitted:
    """Checks a job, packs its working directory and hands both to a cluster.

    address: URL of the job server (`http://HOST:8265`); None takes RAY_API_SERVER_ADDRESS, RAY_ADDRESS or this
    machine's cluster. Raises UserError for a configuration, directory or variable that is wrong, before anything is
    sent, and for a job server that does not answer or takes no job from here.
    """
    job.check()
    entrypoint, runtime_env = job.entrypoint(), job.runtime_env()
    client = _connect(address)
    with packed(job.working_dir, runtime_env.pop("excludes", None) or []) as (package, names):
        if job.config_inside not in names:
            raise UserError(f"{job.config}: an ignore file keeps it out of the package; put it elsewhere")
        log(f"{job.working_dir}: {len(names)} files, {human_bytes(package.stat().st_size)} packed", stage="submit")
        runtime_env["working_dir"] = str(package)
        with _server_errors(address):
            return Submitted(client, client.submit_job(entrypoint=entrypoint, runtime_env=runtime_env))


def follow(job: Submitted, out: TextIO) -> int:
    """Copies a job's log to `out` until the job has ended; returns its command's exit code.

    A job that was stopped, or that could not begin, counts as 1; one that a signal ended as 128 and the signal, as in a
    shell. Ctrl-C ends the following alone, and returns 1. Raises ReportedError when the cluster answers no more.
    """
    from aiohttp import ClientError

    summary = job.as_json()
    try:
        try:
            asyncio.run(_copy_log(job, out))
        except (RuntimeError, ClientError, OSError) as error:
            log(f"the log broke off ({one_line(error)}); {summary['follow']} shows all of it", stage="submit")
        # The job ends a moment after its log.
        while not (info := job.client.get_job_info(job.id)).status.is_terminal():
            time.sleep(_POLL_SECONDS)
    except KeyboardInterrupt:
        log(f"{job.id} goes on; to end it: {summary['stop']}", stage="submit")
        return 1
    except OSError as error:
        reason = one_line(error)[:_LONGEST_REASON]
        raise ReportedError(
            f"{summary['address']}: answers no more ({reason}); {job.id} may go on: {summary['follow']}"
        ) from error
    log(f"{job.id} {str(info.status).lower()}{_reason(info)}", stage="submit")
    return _exit_code(info)


@contextmanager
def packed(working_dir: str, excludes: list[str]) -> Iterator[tuple[Path, set[str]]]:
    """A directory as a zip file, as Ray packs it, and the paths of the files in it.

    What `.gitignore` and `.rayignore` name, `.git` and the like are not in it.
    excludes: further patterns. Raises UserError for what is no directory, for a file that looks like a secret by its
    name or content, for one behind a link that leads out, and for a package that no job server takes.
    """
    if not Path(working_dir).is_dir():
        raise UserError(f"--working-dir {working_dir}: is no directory")
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import GCS_STORAGE_MAX_SIZE, create_package

    # It would list its ignore files and warn of every file over 10 MiB.
    logger = logging.getLogger(f"{__name__}.packing")
    logger.setLevel(logging.CRITICAL)
    excludes = [*get_runtime_env_default_excludes(), *excludes]
    with scratch_directory("submit-") as scratch:
        path = scratch / "working_dir.zip"
        create_package(working_dir, path, include_gitignore=True, excludes=excludes, logger=logger)
        with zipfile.ZipFile(path) as archive:
            names = {name for name in archive.namelist() if not name.endswith("/")}
            secret = next((name for name in sorted(names) if _is_secret(archive, name, Path(working_dir))), None)
        # Whoever may see the job can fetch its package.
        where, fix = f"--working-dir {working_dir}", "name it in .rayignore, or move it away"
        if secret is not None:
            raise UserError(f"{where}: {secret} looks like a secret and would travel with the job; {fix}")
        root = Path(working_dir).resolve()
        if outside := [name for name in names if not (root / name).resolve().is_relative_to(root)]:
            raise UserError(
                f"{where}: {min(outside)} is behind a link that leads out of it, and would travel too; {fix}"
            )
        if (size := path.stat().st_size) >= GCS_STORAGE_MAX_SIZE:
            raise UserError(
                f"{where}: {human_bytes(size)} packed, and Ray takes less than "
                f"{human_bytes(GCS_STORAGE_MAX_SIZE)}; name in .rayignore what the job does not need"
            )
        yield path, names


def _is_secret(archive: zipfile.ZipFile, name: str, working_dir: Path) -> bool:
    """Whether a packed file has the name of a secret, is a link to one, or holds a private key or a URI's password."""
    names = (name, (working_dir / name).resolve().as_posix())
    if any(_SECRET.fullmatch(name) and not _EXAMPLE.fullmatch(name) for name in names):
        return True
    with archive.open(name) as file:
        begins = file.read(1 << 20)
    settings = begins.decode(errors="ignore") if _OF_SETTINGS.fullmatch(name) else ""
    return not _EXAMPLE.fullmatch(name) and (bool(_PRIVATE_KEY.search(begins)) or has_credentials(settings))


def _connect(address: str | None) -> JobSubmissionClient:
    """The client of a job server that answers, and that says nothing on the terminal."""
    if address is not None and "://" not in address:
        raise UserError(f"--address {address}: is no URL; the job server's is http://HOST:8265")
    with _server_errors(address), default_variables({_ADDRESS: address} if address else {}, override=True):
        target = os.environ.get(_ADDRESS) or os.environ.get("RAY_ADDRESS", "")
        if target.startswith(("http://", "https://")):
            # Ray's client has no time limit, and would wait for minutes.
            try:
                urllib.request.urlopen(f"{target.rstrip('/')}/api/version", timeout=_ANSWER_SECONDS).close()
            except urllib.error.HTTPError as answer:
                answer.close()  # the client knows what to make of it
        import ray.dashboard.modules.dashboard_sdk
        import ray.dashboard.modules.job.sdk
        from ray.job_submission import JobSubmissionClient

        for module in (ray.dashboard.modules.dashboard_sdk, ray.dashboard.modules.job.sdk):
            module.logger.setLevel(logging.WARNING)
        return JobSubmissionClient(address)


@contextmanager
def _server_errors(address: str | None) -> Iterator[None]:
    """A job server that does not answer, or answers no, is one line."""
    otherwise = "the cluster (RAY_API_SERVER_ADDRESS, RAY_ADDRESS or this machine's)"
    server = f"--address {address}" if address else otherwise
    try:
        yield
    except Exception as error:
        from ray.exceptions import AuthenticationError

        message = str(error.args[0] if error.args else error).partition("\n")[0][:_LONGEST_REASON]
        if isinstance(error, AuthenticationError):
            problem = (
                f"takes no job without its token ({message}); set RAY_AUTH_MODE=token and put the token into "
                "~/.ray/auth_token or RAY_AUTH_TOKEN"
            )
        elif isinstance(error, OSError):
            reason = one_line(error)[:_LONGEST_REASON]
            problem = f"no job server answers ({reason}); start the cluster or give its URL"
        elif isinstance(error, RuntimeError):
            problem = f"the job server takes no job ({message})"
        else:
            raise
        raise UserError(f"{server}: {problem}") from error


async def _copy_log(job: Submitted, out: TextIO) -> None:
    async for text in job.client.tail_job_logs(job.id):
        out.write(text)
        out.flush()


def _exit_code(info: JobDetails) -> int:
    if info.driver_exit_code is None:
        return 0 if str(info.status) == "SUCCEEDED" else 1
    return info.driver_exit_code if info.driver_exit_code >= 0 else 128 - info.driver_exit_code


def _reason(info: JobDetails) -> str:
    """Why the job ended as it did, where its log does not say so."""
    if info.driver_exit_code is not None:
        return f" with exit code {_exit_code(info)}" if info.driver_exit_code else ""
    message = " ".join((info.message or "").split())[:_LONGEST_REASON]
    return f" ({message})" if message and str(info.status) == "FAILED" else ""
