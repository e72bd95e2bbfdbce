"""`import bertkd_ray`: what a Python program or a notebook has of it, and how little it costs."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import bertkd_ray


@pytest.mark.parametrize("name", bertkd_ray.__all__)
def test_every_public_name_is_there_and_described(name):
    value = getattr(bertkd_ray, name)
    assert value.__name__ == name
    assert value.__module__.startswith("bertkd_ray.")
    assert len((inspect.getdoc(value) or "").split()) >= 3
    assert name in dir(bertkd_ray)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'bertkd_ray' has no attribute 'kd_los'"):
        _ = bertkd_ray.kd_los
    with pytest.raises(ImportError, match="cannot import name 'kd_los'"):
        from bertkd_ray import kd_los  # noqa: F401


def test_importing_the_package_imports_nothing_else():
    script = (
        "import sys; before = set(sys.modules) | {'importlib', 'typing'}\n"
        "import bertkd_ray; dir(bertkd_ray)\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)\n"
        "print(sorted(new), sorted(name for name in sys.modules if name.startswith('bertkd_ray.')))\n"
        "bertkd_ray.load_config; print('torch' in sys.modules, 'bertkd_ray.config' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("['bertkd_ray'] []\nFalse True\n", "")


def test_a_star_import_has_the_public_names_alone():
    names: dict[str, object] = {}
    # A star import cannot stand in a function.
    exec("from bertkd_ray import *", names)
    assert set(names) - {"__builtins__"} == set(bertkd_ray.__all__)
