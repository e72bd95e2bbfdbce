from __future__ import annotations

import platform

import pyarrow

from bertkd_ray.core.libraries import library_versions


def test_versions_by_name_and_what_is_absent():
    assert library_versions(["pyarrow", "no-such-distribution"]) == {
        "python": platform.python_version(),
        "pyarrow": pyarrow.__version__,
        "no-such-distribution": "not installed",
    }
