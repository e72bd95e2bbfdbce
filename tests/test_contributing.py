"""What CONTRIBUTING.md says of the code is so."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.test_structure import ROOMS

ROOT = Path(__file__).resolve().parents[1]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
WHERE = re.findall(r"^\| ([^|]+) \| `([\w/.]+)` \| (`[^|]+`) \|$", CONTRIBUTING, flags=re.MULTILINE)
"""The rows of "Where is what": what is looked for, the file, and the names in it."""
_ROOM = re.compile(r"^\d+\. `(\w+)`: ", re.MULTILINE)


def names_of(path: Path) -> set[str]:
    """Functions, classes, methods (`Class.method`) and assigned names of a module."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def test_the_table_has_its_lines():
    assert 20 <= len(WHERE) <= 30


@pytest.mark.parametrize(("what", "path", "names"), WHERE, ids=[what for what, _, _ in WHERE])
def test_what_is_looked_for_is_there(what, path, names):
    assert (ROOT / path).is_file(), path
    assert set(re.findall(r"`([\w.]+)`", names)) <= names_of(ROOT / path)


def test_the_rooms_stand_in_the_order_of_their_imports():
    assert tuple(_ROOM.findall(CONTRIBUTING)) == tuple(reversed([room for room in ROOMS if room != "__main__"]))
