"""What several commands take, and how they read it."""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from bertkd_ray.core.redaction import escape_controls

if TYPE_CHECKING:
    from bertkd_ray.config import Config

EXIT_CODES = "Exit codes: 0 done, 2 the input or configuration is wrong (one line says where), 1 anything else."


def add_config(parser: ArgumentParser) -> None:
    """A configuration with its overrides, and `--json`."""
    parser.add_argument("config", metavar="CONFIG.yaml", help="the configuration")
    add_overrides(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object with stages, metrics and scores")


def add_overrides(parser: ArgumentParser, more: str = "") -> None:
    """Changes to the keys of a configuration, and whatever else may follow it; `more` says what in the help."""
    # With a default argparse does not count them among the required arguments.
    help = f"changes to it, values read as YAML{more}"
    parser.add_argument("overrides", nargs="*", default=[], metavar="section.key=value", help=help)


def add_json(parser: ArgumentParser) -> None:
    """`--json` of a command that prints what no configuration describes."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def configuration(options: Namespace) -> Config:
    """The configuration that a command line names, under its overrides."""
    from bertkd_ray.config import load_config

    return load_config(options.config, options.overrides)


def print_result(options: Namespace, tree: dict[str, Any], text: str) -> None:
    """Prints one JSON object with `--json`, text without."""
    print(json.dumps(tree, indent=1) if options.json else escape_controls(text))


def is_config(argument: str) -> bool:
    """Whether an argument that may name an artifact names a configuration."""
    return argument.endswith((".yaml", ".yml")) or os.path.isfile(argument)
