"""`bertkd report`: one HTML page of what is finished."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from bertkd_ray.cli.arguments import EXIT_CODES, add_config, configuration, print_result

HELP = "one HTML page of what is finished: scores, figures, translations, artifacts; makes nothing"
EPILOG = f"""\
The page needs no network and no other file; it lies beside the figures in the storage, and in the pipeline's run. What
is not finished is named there and here, with the command that makes it. `bertkd run` writes the page too.
{EXIT_CODES}

  bertkd report configs/demo.yaml
  bertkd report configs/multi30k.yaml kd.temperature=2 --output multi30k.html
"""


def add_options(parser: ArgumentParser) -> None:
    """The configuration, and a second place for the page."""
    add_config(parser)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the page here too")


def call(options: Namespace) -> None:
    """Writes the page of a configuration's finished stages."""
    from bertkd_ray.pipeline.pipeline import Pipeline

    with Pipeline(configuration(options), given=[options.config, *options.overrides]) as pipeline:
        unfinished = pipeline.report(options.output).unfinished
    outcome = pipeline.outcome
    runs = f"\nRuns: {outcome.how_to_open}" if outcome.how_to_open else ""
    print_result(options, {**outcome.as_json(), "unfinished": dict(unfinished)}, f"Page: {outcome.page}{runs}")
