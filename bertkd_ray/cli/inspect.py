"""`bertkd inspect`: figures of a corpus."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from bertkd_ray.cli.arguments import EXIT_CODES, add_json, add_overrides, configuration, is_config
from bertkd_ray.core.errors import UserError

if TYPE_CHECKING:
    from bertkd_ray.artifacts.artifact import Artifact
    from bertkd_ray.config import Config

EPILOG = f"""\
A finished corpus is checked against its manifest first. Only storage, where the figure goes, and tracking can be set
beside it. In MLflow every corpus has one run, so that corpora compare.
{EXIT_CODES}

  bertkd inspect configs/demo.yaml
  bertkd inspect artifacts/corpus-2ef240917f24d21a --seed 7
  bertkd inspect s3://bucket/store/corpus-2ef240917f24d21a storage=reports tracking=none
"""


def add_options(parser: ArgumentParser) -> None:
    """The corpus, and which of its pairs are printed."""
    parser.add_argument(
        "config",
        metavar="CORPUS",
        help="a CONFIG.yaml, whose corpus is prepared first, or a corpus artifact's DIR or URI",
    )
    add_overrides(parser)
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="which pairs are shown (default: 1)")
    add_json(parser)


def call(options: Namespace) -> None:
    """Prints the figures of one corpus and where they are drawn."""
    from bertkd_ray.pipeline.inspection import inspect
    from bertkd_ray.pipeline.pipeline import Pipeline
    from bertkd_ray.report.corpus import corpus_text

    corpus, config = _corpus(options)
    with Pipeline(config) as pipeline:
        inspection = inspect(pipeline, corpus, seed=options.seed)
    if options.json:
        print(json.dumps(inspection.as_json(), indent=1))
        return
    print(corpus_text(inspection.figures))
    print(f"\nFigure: {inspection.drawn[0]}")
    if inspection.how_to_open:
        print(f"Runs:   {inspection.how_to_open}")


def _corpus(options: Namespace) -> tuple[Artifact | None, Config]:
    """The corpus of a directory or URI under a configuration that stands for it, or a configuration alone."""
    if is_config(options.config):
        return None, configuration(options)
    from bertkd_ray.config import config_of
    from bertkd_ray.corpus.inspect import open_corpus

    for override in options.overrides:
        if override.partition("=")[0].partition(".")[0] not in ("storage", "tracking"):
            raise UserError(f"{override}: a finished corpus is what it is; only storage and tracking can be set")
    corpus = open_corpus(options.config)
    tree = {"name": "corpora", "storage": corpus.store.uri, "corpus": {"source": "demo"}}
    return corpus, config_of(tree, options.config, options.overrides)
