"""What every part of the configuration is, and the dotted keys (`kd.alpha`) of nested ones."""

from collections.abc import Iterator, Mapping, Set
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from bertkd_ray.core.errors import UserError
from bertkd_ray.core.paths import expand_home

Location = Annotated[str, AfterValidator(expand_home)]
"""A path or URI; a leading `~` is the home directory."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
"""A name of a pipeline, an arm or a model."""
ONE_OR_MANY = ("<one>", "<many>")
"""Tags of fields that take one value or a list of them; they stand in no message."""
_DEEPEST = 20
_WHOLE = frozenset({"kd.teachers"})
"""Keys of mappings whose values mean something together alone: one replaces the other as a whole."""


class Section(BaseModel):
    """A frozen part of the configuration that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    added_later: ClassVar[frozenset[str]] = frozenset()
    """Fields that came after artifacts had been made: at their defaults they are in no fingerprint."""
    hashed_as: ClassVar[Mapping[str, tuple[str, str]]] = MappingProxyType({})
    """Fields that had another name or unit: the key in fingerprints, and the attribute with the value there."""

    def fingerprinted(self, *, exclude: frozenset[str] = frozenset()) -> dict[str, Any]:
        """What enters a fingerprint: every value, but for `exclude` and later fields that are at their defaults.

        So an artifact keeps its name when a new version of the package has a new option, or a new name for one.
        """
        return self.under_hashed_keys(exclude={*exclude, *self.at_default()})

    def at_default(self) -> set[str]:
        """The later fields that are at their defaults."""
        return {name for name in self.added_later if getattr(self, name) == type(self).model_fields[name].default}

    def under_hashed_keys(self, *, exclude: Set[str] = frozenset()) -> dict[str, Any]:
        """Every value but for `exclude`, under the keys of fingerprints."""
        settings = self.model_dump(exclude={*exclude, *self.hashed_as})
        return settings | {key: getattr(self, attribute) for key, attribute in self.hashed_as.values()}

    @field_validator("*", mode="before")
    @classmethod
    def _no_value_of_another_kind(cls, value: Any, info: ValidationInfo) -> Any:
        # YAML reads `yes` and `on` as true, and Python would take true for 1.
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("true and false (bare yes, no, on, off) have no meaning here; give or quote a value")
        # No path and no address can hold one, and what opens files says so in many ways.
        if isinstance(value, str) and "\0" in value:
            raise ValueError("a NUL character has no meaning here; remove it")
        return value


def dotted(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The values below nested sections by their dotted keys, so that `kd: {alpha: 0}` leaves the rest of kd alone.

    `kd.teachers` stays a mapping: its weights sum to 1.
    """
    for key, value in tree.items():
        if isinstance(value, Mapping) and f"{above}{key}" not in _WHOLE:
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
