"""`bertkd`: parse, call, print. Results go to stdout, logs and progress to stderr."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bertkd_ray.artifacts.storage_errors import as_reported
from bertkd_ray.cli.completion import COMPLETION_EPILOG, SHELLS, completion_script
from bertkd_ray.cli.model_commands import (
    EXPORT_EPILOG,
    LINES_EPILOG,
    add_export_options,
    add_line_options,
    export_student,
    refuse_line_options,
    translate_text,
)
from bertkd_ray.cli.versions import ShowVersions
from bertkd_ray.config import Config, config_of, load_config
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.redaction import redacted
from bertkd_ray.core.timeouts import exit_past_hung_calls
from bertkd_ray.plan import PLAN_EPILOG, add_plan_options, plan_command

if TYPE_CHECKING:
    from bertkd_ray.artifacts.artifact import Artifact
    from bertkd_ray.config.study import Study
    from bertkd_ray.pipeline.study import StudyOutcome

_STAGES = {
    "prepare": "stage 0: parallel text to token ids, with the student's tokenizer",
    "finetune": "stage 1: train the BERT teacher as a conditional masked language model",
    "extract": "stage 2: map the teacher over the corpus and store its top-k logits",
    "distill": "stage 3: train the students, with the teacher's soft labels and without",
    "translate": "stage 4: translate the test set by beam search and score it",
}
_EXIT_CODES = "Exit codes: 0 done, 2 the input or configuration is wrong (one line says where), 1 anything else."
_EPILOG = f"""\
Finished work is never done twice: a command makes what its stage is made from, skips what is finished and goes on with
what was cut off. Results go to stdout, progress to stderr.
{_EXIT_CODES}

  bertkd run configs/demo.yaml
  bertkd run configs/multi30k.yaml kd.temperature=2 student.steps=5000
  bertkd validate configs/multi30k.yaml
"""
_STUDY_EPILOG = f"""\
Arms and seeds share every corpus, teacher and pass of a teacher over the corpus whose settings agree. Students are made
one after the other, with --jobs N in N processes at a time (of one thread each: cpus_per_worker=1); the same command
goes on with a study that was cut off. Keys of the base are set for all arms; seeds=[1,2], control=NAME and
arms.NAME.section.key=value change the study.
{_EXIT_CODES}

  bertkd study configs/studies/demo-temperature.yaml
  bertkd study configs/studies/multi30k-paper.yaml seeds=[1] student.steps=3000
  bertkd study configs/studies/multi30k-*.yaml --jobs 2 cpus_per_worker=1
"""
_INSPECT_EPILOG = f"""\
A finished corpus is checked against its manifest first. Only storage, where the figure goes, and tracking can be set
beside it. In MLflow every corpus has one run, so that corpora compare.
{_EXIT_CODES}

  bertkd inspect configs/demo.yaml
  bertkd inspect artifacts/corpus-2ef240917f24d21a --seed 7
  bertkd inspect s3://bucket/store/corpus-2ef240917f24d21a storage=reports tracking=none
"""
_COMPARE_EPILOG = f"""\
RUN is an arm's run (demo/distilled; of a study k8/seed-1), the beginning of its id, or the directory of a student or of
translations. All are compared with the first; p is two-tailed. Without --tracking and --storage the store is
artifacts/.
{_EXIT_CODES}

  bertkd compare demo/control demo/distilled
  bertkd compare artifacts/student-4ef9fb1b8af97cbe s3://bucket/store/translation-1be44e001540cca3 --sentences 20
"""
_REPORT_EPILOG = f"""\
The page needs no network and no other file; it lies beside the figures in the storage, and in the pipeline's run. What
is not finished is named there and here, with the command that makes it. `bertkd run` writes the page too.
{_EXIT_CODES}

  bertkd report configs/demo.yaml
  bertkd report configs/multi30k.yaml kd.temperature=2 --output multi30k.html
"""
_SUBMIT_EPILOG = f"""\
The directory travels without what .gitignore and .rayignore name; deploy/runtime_env.yaml in it says what else the job
sees. Of the variables set here MLFLOW_TRACKING_URI travels, and those that --env names; Ray shows a job's variables to
whoever may see the job, so credentials are better given to the cluster's nodes. RAY_AUTH_MODE and the token are Ray's.
With --follow the exit code is the job's. {_EXIT_CODES}

  bertkd submit configs/demo.yaml storage=s3://bucket/demo --address http://head:8265 --follow
  bertkd submit configs/multi30k.yaml storage=/shared/store --job finetune --env HF_TOKEN
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    options = _options(arguments)
    # The hub's progress bars and the tokenizers' warnings about forks say nothing to this program's user.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if "RAY_ADDRESS" not in os.environ:
        # A Ray session of this machine's own listens on this machine alone, as where Ray knows no clusters.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    # What `ray job stop` and a node's shutdown send is as much an interruption as Ctrl-C.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        return int(options.call(options))
    except KeyboardInterrupt:
        print("bertkd: interrupted; run the same command to go on", file=sys.stderr)
        return 1
    except Exception as error:
        reported = as_reported(error)
        if reported is None:
            raise
        print(f"bertkd: error: {reported}", file=sys.stderr)
        return exit_past_hung_calls(reported.exit_code)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, as everything else here does."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"bertkd: error: {redacted(message)}; see {self.prog} --help\n")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The parsed command line. argparse leaves overrides that follow an option unread: `CONFIG --json key=value`."""
    parser = make_parser()
    options, unread = parser.parse_known_args(arguments)
    unknown = [argument for argument in unread if argument.startswith("-")]
    if unknown:
        parser.error(f"unknown option {unknown[0]}")
    options.overrides = [*options.overrides, *unread]
    return options


def make_parser() -> argparse.ArgumentParser:
    """The commands and their options, with their help."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog="bertkd",
        description="Distil a pretrained BERT into a small, fast translation model, distributed with Ray.",
        epilog=_EPILOG,
        formatter_class=formatter,
    )
    parser.add_argument("--version", action=ShowVersions, help="the versions of bertkd and of what it stands on")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    text = "all stages, for every arm, and the table of scores"
    run = commands.add_parser("run", help=text, description=text, epilog=_EXIT_CODES, formatter_class=formatter)
    _add_config(run)
    run.set_defaults(call=_run)
    text = "a study: arms of one base configuration under several seeds, and the table that compares them"
    study = commands.add_parser("study", help=text, description=text, epilog=_STUDY_EPILOG, formatter_class=formatter)
    study.add_argument("config", metavar="STUDY.yaml", help="the study: base (a CONFIG.yaml), overrides, arms, seeds")
    study.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="section.key=value",
        help="changes to it, values read as YAML; further STUDY.yaml files are studies that share the artifacts",
    )
    study.add_argument("--jobs", type=int, default=1, metavar="N", help="processes at a time (default: %(default)s)")
    study.add_argument(
        "--finished", action="store_true", help="train nothing, compare the arms that are finished under all seeds"
    )
    study.add_argument("--json", action="store_true", help="print one JSON object with stages and scores")
    study.set_defaults(call=_study)
    for stage, text in _STAGES.items():
        command = commands.add_parser(stage, help=text, description=text, epilog=_EXIT_CODES, formatter_class=formatter)
        _add_config(command)
        if stage in ("distill", "translate"):
            command.add_argument(
                "--arm", metavar="NAME", help="only this arm (default: every arm of the configuration)"
            )
        command.set_defaults(call=_stage)
        if stage == "translate":
            add_line_options(command)
            command.epilog = f"{LINES_EPILOG}\n{_EXIT_CODES}"
            command.set_defaults(call=_translate)
    text = "take a student with you: a directory for CTranslate2 or for plain transformers"
    epilog = f"{EXPORT_EPILOG}\n{_EXIT_CODES}"
    export = commands.add_parser("export", help=text, description=text, epilog=epilog, formatter_class=formatter)
    export.add_argument("config", metavar="MODEL", help="a student artifact's DIR or URI, or a CONFIG.yaml")
    _add_overrides(export)
    add_export_options(export)
    export.set_defaults(call=_export)
    text = "figures of a corpus: counts, lengths, unknown tokens, drops by reason, and a few of its pairs"
    inspect = commands.add_parser(
        "inspect", help=text, description=text, epilog=_INSPECT_EPILOG, formatter_class=formatter
    )
    inspect.add_argument(
        "config",
        metavar="CORPUS",
        help="a CONFIG.yaml, whose corpus is prepared first, or a corpus artifact's DIR or URI",
    )
    _add_overrides(inspect)
    inspect.add_argument("--seed", type=int, default=1, metavar="N", help="which pairs are shown (default: 1)")
    inspect.add_argument("--json", action="store_true", help="print one JSON object")
    inspect.set_defaults(call=_inspect)
    text = "hand a command to a Ray cluster as a job, with this directory and the configuration in it"
    submit = commands.add_parser(
        "submit", help=text, description=text, epilog=_SUBMIT_EPILOG, formatter_class=formatter
    )
    submit.add_argument("config", metavar="CONFIG.yaml", help="the configuration, or the study for --job study")
    _add_overrides(submit)
    submit.add_argument(
        "--job",
        choices=("run", "study", *_STAGES, "inspect", "validate"),
        default="run",
        metavar="COMMAND",
        help="what the cluster runs: %(choices)s (default: run)",
    )
    submit.add_argument("--address", metavar="URL", help="the cluster's job server, http://HOST:8265")
    submit.add_argument("--follow", action="store_true", help="show the job's log and end with its exit code")
    submit.add_argument("--working-dir", default=".", metavar="DIR", help="what the job sees (default: .)")
    submit.add_argument(
        "--env", action="append", default=[], metavar="NAME", help="pass on a variable that is set here; repeatable"
    )
    submit.add_argument("--json", action="store_true", help="print one JSON object; the log goes to stderr")
    submit.set_defaults(call=_submit)
    text = "finished students side by side: settings, scores, a bootstrap, and the sentences that differ most"
    compare = commands.add_parser(
        "compare", help=text, description=text, epilog=_COMPARE_EPILOG, formatter_class=formatter
    )
    compare.add_argument("runs", nargs="+", metavar="RUN", help="an MLflow run's name or id, or an artifact's DIR")
    compare.add_argument("--tracking", metavar="URI", help="the MLflow store (default: SQLite in the storage)")
    compare.add_argument("--storage", metavar="DIR", help="where the artifacts are now (default: where they were made)")
    compare.add_argument("--sentences", type=int, metavar="N", help="how many are shown (default: 5)")
    compare.add_argument("--json", action="store_true", help="print one JSON object")
    compare.set_defaults(call=_compare, overrides=[])
    text = "one HTML page of what is finished: scores, figures, translations, artifacts; makes nothing"
    report = commands.add_parser(
        "report", help=text, description=text, epilog=_REPORT_EPILOG, formatter_class=formatter
    )
    _add_config(report)
    report.add_argument("--output", type=Path, metavar="FILE", help="write the page here too")
    report.set_defaults(call=_report)
    validate = commands.add_parser(
        "validate",
        help="check a configuration, or a store against its manifests, without training",
        description="Check everything that can be checked without training: storage, BERT, vocabulary, device, text "
        "and its line counts. With --artifacts: every file of a store against its manifest.",
        epilog=_EXIT_CODES,
    )
    validate.add_argument("config", nargs="?", metavar="CONFIG.yaml", help="the configuration")
    validate.add_argument("overrides", nargs="*", metavar="section.key=value", help="changes to it")
    validate.add_argument("--artifacts", metavar="DIR", help="a storage directory or URI whose files are checked")
    validate.add_argument("--json", action="store_true", help="print one JSON object")
    validate.set_defaults(call=_validate)
    text = "what a configuration and its corpus will take: steps, tokens, operations, device hours, gigabytes"
    epilog = f"{PLAN_EPILOG}\n{_EXIT_CODES}"
    plan = commands.add_parser("plan", help=text, description=text, epilog=epilog, formatter_class=formatter)
    _add_config(plan)
    add_plan_options(plan)
    plan.set_defaults(call=plan_command)
    text = "a script that makes your shell complete commands, options and files"
    completion = commands.add_parser(
        "completion", help=text, description=text, epilog=COMPLETION_EPILOG, formatter_class=formatter
    )
    completion.add_argument("shell", choices=SHELLS, metavar="SHELL", help="%(choices)s")
    completion.set_defaults(call=_completion, overrides=[])
    return parser


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", metavar="CONFIG.yaml", help="the configuration")
    _add_overrides(command)
    command.add_argument("--json", action="store_true", help="print one JSON object with stages, metrics and scores")


def _add_overrides(command: argparse.ArgumentParser) -> None:
    # With a default argparse does not count them among the required arguments.
    command.add_argument(
        "overrides", nargs="*", default=[], metavar="section.key=value", help="changes to it, values read as YAML"
    )


def _run(options: argparse.Namespace) -> int:
    from bertkd_ray.pipeline.pipeline import Pipeline
    from bertkd_ray.report.tables import results_table

    with Pipeline(load_config(options.config, options.overrides), given=_given(options)) as pipeline:
        outcome = pipeline.run()
    if options.json:
        print(json.dumps(outcome.as_json(), indent=1))
        return 0
    print(results_table(outcome.arms, outcome.signatures))
    print(f"\nFigures: {outcome.figures[0].rpartition('/')[0]}")
    print(f"Page:    {outcome.page}")
    if outcome.how_to_open:
        print(f"Runs:    {outcome.how_to_open}")
    return 0


def _report(options: argparse.Namespace) -> int:
    from bertkd_ray.pipeline.finished import FinishedPipeline

    config = load_config(options.config, options.overrides)
    with FinishedPipeline(config, given=_given(options)) as pipeline:
        unfinished = pipeline.report(options.output).unfinished
    outcome = pipeline.outcome
    if options.json:
        print(json.dumps({**outcome.as_json(), "unfinished": dict(unfinished)}, indent=1))
        return 0
    print(f"Page: {outcome.page}")
    if outcome.how_to_open:
        print(f"Runs: {outcome.how_to_open}")
    return 0


def _given(options: argparse.Namespace) -> list[str]:
    return [options.config, *options.overrides]


def _study(options: argparse.Namespace) -> int:
    from bertkd_ray.config.study import load_study

    if options.jobs < 1:
        raise UserError(f"--jobs {options.jobs}: give 1 or more")
    overrides = [word for word in options.overrides if not _is_config(word)]
    files = [options.config, *(word for word in options.overrides if _is_config(word))]
    studies = [load_study(file, overrides) for file in files]
    if options.finished:
        from bertkd_ray.pipeline.scheduler import finished_part

        studies = [finished_part(study) for study in studies]
    outcomes = []
    for outcome in _outcomes(studies, options.jobs):
        outcomes.append(outcome.as_json())
        if not options.json:
            print(outcome.text(), flush=True)
    if options.json:
        print(json.dumps(outcomes[0] if len(studies) == 1 else outcomes, indent=1))
    return 0


def _outcomes(studies: list[Study], jobs: int) -> Iterator[StudyOutcome]:
    if jobs > 1:
        from bertkd_ray.pipeline.scheduler import run_studies

        yield from run_studies(studies, jobs)
        return
    from bertkd_ray.pipeline.study import StudyRunner

    for study in studies:
        with StudyRunner(study) as runner:
            yield runner.run()


def _stage(options: argparse.Namespace) -> int:
    from bertkd_ray.pipeline.pipeline import Pipeline

    config = load_config(options.config, options.overrides)
    with Pipeline(config) as pipeline:
        for call in _calls(pipeline, options, config):
            call()
    outcome = pipeline.outcome
    if options.json:
        print(json.dumps(outcome.as_json(), indent=1))
        return 0
    for name, result in outcome.stages.items():
        print(f"{name:<20} {result.status:<8} {result.artifact.display_uri}")
    return 0


def _calls(pipeline: object, options: argparse.Namespace, config: Config) -> list[Callable[[], object]]:
    """The stage methods that a command asks for."""
    method = getattr(pipeline, options.command)
    if options.command not in ("distill", "translate"):
        return [method]
    if options.arm is not None and options.arm not in config.arms:
        raise UserError(f"--arm {options.arm}: the configuration has the arms {', '.join(config.arms)}")
    arms = [options.arm] if options.arm else list(config.arms)
    return [partial(method, arm) for arm in arms]


def _translate(options: argparse.Namespace) -> int:
    if _is_config(options.config):
        refuse_line_options(options)
        return _stage(options)
    if options.arm is not None or options.json:
        raise UserError(f"--arm and --json belong to a CONFIG.yaml; {options.config} is a MODEL, whose output is text")
    return translate_text(options)


def _export(options: argparse.Namespace) -> int:
    exported = export_student(
        options, load_config(options.config, options.overrides) if _is_config(options.config) else None
    )
    print(json.dumps(exported.as_json(), indent=1) if options.json else exported.text())
    return 0


def _is_config(argument: str) -> bool:
    """Whether an argument that may name an artifact names a configuration."""
    return argument.endswith((".yaml", ".yml")) or os.path.isfile(argument)


def _inspect(options: argparse.Namespace) -> int:
    from bertkd_ray.pipeline.pipeline import Pipeline
    from bertkd_ray.report.corpus import corpus_text

    corpus, config = _corpus(options)
    with Pipeline(config) as pipeline:
        inspection = pipeline.inspect(corpus, seed=options.seed)
    if options.json:
        print(json.dumps(inspection.as_json(), indent=1))
        return 0
    print(corpus_text(inspection.figures))
    print(f"\nFigure: {inspection.drawn[0]}")
    if pipeline.outcome.how_to_open:
        print(f"Runs:   {pipeline.outcome.how_to_open}")
    return 0


def _corpus(options: argparse.Namespace) -> tuple[Artifact | None, Config]:
    """The corpus of a directory or URI under a configuration that stands for it, or a configuration alone."""
    if _is_config(options.config):
        return None, load_config(options.config, options.overrides)
    from bertkd_ray.corpus.inspect import open_corpus

    for override in options.overrides:
        if override.partition("=")[0].partition(".")[0] not in ("storage", "tracking"):
            raise UserError(f"{override}: a finished corpus is what it is; only storage and tracking can be set")
    corpus = open_corpus(options.config)
    tree = {"name": "corpora", "storage": corpus.store.uri, "corpus": {"source": "demo"}}
    return corpus, config_of(tree, options.config, options.overrides)


def _submit(options: argparse.Namespace) -> int:
    from bertkd_ray.execution.submission import Job, follow, submit

    job = Job(options.config, options.overrides, options.job, options.working_dir, options.env)
    submitted = submit(job, options.address)
    if not options.json:
        told = (submitted.id, submitted.follow_command, submitted.stop_command)
        print("Job:    {}\nFollow: {}\nStop:   {}".format(*told), flush=True)
    code = follow(submitted, sys.stderr if options.json else sys.stdout) if options.follow else 0
    if options.json:
        print(json.dumps(submitted.as_json() | ({"exit_code": code} if options.follow else {})))
    return code


def _compare(options: argparse.Namespace) -> int:
    from bertkd_ray.report.comparison import SENTENCES, compare_sides, open_sides
    from bertkd_ray.report.comparison_text import comparison_text

    shown = SENTENCES if options.sentences is None else options.sentences
    if shown < 0:
        raise UserError(f"--sentences {shown}: give 0 or more")
    # argparse leaves names that follow an option unread, as it does overrides.
    sides = open_sides([*options.runs, *options.overrides], tracking=options.tracking, storage=options.storage)
    comparison = compare_sides(sides, sentences=shown)
    print(json.dumps(comparison.as_json(), indent=1) if options.json else comparison_text(comparison))
    return 0


def _validate(options: argparse.Namespace) -> int:
    from bertkd_ray.pipeline.checks import check_config, check_store

    if (options.config is None) == (options.artifacts is None):
        raise UserError("validate takes either a CONFIG.yaml or --artifacts DIR")
    if options.config is not None:
        lines = []
        for line in check_config(load_config(options.config, options.overrides)):
            lines.append(line)
            if not options.json:
                print(f"ok  {line}")
        if options.json:
            print(json.dumps({"ok": lines}))
        return 0
    count, problems = check_store(options.artifacts)
    if options.json:
        print(json.dumps({"artifacts": count, "problems": problems}))
    else:
        print("\n".join(problems) or f"ok  {count} artifacts, every file as its manifest says")
    return 2 if problems else 0


def _completion(options: argparse.Namespace) -> int:
    print(completion_script(make_parser(), options.shell))
    return 0
