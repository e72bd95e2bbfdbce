"""`bertkd study`: arms of one base configuration under several seeds, compared."""

import json
from argparse import ArgumentParser, Namespace

from bertkd_ray.cli.arguments import EXIT_CODES, add_overrides, is_config
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.redaction import escape_controls

HELP = "a study: arms of one base configuration under several seeds, and the table that compares them"
EPILOG = f"""\
Arms and seeds share every corpus, teacher and pass of a teacher over the corpus whose settings agree. Students are made
one after the other, with --jobs N in N processes at a time (of one thread each: cpus_per_worker=1); the same command
goes on with a study that was cut off. Keys of the base are set for all arms; seeds=[1,2], teacher_seeds=[1,2],
control=NAME and arms.NAME.section.key=value change the study.
{EXIT_CODES}

  bertkd study configs/studies/demo-temperature.yaml
  bertkd study configs/studies/multi30k-paper.yaml seeds=[1] student.steps=3000
  bertkd study configs/studies/multi30k-*.yaml --jobs 2 cpus_per_worker=1
"""


def add_options(parser: ArgumentParser) -> None:
    """Studies, their overrides, and how many processes make their students."""
    add = parser.add_argument
    add("config", metavar="STUDY.yaml", help="the study: base (a CONFIG.yaml), overrides, arms, seeds")
    add_overrides(parser, "; further STUDY.yaml files are studies that share the artifacts")
    add("--jobs", type=int, default=1, metavar="N", help="processes at a time (default: %(default)s)")
    add("--finished", action="store_true", help="train nothing, compare the arms that are finished under all seeds")
    add("--json", action="store_true", help="print one JSON object with stages and scores")


def call(options: Namespace) -> None:
    """Runs one study or several, and prints a comparison of each as it ends."""
    from bertkd_ray.config.study import load_study
    from bertkd_ray.pipeline.scheduler import finished_part, run_studies

    if options.jobs < 1:
        raise UserError(f"--jobs {options.jobs}: give 1 or more")
    overrides = [word for word in options.overrides if not is_config(word)]
    files = [options.config, *(word for word in options.overrides if is_config(word))]
    studies = [load_study(file, overrides) for file in files]
    if options.finished:
        studies = [finished_part(study) for study in studies]
    outcomes = []
    for outcome in run_studies(studies, options.jobs):
        outcomes.append(outcome.as_json())
        if not options.json:
            print(escape_controls(outcome.text()), flush=True)
    if options.json:
        print(json.dumps(outcomes[0] if len(studies) == 1 else outcomes, indent=1))
