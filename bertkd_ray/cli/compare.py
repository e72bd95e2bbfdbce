"""`bertkd compare`: finished students side by side."""

from argparse import ArgumentParser, Namespace

from bertkd_ray.cli.arguments import EXIT_CODES, add_json, print_result
from bertkd_ray.core.errors import UserError

HELP = "finished students side by side: settings, scores, a bootstrap, and the sentences that differ most"
EPILOG = f"""\
RUN is an arm's run (demo/distilled; of a study k8/seed-1), the beginning of its id, or the directory of a student or of
translations; of several the newest is taken. All are compared with the first; p is two-tailed. Without --tracking and
--storage the store is artifacts/.
{EXIT_CODES}

  bertkd compare demo/control demo/distilled
  bertkd compare artifacts/student-4ef9fb1b8af97cbe s3://bucket/store/translation-1be44e001540cca3 --sentences 20
"""


def add_options(parser: ArgumentParser) -> None:
    """The runs, and where they are."""
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="an MLflow run's name or id, or an artifact's DIR")
    add("--tracking", metavar="URI", help="the MLflow store (default: SQLite in the storage)")
    add("--storage", metavar="DIR", help="where the artifacts are now (default: where they were made)")
    add("--sentences", type=int, metavar="N", help="how many are shown (default: 5)")
    add_json(parser)


def call(options: Namespace) -> None:
    """Prints the comparison of two runs or more."""
    from bertkd_ray.report.comparison import SENTENCES, compare_students
    from bertkd_ray.report.comparison_text import comparison_text

    sentences = SENTENCES if options.sentences is None else options.sentences
    if sentences < 0:
        raise UserError(f"--sentences {sentences}: give 0 or more")
    # argparse leaves names that follow an option unread, as it does overrides.
    runs = [*options.runs, *options.overrides]
    comparison = compare_students(runs, tracking=options.tracking, storage=options.storage, sentences=sentences)
    print_result(options, comparison.as_json(), comparison_text(comparison))
