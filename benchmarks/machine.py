"""What a measurement was made on: the machine, the libraries and the commit."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from bertkd_ray.core.devices import resolve_precision
from bertkd_ray.core.libraries import library_versions

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = ("torch", "transformers", "numpy", "pyarrow", "tokenizers", "ctranslate2", "ray")
FEATURES = ("amx_bf16", "amx_tile", "amx_int8", "avx512_bf16", "avx512_vnni", "avx512f", "avx2")
"""CPU features that decide how fast matrices are multiplied, as Linux names them."""


def machine() -> dict[str, Any]:
    """The machine and its libraries; what the system does not tell is None or left out."""
    return {
        "cpu": cpu_model(_read("/proc/cpuinfo")) or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "features": cpu_features(_read("/proc/cpuinfo")),
        "memory_gib": _memory_gib(),
        "load_at_start": [round(load, 2) for load in os.getloadavg()],
        "system": platform.platform(terse=True),
        "precision": resolve_precision("auto", torch.device("cpu")),
        "libraries": library_versions(LIBRARIES),
    }


def cpu_model(cpuinfo: str) -> str | None:
    """The first processor's name in the text of /proc/cpuinfo."""
    names = (line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name"))
    return next(names, None)


def cpu_features(cpuinfo: str) -> list[str]:
    """Those of `FEATURES` that the first processor in the text of /proc/cpuinfo has."""
    flags = next((line.partition(":")[2].split() for line in cpuinfo.splitlines() if line.startswith("flags")), [])
    return [feature for feature in FEATURES if feature in flags]


def commit() -> dict[str, Any]:
    """The checkout's commit and whether files differ from it; None outside of a checkout."""
    head = _git("rev-parse", "HEAD")
    return {"commit": head, "changed": bool(_git("status", "--porcelain", "--untracked-files=no")) if head else None}


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None
