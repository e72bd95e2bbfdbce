"""The configuration: frozen sections, one a stage, read from YAML and `section.key=value` overrides."""

from bertkd_ray.config.config import NOT_PART_OF_A_RESULT, Config
from bertkd_ray.config.earlier_keys import with_current_keys
from bertkd_ray.config.keys import dotted
from bertkd_ray.config.loading import config_of, load_config, read_tree
from bertkd_ray.config.section import Section
from bertkd_ray.config.sections import (
    ExtractConfig,
    KdConfig,
    StudentConfig,
    TeacherConfig,
    TrackingConfig,
    TranslateConfig,
)
from bertkd_ray.config.validation import validated

__all__ = [
    "NOT_PART_OF_A_RESULT",
    "Config",
    "ExtractConfig",
    "KdConfig",
    "Section",
    "StudentConfig",
    "TeacherConfig",
    "TrackingConfig",
    "TranslateConfig",
    "config_of",
    "dotted",
    "load_config",
    "read_tree",
    "validated",
    "with_current_keys",
]
