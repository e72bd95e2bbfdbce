"""Disks of a few megabytes that fill up, mounted for child processes of a test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@cache
def mount_failure() -> str:
    """The reason why no disk can be mounted here; empty if one can."""
    if shutil.which("unshare") is None:
        return "there is no unshare"
    mount = subprocess.run([*_namespace(), "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True)
    return "" if mount.returncode == 0 else f"no disk can be mounted: {mount.stderr.strip()}"


def run_with_disk(script: str, disk: Path, megabytes: float, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a shell script in which `disk` is a disk of its own, gone when it ends; `$PYTHON` is this interpreter.

    `mount -o remount,size=50m DISK` makes it larger.
    """
    disk.mkdir(parents=True, exist_ok=True)
    mount = f"mount -t tmpfs -o size={int(megabytes * 1024)}k tmpfs '{disk}' || exit 99"
    return subprocess.run(
        [*_namespace(), "sh", "-c", f"{mount}\n{script}"],
        cwd=ROOT,
        env={**os.environ, "PYTHON": sys.executable, "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def _namespace() -> list[str]:
    """Mounts are seen by the command and its children alone; root needs no namespace of users for that."""
    return ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Umr"]
