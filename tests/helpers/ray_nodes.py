"""A Ray cluster of several nodes on this machine, for as long as standard input stays open.

`python -m tests.helpers.ray_nodes CPUS...` starts a node for every number, the first with a job server, and prints one
JSON line with `address` and `job_server`. In a process of its own, so that a test session of Ray elsewhere is left
alone.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import tempfile
from contextlib import ExitStack

from ray.cluster_utils import Cluster


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that were free a moment ago, all different."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [int(listener.getsockname()[1]) for listener in listeners]


def main(cpus: list[int]) -> None:
    """Starts the nodes, says where they are, and ends them at the end of the input."""
    gcs, job_server, *agents = free_ports(2 + 2 * len(cpus))
    # Short, because the sockets below it may have no more than 107 bytes; and where Ray notes the newest cluster's
    # address, which is nobody else's business.
    directory = os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="nodes-")
    cluster = Cluster()
    try:
        for number, count in enumerate(cpus):
            head = {"include_dashboard": True, "dashboard_port": job_server, "gcs_server_port": gcs}
            cluster.add_node(
                num_cpus=count,
                dashboard_agent_listen_port=agents[2 * number],
                runtime_env_agent_port=agents[2 * number + 1],
                **({} if number else head),
            )
        print(json.dumps({"address": cluster.address, "job_server": f"http://127.0.0.1:{job_server}"}), flush=True)
        sys.stdin.read()
    finally:
        cluster.shutdown()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main([int(count) for count in sys.argv[1:]])
