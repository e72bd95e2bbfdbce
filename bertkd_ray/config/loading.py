"""A configuration from a YAML file and `section.key=value` overrides."""

from copy import deepcopy
from io import StringIO
from pathlib import Path
from typing import Any

import yaml

from bertkd_ray.config.config import Config, tracking_section
from bertkd_ray.config.section import dotted, set_key
from bertkd_ray.config.validation import validated
from bertkd_ray.core.errors import UserError, brief_repr
from bertkd_ray.core.paths import expand_home

_LONGEST = 1 << 24  # characters of a configuration
_MOST_NODES = 100_000  # of its YAML, with those that aliases repeat


def load_config(path: str | Path, overrides: list[str] | None = None) -> Config:
    """Reads a YAML file and applies `section.key=value` overrides, their values read as YAML.

    Raises UserError, in one line, for a missing or malformed file, an unknown key (with the nearest known one), a wrong
    type or an impossible combination. Relative paths in the file are relative to the working directory.
    """
    tree = read_tree(path)
    if "base" in tree:
        raise UserError(f"{path}: this is a study; bertkd study trains it, bertkd validate BASE.yaml checks its base")
    return config_of(tree, str(path), overrides)


def read_tree(path: str | Path) -> dict[str, Any]:
    """The keys of a YAML file. Raises UserError for a file that is missing or is no mapping."""
    try:
        with open(expand_home(str(path)), encoding="utf-8") as file:
            text = file.read(_LONGEST + 1)
        # A device would be read for ever.
        tree = _parse_yaml(text) if len(text) <= _LONGEST else None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a YAML configuration, for example configs/demo.yaml") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: not a configuration; it must be a mapping of keys to values")
    return tree


def _parse_yaml(text: str) -> Any:
    """The value of a YAML text: mappings, lists, text, numbers, dates, truth values, null.

    Raises yaml.YAMLError for what is not YAML, asks for an object of another type, holds itself, has 100,000 values
    once its aliases are written out, or a key twice, of which PyYAML would take the last; ValueError for no date.
    """
    # Derived from the safe loader. Of a stream it shows no excerpt: of half an address a password would not be hidden.
    loader = _Loader(StringIO(text))
    # At once, not layer by layer: so a mapping that holds itself is found and refused.
    loader.deep_construct = True
    try:
        return loader.get_single_data()
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    def get_single_node(self) -> Any:
        """Refuses nested aliases of few bytes that would be values without an end to whoever prints or walks them."""
        node = super().get_single_node()
        if _node_count(node, {}) > _MOST_NODES:
            raise yaml.YAMLError(f"more than {_MOST_NODES:,} values, counting those that aliases repeat")
        return node

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


def _node_count(node: Any, counts: dict[yaml.Node, int]) -> int:
    """Nodes of a tree; one that several aliases name counts as often as they do, one that holds itself once."""
    if node not in counts:
        counts[node] = 1
        if isinstance(node, yaml.CollectionNode):
            pairs = node.value if isinstance(node, yaml.MappingNode) else [node.value]
            counts[node] += sum(_node_count(child, counts) for pair in pairs for child in pair)
    return counts[node]


def read_override(text: str) -> tuple[str, Any]:
    """Key and value of `section.key=value`. Raises UserError for anything else."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise UserError(f"{brief_repr(text)}: an override is written section.key=value")
    try:
        return key, _parse_yaml(value)
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{brief_repr(text)}: the value is not YAML: {' '.join(str(error).split())}") from None


def override(tree: dict[str, Any], key: str, value: Any) -> None:
    """Sets a dotted key of a configuration's tree. Raises UserError where a value stands in its way."""
    if isinstance(tree.get("tracking"), str) and key.startswith("tracking."):
        tree["tracking"] = tracking_section(tree["tracking"])
    if key.startswith("arms."):
        arms = tree.setdefault("arms", deepcopy(Config.model_fields["arms"].default))
        _, arm, *below = key.split(".", 2)
        if below and isinstance(arms, dict) and isinstance(arms.get(arm), dict):  # whose keys are dotted or nested
            arms[arm] = dict(dotted({**dict(dotted(arms[arm])), below[0]: value}))
            return
    set_key(tree, key, value)


def config_of(tree: dict[str, Any], origin: str, overrides: list[str] | None = None) -> Config:
    """The configuration of a tree of keys, which the overrides change; `origin` stands in the messages.

    Raises UserError as `load_config` does.
    """
    for text in overrides or []:
        override(tree, *read_override(text))
    config = validated(Config, tree, origin)
    stored = config.stored_topk()
    # An arm that does not validate is refused here, not hours later.
    for arm, arm_config in config.arm_configs().items():
        if arm_config.kd.has_soft_labels and arm_config.kd.topk > stored:
            topk = arm_config.kd.topk
            raise UserError(f"{origin}: arms.{arm}: kd.topk {topk} is more than extract.topk {stored}; raise it")
    return config
