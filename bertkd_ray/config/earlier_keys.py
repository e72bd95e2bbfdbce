"""Keys of earlier versions, which fingerprints and manifests keep: their names and values of today."""

import math
from collections.abc import Mapping
from typing import Any

from bertkd_ray.config.sections import WARMUP_SHARE, StudentConfig, TeacherConfig

_RENAMED = {
    "teacher": {"lr": "peak_lr", "warmup": "warmup_steps", "left_to_right": "direction"},
    "student": {"lr": "peak_lr", "warmup": "warmup_steps"},
    "decode": {"batch_tokens": "forward_tokens"},
    "extract": {"batch_tokens": "forward_tokens"},
    "translate": {"batch_tokens": "forward_tokens"},
}
_CONVERTED_BY: dict[tuple[str, str], tuple[str, ...]] = {
    ("teacher", "warmup"): ("steps",),
    ("teacher", "left_to_right"): (),
    ("student", "lr"): ("warmup", "width"),
}
"""Keys whose values changed too, and what a value of today depends on."""


def with_current_keys(sections: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a manifest, some below sections, under today's keys and in today's units."""
    return {
        name: {_RENAMED[name].get(key, key): _in_current_unit(name, key, values) for key in values}
        if name in _RENAMED and isinstance(values, Mapping)
        else values
        for name, values in sections.items()
    }


def successor(section: str, key: str, values: Mapping[str, Any]) -> str | None:
    """Says what an earlier key is called today, with its value where the unit changed; None for any other key.

    values: what is given in the section, valid or not.
    """
    name = _RENAMED.get(section, {}).get(key)
    if name is None:
        return None
    student = StudentConfig()
    warmup = values.get("warmup_steps", student.warmup_steps)
    values = {"steps": TeacherConfig().steps, "width": student.width, "warmup": warmup, **values}
    try:
        value = _in_current_unit(section, key, values)
    except (TypeError, ValueError, ArithmeticError):
        value = values[key]
    if value == values[key]:
        return f"it is {section}.{name} now"
    others = " and ".join(f"{other} {values[other]}" for other in _CONVERTED_BY[section, key])
    return f"{key} {values[key]}{others and f' with {others}'} is {section}.{name}: {_yaml(value)}"


def _in_current_unit(section: str, key: str, values: Mapping[str, Any]) -> Any:
    if (section, key) == ("teacher", "warmup"):
        share = float(values[key])
        return None if share == WARMUP_SHARE else round(share * float(values["steps"]))
    if (section, key) == ("student", "lr"):
        peak = float(values[key]) / (float(values["width"]) * float(values["warmup"])) ** 0.5
        return float(f"{peak:.6e}")
    if (section, key) == ("teacher", "left_to_right"):
        return "left_to_right" if values[key] is True else "both"
    return values[key]


def _yaml(value: float | str | None) -> str:
    if not isinstance(value, float) or math.isnan(value):
        return "null" if value is None else str(value)
    mantissa, exponent = f"{value:.6e}".split("e")
    return f"{float(mantissa)}e{int(exponent)}"
