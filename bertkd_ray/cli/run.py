"""`bertkd run`: every stage of a configuration, and the table of scores."""

import json
from argparse import Namespace

from bertkd_ray.cli.arguments import EXIT_CODES, add_config, configuration

EPILOG = EXIT_CODES
add_options = add_config


def call(options: Namespace) -> None:
    """Runs the pipeline and prints its scores and where everything lies."""
    from bertkd_ray.pipeline.pipeline import Pipeline
    from bertkd_ray.report.tables import results_table

    with Pipeline(configuration(options), given=[options.config, *options.overrides]) as pipeline:
        outcome = pipeline.run()
    if options.json:
        print(json.dumps(outcome.as_json(), indent=1))
        return
    print(results_table(outcome.arms, outcome.signatures))
    print(f"\nFigures: {outcome.figures[0].rpartition('/')[0]}")
    print(f"Page:    {outcome.page}")
    if outcome.how_to_open:
        print(f"Runs:    {outcome.how_to_open}")
