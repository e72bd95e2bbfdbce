"""`bertkd inspect`: figures of a corpus."""

from argparse import ArgumentParser, Namespace

from bertkd_ray.cli.arguments import EXIT_CODES, add_json, add_overrides, configuration, is_config, print_result
from bertkd_ray.core.errors import UserError

HELP = "figures of a corpus: counts, lengths, unknown tokens, drops by reason, and a few of its pairs; of soft labels"
EPILOG = f"""\
A finished corpus is checked against its manifest first. Only storage, where the figure goes, and tracking can be set
beside it. In MLflow every corpus has one run, so that corpora compare. Of finished soft labels
the fidelity is shown, at the ends of sentences and elsewhere, and where the reference is the best token and elsewhere.
{EXIT_CODES}

  bertkd inspect configs/demo.yaml
  bertkd inspect artifacts/corpus-2ef240917f24d21a --seed 7
  bertkd inspect artifacts/softlabels-6f1d0c8e5b3a2974
  bertkd inspect s3://bucket/store/corpus-2ef240917f24d21a storage=reports tracking=none
"""


def add_options(parser: ArgumentParser) -> None:
    """The corpus, and which of its pairs are printed."""
    help = "a CONFIG.yaml, whose corpus is prepared first, or the DIR or URI of a corpus or of soft labels"
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
    if not is_config(options.config) and _show_soft_labels(options):
        return
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


def _show_soft_labels(options: Namespace) -> bool:
    """Prints the fidelity of soft labels; False for what are none. Raises UserError where a file is damaged."""
    from bertkd_ray.core.stages import EXTRACT, LABEL
    from bertkd_ray.report.fidelity import fidelity_text
    from bertkd_ray.student.lineage import artifact_at

    artifact = artifact_at(options.config)
    if artifact is None or artifact.stage not in (EXTRACT.artifact, LABEL.artifact):
        return False
    if options.overrides:
        raise UserError(f"{options.overrides[0]}: soft labels are shown as they are; nothing can be set beside them")
    artifact.require_intact("copy the soft labels again, or move them elsewhere and make them again")
    print_result(options, {"path": artifact.display_uri, "metrics": artifact.metrics}, fidelity_text(artifact))
    return True
