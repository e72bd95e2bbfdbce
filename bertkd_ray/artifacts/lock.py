"""One driver at a time makes an artifact: a lock file in the store that says who holds it.

Locks are per artifact, so that drivers with different work share a store. A lock whose owner is dead is taken over: on
the same machine the kernel says whether the process lives, by its id and the moment it started; of another machine
the age of the last heartbeat tells, which supposes clocks that agree to less than a minute; where it is of the future,
whether another one follows.

On a directory, taking a lock is exclusive as far as `flock` is on that file system. An object store has no such
thing: there a lock is a file that is written and read back, so that two drivers that start within the same second may
both believe that they hold it. Both then write the same content, each file in one step; one gets an error at the end.
"""

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from bertkd_ray.artifacts.store import Store
from bertkd_ray.core.console import log
from bertkd_ray.core.errors import ReportedError, StorageError, UserError, one_line

LOCKS = "locks"
"""The directory of a store that holds locks, a file an artifact that is being made."""
HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
"""Age of the last heartbeat at which the owner on another machine counts as dead."""


@dataclass(frozen=True)
class Owner:
    """Who holds a lock; of a lock that another version wrote, what can be read of it."""

    host: str = "an unknown machine"
    machine: str = ""
    """What host names do not tell apart: the boot of the kernel and the namespace of process ids; empty if unknown."""
    pid: int = 0
    process_start: str = ""
    """When the kernel started the process, in its own ticks; an id is used again, the two together are not."""
    since: str = "an unknown time"
    """When the lock was taken, ISO 8601."""
    token: str = ""
    """Tells two locks of one process apart."""
    heartbeat: float = 0.0
    """Seconds since the epoch."""

    @classmethod
    def myself(cls) -> Self:
        """The current process as an owner, from now on."""
        return cls(
            host=socket.gethostname(),
            machine=_machine(),
            pid=os.getpid(),
            process_start=_process_start(os.getpid()),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            token=uuid.uuid4().hex,
            heartbeat=time.time(),
        )

    def is_alive(self) -> bool:
        """Whether the owner still runs, as far as this machine can tell."""
        if self.is_here():
            return self.process_start == _process_start(self.pid)
        return time.time() - self.heartbeat < STALE_SECONDS

    def is_here(self) -> bool:
        """Whether this machine's kernel knows the owner's process."""
        return bool(self.machine and self.process_start) and self.machine == _machine()


@contextmanager
def hold_lock(store: Store, name: str) -> Iterator[None]:
    """Holds the lock `name` of a store while the block runs.

    Raises UserError, with host, process id and start, when another live driver holds it; and after the block when
    another took it over meanwhile, because this one gave no sign of life for too long, or when it was removed.
    """
    lock = _Lock(store, name)
    lock.take()
    ended = threading.Event()
    thread = threading.Thread(target=lock.send_heartbeats, args=(ended,), name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    except Exception as error:
        # What fails for want of the files that were removed is not the reason.
        if not isinstance(error, ReportedError) and (lost := lock.loss()):
            raise UserError(f"{name}: {lost}") from error
        raise
    else:
        if lost := lock.loss():
            raise UserError(f"{name}: {lost}")
    finally:
        ended.set()
        thread.join()
        lock.release()


class _Lock:
    """The file of a lock that this process wants or holds."""

    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name, self._path = store, name, (LOCKS, f"{name}.json")
        self._mine = Owner.myself()

    def take(self) -> None:
        """Writes the lock. Raises UserError if another owner lives."""
        if self._store.is_local:
            Path(self._store.path(LOCKS)).mkdir(parents=True, exist_ok=True)
        seen = self._owner()
        if is_ahead := seen and not seen.is_here() and seen.heartbeat > time.time() + STALE_SECONDS:
            log(f"{self._name}: the clock of {seen.host} is ahead; waiting {STALE_SECONDS:.0f} s for a sign of life")
            time.sleep(STALE_SECONDS)
        with self._exclusive():
            other = self._owner()
            if other is None or not other.is_alive() or (is_ahead and other == seen):
                self._store.write(json.dumps(asdict(self._mine)).encode(), *self._path)
                other = self._owner()
        if other is None or other.token != self._mine.token:
            other = other or self._mine
            age = round(max(0.0, time.time() - other.heartbeat))
            heard = f" (last heard of {age} s ago; after {STALE_SECONDS:.0f} s it counts as dead)"
            raise UserError(
                f"{self._name}: process {other.pid} on {other.host} has been making it since {other.since}"
                f"{'' if other.is_here() else heard}; wait for it, or end it, and run the same command again"
            )

    def send_heartbeats(self, ended: threading.Event) -> None:
        """Writes the lock again every few seconds, unless it is another's or gone."""
        while not ended.wait(HEARTBEAT_SECONDS):
            try:
                with self._exclusive():
                    if self.loss() is None:
                        mine = replace(self._mine, heartbeat=time.time())
                        self._store.write(json.dumps(asdict(mine)).encode(), *self._path)
            except (OSError, StorageError) as error:
                # A storage that is away for a moment is no reason to stop; should it stay away, the work itself fails.
                log(f"no heartbeat: {one_line(error)}")

    def loss(self) -> str | None:
        """How the lock was lost; None while it is held."""
        owner = self._owner()
        if owner is None:
            return "its lock was removed while it was being made, by hand or with the storage; run the command again"
        if owner.token == self._mine.token:
            return None
        return (
            f"this process gave no sign of life for {STALE_SECONDS:.0f} seconds and process {owner.pid} on "
            f"{owner.host} has gone on since {owner.since}; leave the work to it"
        )

    def release(self) -> None:
        """Removes the lock, unless another has taken it over."""
        with self._exclusive():
            if self.loss() is None:
                self._store.delete_file(*self._path)

    def _owner(self) -> Owner | None:
        """Who holds the lock; what is no JSON object (a file cut off by a full disk) belongs to nobody.

        Of a lock in another form the time of its file counts as the heartbeat.
        """
        try:
            tree = json.loads(self._store.read(*self._path))
        except (ValueError, RecursionError, FileNotFoundError):
            return None
        if not isinstance(tree, dict):
            return None
        known = {key.name: tree[key.name] for key in fields(Owner) if type(tree.get(key.name)) is key.type}
        if "heartbeat" not in known:
            known["heartbeat"] = self._store.modified(*self._path)
        return Owner(**known)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """No other process of this file system reads or writes the lock meanwhile; on an object store, no guarantee."""
        directory = Path(self._store.path(LOCKS))
        if not self._store.is_local or not directory.is_dir():
            yield
            return
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _machine() -> str:
    """The boot of this kernel and the namespace of its process ids; empty where there is no /proc."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{boot.read_text('ascii').strip()}/{os.readlink('/proc/self/ns/pid')}" if boot.exists() else ""


def _process_start(pid: int) -> str:
    """When a process started, in ticks since the boot; empty if it has ended, and where there is no /proc."""
    try:
        # The name in parentheses may hold anything; state and start are fields 3 and 22 of the line.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    # A process that was killed stays as a zombie until its parent asks for it.
    return "" if fields[0] in "ZX" else fields[19]
