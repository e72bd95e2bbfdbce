"""The configuration: frozen sections, one a stage, read from YAML and `section.key=value` overrides."""

from bertkd_ray.config.config import NOT_PART_OF_A_RESULT, Config
from bertkd_ray.config.earlier_keys import with_current_keys
from bertkd_ray.config.loading import config_of, load_config, read_tree
from bertkd_ray.config.section import dotted

__all__ = ["NOT_PART_OF_A_RESULT", "Config", "config_of", "dotted", "load_config", "read_tree", "with_current_keys"]
