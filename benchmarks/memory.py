"""Memory of a process."""

from __future__ import annotations

import psutil


def own_mib(process: psutil.Process) -> float:
    """What a process does not share of its memory; 0 of one that has ended."""
    try:
        memory = process.memory_info()
    except psutil.NoSuchProcess:
        return 0.0
    return float(memory.rss - memory.shared) / 2**20
