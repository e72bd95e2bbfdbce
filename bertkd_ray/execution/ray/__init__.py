"""Execution under Ray: sessions, maps and trainings; and which cluster `RAY_ADDRESS` names, known before Ray starts."""

import os


def cluster_address() -> str | None:
    """The address in `RAY_ADDRESS`; None where it is unset, empty or `local`: a session of this machine's own.

    Such a session listens on this machine alone, as where Ray knows no clusters. The variable that says so is set here,
    and `RAY_ADDRESS` removed, for this process and its children: Ray reads the one when it is imported, and does not
    take the other for none.
    """
    address = os.environ.get("RAY_ADDRESS", "").strip()
    if address not in ("", "local"):
        return address
    os.environ.pop("RAY_ADDRESS", None)
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    return None


cluster_address()  # before a module of this package imports Ray
