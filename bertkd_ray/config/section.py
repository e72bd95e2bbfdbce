"""What every part of the configuration is."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class Section(BaseModel):
    """A frozen part of the configuration that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_value_of_another_kind(cls, value: Any, info: ValidationInfo) -> Any:
        # YAML reads `yes` and `on` as true, and Python would take true for 1.
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("true and false have no meaning here; give a value")
        # No path and no address can hold one, and what opens files says so in many ways.
        if isinstance(value, str) and "\0" in value:
            raise ValueError("a NUL character has no meaning here; remove it")
        return value
