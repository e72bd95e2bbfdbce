"""Processes by name, and the memory of one."""

from __future__ import annotations

import psutil


def own_mib(process: psutil.Process) -> float:
    """What a process does not share of its memory; 0 of one that has ended."""
    try:
        memory = process.memory_info()
    except psutil.NoSuchProcess:
        return 0.0
    return float(memory.rss - memory.shared) / 2**20


def is_named(process: psutil.Process, *beginnings: str) -> bool:
    """Whether its name begins with one of these; False of one that has ended."""
    try:
        return process.name().startswith(beginnings)
    except psutil.NoSuchProcess:
        return False
