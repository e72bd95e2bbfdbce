"""Who may make an artifact: one live driver at a time, whatever became of those before it."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
from pyarrow import fs

from bertkd_ray.artifacts import lock
from bertkd_ray.artifacts.lock import HEARTBEAT_SECONDS, STALE_SECONDS, Owner, hold_lock
from bertkd_ray.artifacts.store import Store
from bertkd_ray.core.errors import UserError

NAME = "corpus-0123456789abcdef"


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(str(tmp_path))


@pytest.fixture
def object_store(tmp_path) -> Store:
    """Files without `flock`, as an object store has them."""
    store = Store(str(tmp_path))
    store.fs = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    store.root = ""
    assert not store.is_local
    return store


def owner(store: Store, **changes: object) -> Owner:
    """A lock as another driver would have left it."""
    found = dataclasses.replace(Owner.myself(), **changes)
    store.write(json.dumps(dataclasses.asdict(found)).encode(), "locks", f"{NAME}.json")
    return found


def a_process(*, alive: bool) -> tuple[int, str]:
    """Id and start of a process that sleeps, or that was killed and that nobody has waited for yet."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    start = lock._process_start(process.pid)
    if not alive:
        process.kill()
        while lock._process_start(process.pid):
            time.sleep(0.01)
    _started.append(process)
    return process.pid, start


_started: list[subprocess.Popen[bytes]] = []


@pytest.fixture(autouse=True)
def _end_processes():
    yield
    while _started:
        process = _started.pop()
        process.kill()
        process.wait()


def test_a_lock_is_there_while_it_is_held(store):
    with hold_lock(store, NAME):
        told = json.loads(store.read("locks", f"{NAME}.json"))
        assert told["pid"] == os.getpid()
        assert told["host"] == os.uname().nodename
    assert store.files() == []


@pytest.mark.parametrize("kind", ["store", "object_store"])
def test_the_second_is_told_who_is_first(kind, request):
    store = request.getfixturevalue(kind)
    with hold_lock(store, NAME):
        since = json.loads(store.read("locks", f"{NAME}.json"))["since"]
        with pytest.raises(UserError) as refused, hold_lock(store, NAME):
            pytest.fail("two hold one lock")
        assert str(refused.value) == (
            f"{NAME}: process {os.getpid()} on {os.uname().nodename} has been making it since {since}; "
            "wait for it, or end it, and run the same command again"
        )
        # The refusal has not taken the first one's lock away.
        assert store.exists("locks", f"{NAME}.json")
    with hold_lock(store, NAME):
        assert store.exists("locks", f"{NAME}.json")
    assert store.files() == []


def test_other_artifacts_are_free(store):
    with hold_lock(store, NAME), hold_lock(store, NAME.replace("corpus", "teacher")):
        assert len(store.files()) == 2


def test_a_lock_is_released_when_the_work_fails(store):
    with pytest.raises(RuntimeError, match="the work"), hold_lock(store, NAME):
        raise RuntimeError("the work")
    assert store.files() == []


def test_another_live_process_blocks(store):
    pid, start = a_process(alive=True)
    # Without a heartbeat for long: a driver that is suspended has not lost its work.
    owner(store, pid=pid, process_start=start, heartbeat=0.0)
    with pytest.raises(UserError, match=f"process {pid} on "), hold_lock(store, NAME):
        pytest.fail("two hold one lock")


def test_a_dead_process_does_not_block(store):
    pid, start = a_process(alive=False)
    owner(store, pid=pid, process_start=start)
    with hold_lock(store, NAME):
        assert json.loads(store.read("locks", f"{NAME}.json"))["pid"] == os.getpid()


def test_a_process_that_has_the_id_of_a_dead_one_does_not_block(store):
    pid, start = a_process(alive=True)
    owner(store, pid=pid, process_start=str(int(start) - 1))
    with hold_lock(store, NAME):
        assert json.loads(store.read("locks", f"{NAME}.json"))["pid"] == os.getpid()


def test_of_another_machine_the_heartbeat_tells(store):
    elsewhere = {"host": "node-7", "machine": "another boot/pid:[1]"}
    owner(store, **elsewhere, heartbeat=time.time() - STALE_SECONDS / 2)
    said = rf"on node-7 .* \(last heard of 3\d s ago; after {STALE_SECONDS:.0f} s it counts as dead\); wait for it"
    with pytest.raises(UserError, match=said), hold_lock(store, NAME):
        pytest.fail("two hold one lock")
    owner(store, **elsewhere, heartbeat=time.time() - STALE_SECONDS - 1)
    with hold_lock(store, NAME):
        assert json.loads(store.read("locks", f"{NAME}.json"))["host"] == os.uname().nodename


@pytest.mark.parametrize("ahead", [86_400.0, math.inf])
@pytest.mark.parametrize("lives", [True, False])
def test_of_a_clock_that_is_ahead_the_next_heartbeat_tells(store, monkeypatch, ahead, lives):
    elsewhere = {"host": "node-7", "machine": "another boot/pid:[1]", "token": "theirs"}
    owner(store, **elsewhere, heartbeat=time.time() + ahead)
    waited = []

    def sleep(seconds):
        waited.append(seconds)
        if lives:
            owner(store, **elsewhere, heartbeat=time.time() + 90_000)

    monkeypatch.setattr(lock.time, "sleep", sleep)
    refusal = pytest.raises(UserError, match=r"on node-7 .* \(last heard of 0 s ago") if lives else nullcontext()
    with refusal, hold_lock(store, NAME):
        assert not lives
    assert waited == [STALE_SECONDS]


def test_an_owner_has_time_for_several_heartbeats():
    assert STALE_SECONDS >= 4 * HEARTBEAT_SECONDS


def test_the_heartbeat_goes_on(store, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.01)
    with hold_lock(store, NAME):
        first = json.loads(store.read("locks", f"{NAME}.json"))
        deadline = time.monotonic() + 20
        while (later := json.loads(store.read("locks", f"{NAME}.json")))["heartbeat"] == first["heartbeat"]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert {**later, "heartbeat": 0} == {**first, "heartbeat": 0}
    assert later["heartbeat"] > first["heartbeat"]


def test_a_storage_that_is_away_for_a_moment_does_not_end_the_heartbeat(store, monkeypatch, capsys):
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.01)
    write, failures = store.write, [OSError("No space left on device")] * 2

    with hold_lock(store, NAME):

        def fail_twice(data: bytes, *parts: str) -> None:
            if failures:
                raise failures.pop()
            write(data, *parts)

        before = store.read("locks", f"{NAME}.json")
        monkeypatch.setattr(store, "write", fail_twice)
        deadline = time.monotonic() + 20
        while store.read("locks", f"{NAME}.json") == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert capsys.readouterr().err.count("no heartbeat: No space left on device") == 2


def test_a_lock_that_was_taken_over_is_left_to_the_successor(store):
    def lose_it() -> None:
        with hold_lock(store, NAME):
            owner(store, pid=77, host="node-7")

    with pytest.raises(UserError, match=rf"{NAME}: .* process 77 on node-7 has gone on since .*; leave the work to it"):
        lose_it()
    assert json.loads(store.read("locks", f"{NAME}.json"))["pid"] == 77


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'"text"', b"[" * 100_000])
def test_a_lock_that_nobody_can_read_is_nobodys(store, content):
    store.write(content, "locks", f"{NAME}.json")
    with hold_lock(store, NAME):
        assert json.loads(store.read("locks", f"{NAME}.json"))["pid"] == os.getpid()


@pytest.mark.parametrize("content", ['{"pid": 7}', '{"pid": 7, "host": 3}', '{"pid": 7, "new": [], "token": "x"}'])
@pytest.mark.parametrize("kind", ["store", "object_store"])
def test_a_lock_of_another_version_counts_while_its_file_is_written(kind, content, request, tmp_path):
    store = request.getfixturevalue(kind)
    store.write(content.encode(), "locks", f"{NAME}.json")
    with pytest.raises(UserError, match="process 7 on an unknown machine has been making it since"):
        hold_lock(store, NAME).__enter__()
    assert store.read("locks", f"{NAME}.json").decode() == content
    long_ago = time.time() - STALE_SECONDS - 1
    os.utime(tmp_path / "locks" / f"{NAME}.json", (long_ago, long_ago))
    with hold_lock(store, NAME):
        assert json.loads(store.read("locks", f"{NAME}.json"))["pid"] == os.getpid()


@pytest.mark.parametrize("failure", [None, ValueError("a file is missing")])
def test_a_store_that_is_removed_meanwhile_is_an_error_and_stays_removed(store, tmp_path, monkeypatch, failure):
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.01)

    def lose_it(failure: Exception | None) -> None:
        with hold_lock(store, NAME):
            shutil.rmtree(tmp_path)
            time.sleep(0.1)
            if failure:
                raise failure

    with pytest.raises(UserError, match=f"^{NAME}: its lock was removed .*run the command again$"):
        lose_it(failure)
    assert not tmp_path.exists()


def test_ctrl_c_is_no_lost_lock(store, tmp_path):
    def interrupted() -> None:
        with hold_lock(store, NAME):
            shutil.rmtree(tmp_path)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()


def test_of_many_that_start_at_once_one_gets_it(tmp_path):
    """A dead owner's lock, and six processes that want it."""
    pid, start = a_process(alive=False)
    owner(Store(str(tmp_path / "store")), pid=pid, process_start=start)
    script = (
        "import pathlib, sys, time\n"
        "from bertkd_ray.artifacts.store import Store\n"
        "from bertkd_ray.core.errors import UserError\n"
        "from bertkd_ray.artifacts.lock import hold_lock\n"
        "root = pathlib.Path(sys.argv[1])\n"
        "while not (root / 'go').exists(): time.sleep(0.001)\n"
        "try:\n"
        f"    with hold_lock(Store(str(root / 'store')), {NAME!r}):\n"
        "        print('held', flush=True)\n"
        "        while not (root / 'end').exists(): time.sleep(0.01)\n"
        "except UserError as error:\n"
        "    print('refused', flush=True)\n"
    )
    repository = Path(__file__).resolve().parents[2]
    drivers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], cwd=repository, stdout=subprocess.PIPE, text=True
        )
        for _ in range(6)
    ]
    (tmp_path / "go").touch()
    first_words = [driver.stdout.readline().strip() for driver in drivers]
    (tmp_path / "end").touch()
    assert [driver.wait() for driver in drivers] == [0] * 6
    for driver in drivers:
        driver.stdout.close()
    assert sorted(first_words) == ["held", *["refused"] * 5]
