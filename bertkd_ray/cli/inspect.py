"""`bertkd inspect`: figures of a corpus."""

from argparse import ArgumentParser, Namespace

from bertkd_ray.cli.arguments import EXIT_CODES, add_json, add_overrides, configuration, is_config, print_result
from bertkd_ray.core.errors import UserError

HELP = "figures of a corpus: counts, lengths, unknown tokens, drops by reason, and a few of its pairs"
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
    help = "a CONFIG.yaml, whose corpus is prepared first, or a corpus artifact's DIR or URI"
    parser.add_argument("config", metavar="CORPUS", help=help)
    add_overrides(parser)
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="which pairs are shown (default: 1)")
    add_json(parser)


def call(options: Namespace) -> None:
    """Prints the figures of one corpus and where they are drawn."""
    from bertkd_ray.config import config_of
    from bertkd_ray.corpus.inspect import open_corpus
    from bertkd_ray.pipeline.inspection import inspect_corpus
    from bertkd_ray.pipeline.pipeline import Pipeline
    from bertkd_ray.report.corpus import corpus_text

    corpus = None
    if is_config(options.config):
        config = configuration(options)
    else:
        for override in options.overrides:
            if override.partition("=")[0].partition(".")[0] not in ("storage", "tracking"):
                raise UserError(f"{override}: a finished corpus is what it is; only storage and tracking can be set")
        corpus = open_corpus(options.config)
        # Stands for the one that the corpus was made of.
        tree = {"name": "corpora", "storage": corpus.store.uri, "corpus": {"source": "demo"}}
        config = config_of(tree, options.config, options.overrides)
    with Pipeline(config) as pipeline:
        figures, drawn = inspect_corpus(pipeline, corpus, seed=options.seed)
        how_to_open = pipeline.session.tracker.how_to_open
    runs = f"\nRuns:   {how_to_open}" if how_to_open else ""
    text = f"{corpus_text(figures)}\n\nFigure: {drawn[0]}{runs}"
    print_result(options, {**figures.as_json(), "figures": drawn}, text)
