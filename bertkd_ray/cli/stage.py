"""`bertkd prepare`, `finetune` and `extract`: one stage, and before it those that it is made from."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bertkd_ray.cli.arguments import EXIT_CODES, add_config, configuration

if TYPE_CHECKING:
    from bertkd_ray.config import Config

EPILOG = EXIT_CODES
add_options = add_config


def call(options: Namespace) -> int:
    """Makes the stage that the command is named for."""
    return make(configuration(options), options, [""])


def make(config: Config, options: Namespace, arms: Sequence[str]) -> int:
    """Makes the command's stage for each of `arms`, "" where all share it, and prints a line for every artifact."""
    from bertkd_ray.pipeline.pipeline import Pipeline

    with Pipeline(config) as pipeline:
        for arm in arms:
            pipeline.make(options.command, arm)
    outcome = pipeline.outcome
    if options.json:
        print(json.dumps(outcome.as_json(), indent=1))
        return 0
    for name, result in outcome.stages.items():
        print(f"{name:<20} {result.status:<8} {result.artifact.display_uri}")
    return 0
