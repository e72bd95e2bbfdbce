"""Keys and values as a section, and what is wrong with them in one line."""

from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from bertkd_ray.config.earlier_keys import successor
from bertkd_ray.config.section import ONE_OR_MANY, Section
from bertkd_ray.core.errors import UserError, brief_repr

AnySection = TypeVar("AnySection", bound=Section)


def validated(model: type[AnySection], tree: dict[str, Any], origin: str) -> AnySection:
    """A tree of keys as a section. Raises UserError, in one line, for what is wrong with it."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{origin}: " + "; ".join(_explain(item, model, tree) for item in error.errors())) from None


def _explain(item: Any, model: type[Section], tree: dict[str, Any]) -> str:
    """One of pydantic's errors as `key: what is wrong (got value)`."""
    location = [part for part in item["loc"] if part not in ("[key]", *ONE_OR_MANY)]
    key = ".".join(map(str, location))
    if item["type"] == "extra_forbidden":
        return f"unknown key {key}{_today(location, tree) or _suggestion(location, model)}"
    if item["type"] == "missing":
        return f"{key} is missing; docs/corpora.md has its forms" if key == "corpus" else f"{key} is missing"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] in ("model_type", "dict_type"):
        message = "a section of keys and values is needed"
    value = item.get("input")
    got = "" if isinstance(value, dict | BaseModel) else f" (got {brief_repr(value)})"
    return f"{key}: {message}{got}" if key else message


def _today(location: list[str | int], tree: dict[str, Any]) -> str:
    """What an earlier key is called today."""
    match location:
        case [str(section), str(key)]:
            current = successor(section, key, tree[section])
        case ["teachers", str(name), str(key)]:
            current = successor("teacher", key, tree["teachers"][name])
            current = current and current.replace("teacher.", f"teachers.{name}.")
        case _:
            current = None
    return f"; {current}" if current else ""


def _suggestion(location: list[str | int], model: type[Section]) -> str:
    """The known key that an unknown one most resembles."""
    from difflib import get_close_matches

    inner: type[Section] | None = model
    for part in location[:-1]:
        # Not a field: the name of one of several teachers.
        if isinstance(part, str) and inner is not None and part in inner.model_fields:
            inner = _section_in(inner.model_fields[part].annotation)
    close = get_close_matches(str(location[-1]), inner.model_fields if inner else [], n=1)
    return f"; did you mean {'.'.join([*map(str, location[:-1]), close[0]])}?" if close else ""


def _section_in(annotation: Any) -> type[Section] | None:
    """The section that a field holds, perhaps in a list or as one of several things."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((section for inner in get_args(annotation) if (section := _section_in(inner))), None)
