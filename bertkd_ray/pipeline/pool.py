"""Processes that make artifacts beside each other for one command, each a driver of its own."""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, get_context

from bertkd_ray.core.environment import default_variables


@contextmanager
def process_pool(jobs: int, *, quiet: bool) -> Iterator[ProcessPoolExecutor]:
    """Processes that share the cores out and import nothing of the working directory.

    quiet: they leave the terminal alone, unless `BERTKD_WORKER_LOGS` is set.
    """
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with default_variables({"OMP_NUM_THREADS": str(threads), "PYTHONSAFEPATH": "1"}):
        pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_be_quiet if quiet else None)
        try:
            yield pool
        except KeyboardInterrupt:
            # They would go on to the end of their tasks: Ctrl-C tells them too, `kill` does not.
            for process in active_children():
                process.terminate()
            raise
        finally:
            # After another error what runs is finished; what has not begun never is.
            pool.shutdown(cancel_futures=True)


def _be_quiet() -> None:
    if not os.environ.get("BERTKD_WORKER_LOGS"):
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until this process ends
