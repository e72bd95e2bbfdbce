"""YAML as configurations are written in it: plain values, and every key once."""

from typing import Any

import yaml


def parse_yaml(text: str) -> Any:
    """The value of a YAML text: mappings, lists, text, numbers, dates, truth values, null.

    Raises yaml.YAMLError for what is not YAML, asks for an object of another type, holds itself, or has a key twice,
    which PyYAML itself would let pass and take the last of; ValueError for a date that is none.
    """
    # Derived from the safe loader, as `yaml.safe_load` is.
    loader = _Loader(text)
    # At once, not layer by layer: so a mapping that holds itself is found and refused.
    loader.deep_construct = True
    try:
        return loader.get_single_data()
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """As it stands in the text: what `<<` brings in from elsewhere is not there yet, and may be set anew."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line, name = key.start_mark.line + 1, (key.tag, key.value)
            if name in lines:
                raise yaml.YAMLError(
                    f"the key {key.value} stands in line {lines[name]} and again in line {line}; keep one"
                )
            lines[name] = line
        return node
