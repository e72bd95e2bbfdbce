"""What is asked of a cluster before work is given to it: that it answers, and that its nodes see the storage."""

import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bertkd_ray.artifacts.artifact import STAGING
from bertkd_ray.artifacts.store import Store
from bertkd_ray.core.errors import UserError, one_line
from bertkd_ray.core.timeouts import call_with_timeout

_ANSWER_SECONDS = 10.0
_PROBE_SECONDS = 60.0
_LONGEST_REASON = 300


@contextmanager
def init_errors(address: str | None) -> Iterator[None]:
    """Whatever `ray.init` raises is one line."""
    try:
        yield
    except Exception as error:
        reason = one_line(error)[:_LONGEST_REASON]
        if address is not None:
            raise UserError(
                f"RAY_ADDRESS {address}: no Ray cluster can be used there ({reason}); start it, correct RAY_ADDRESS or "
                "unset it for a session on this machine"
            ) from error
        remedy = "set RAY_TMPDIR to a short path" if "AF_UNIX" in reason else "or set runtime=local"
        raise UserError(f"Ray does not start on this machine ({reason}); {remedy}") from error


def require_cluster(address: str) -> None:
    """Raises within seconds where no cluster answers; `ray.init` would wait in silence for a quarter of an hour."""
    from ray._private.services import canonicalize_bootstrap_address
    from ray._raylet import GcsClient  # type: ignore[attr-defined] # of a compiled module

    is_client = address.startswith("ray://")
    where = address.removeprefix("ray://") if is_client else canonicalize_bootstrap_address(address)
    host, _, port = str(where).rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
    if not is_client:
        call_with_timeout(lambda: GcsClient(address=where), _ANSWER_SECONDS)


def require_shared_storage(storage: str) -> int:
    """The number of nodes that work. Raises UserError for one that does not see what is written here into the storage.

    A node that is alone is not asked; neither are those that join later, nor waited for that take over a minute.
    """
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    if len(nodes) < 2:
        return len(nodes)
    store, probe = Store(storage), f"probe-{uuid.uuid4().hex}"
    store.write(b"", STAGING, probe)
    try:
        answers = {}
        for node in nodes:
            here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            answers[_why_unseen.options(scheduling_strategy=here).remote(store.uri, probe)] = node
        ready, _ = ray.wait(list(answers), num_returns=len(answers), timeout=_PROBE_SECONDS)
        for answer in ready:
            try:
                reason = ray.get(answer)
            except ray.exceptions.RayTaskError as error:
                # As where this package is not installed.
                reason = str(error).strip().rpartition("\n")[2][:_LONGEST_REASON]
            except ray.exceptions.RayError:
                continue  # the node has gone meanwhile
            if reason:
                name = answers[answer]["NodeManagerHostname"]
                raise UserError(
                    f"storage: node {name} does not see what is written to {store.display_uri()} here ({reason}); give "
                    "a directory that all nodes share, or s3:// or gs://"
                )
    finally:
        store.delete_file(STAGING, probe)
    return len(nodes)


@ray.remote(num_cpus=0)
def _why_unseen(storage: str, probe: str) -> str:
    """Why a file of the staging directory cannot be read on this node; empty where it can."""
    try:
        Store(storage).read(STAGING, probe)
    except Exception as error:
        return one_line(error)[:_LONGEST_REASON]
    return ""
