"""`bertkd run`: every stage of a configuration, and the table of scores."""

from argparse import Namespace

from bertkd_ray.cli.arguments import EXIT_CODES, add_config, configuration, print_result

HELP = "all stages, for every arm, and the table of scores"
EPILOG = EXIT_CODES
add_options = add_config


def call(options: Namespace) -> None:
    """Runs the pipeline and prints its scores and where everything lies."""
    from bertkd_ray.pipeline.pipeline import Pipeline
    from bertkd_ray.report.tables import results_table

    with Pipeline(configuration(options), given=[options.config, *options.overrides]) as pipeline:
        outcome = pipeline.run()
    table = results_table(outcome.rows, outcome.signatures)
    written = f"Figures: {outcome.figures[0].rpartition('/')[0]}\nPage:    {outcome.page}"
    runs = f"\nRuns:    {outcome.how_to_open}" if outcome.how_to_open else ""
    print_result(options, outcome.as_json(), f"{table}\n\n{written}{runs}")
