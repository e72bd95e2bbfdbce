"""Dotted keys (`kd.alpha`) of nested sections."""

from collections.abc import Iterator, Mapping
from typing import Any

from bertkd_ray.core.errors import UserError

_DEEPEST = 20


def dotted(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The values below nested sections by their dotted keys, so that `kd: {alpha: 0}` leaves the rest of kd alone."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def set_key(tree: dict[str, Any], key: str, value: Any) -> None:
    """Sets a dotted key, making the sections on the way."""
    *sections, last = key.split(".")
    if len(sections) > _DEEPEST:
        raise UserError(f"{key[:100]}…: unknown key; no section lies so deep")
    for depth, section in enumerate(sections):
        below = {} if tree.get(section) is None else tree[section]
        if not isinstance(below, dict):
            raise UserError(f"{key}: {'.'.join(sections[: depth + 1])} is a value, not a section")
        # Copied, since a YAML alias is the very object that it stands for, and this key alone is meant.
        tree[section] = dict(below)
        tree = tree[section]
    tree[last] = value
