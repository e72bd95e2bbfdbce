"""`bertkd`: parse, call, print. Results go to stdout, logs and progress to stderr."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from bertkd_ray import __version__
from bertkd_ray.config import Config, config_of, load_config
from bertkd_ray.core.errors import UserError

if TYPE_CHECKING:
    from bertkd_ray.core.artifact import Artifact

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
one after the other; the same command goes on with a study that was cut off. Keys of the base are set for all arms;
seeds=[1,2], control=NAME and arms.NAME.section.key=value change the study.
{_EXIT_CODES}

  bertkd study configs/studies/demo-temperature.yaml
  bertkd study configs/studies/multi30k-paper.yaml seeds=[1] student.steps=3000
"""
_INSPECT_EPILOG = f"""\
A finished corpus is checked against its manifest first. Only storage, where the figure goes, and tracking can be set
beside it. In MLflow every corpus has one run, so that corpora compare.
{_EXIT_CODES}

  bertkd inspect configs/demo.yaml
  bertkd inspect artifacts/corpus-2ef240917f24d21a --seed 7
  bertkd inspect s3://bucket/store/corpus-2ef240917f24d21a storage=reports tracking=none
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    options = _options(arguments)
    # The hub's progress bars and the tokenizers' warnings about forks say nothing to this program's user.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        return int(options.call(options))
    except UserError as error:
        print(f"bertkd: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bertkd: interrupted; run the same command to go on", file=sys.stderr)
        return 1


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, as everything else here does."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"bertkd: error: {message}; see {self.prog} --help\n")


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
    parser.add_argument("--version", action="version", version=f"bertkd {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    text = "all stages, for every arm, and the table of scores"
    run = commands.add_parser("run", help=text, description=text, epilog=_EXIT_CODES, formatter_class=formatter)
    _add_config(run)
    run.set_defaults(call=_run)
    text = "a study: arms of one base configuration under several seeds, and the table that compares them"
    study = commands.add_parser("study", help=text, description=text, epilog=_STUDY_EPILOG, formatter_class=formatter)
    study.add_argument("config", metavar="STUDY.yaml", help="the study: base (a CONFIG.yaml), overrides, arms, seeds")
    _add_overrides(study)
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
    from bertkd_ray.pipeline import Pipeline
    from bertkd_ray.report.tables import results_table

    with Pipeline(load_config(options.config, options.overrides)) as pipeline:
        outcome = pipeline.run()
    if options.json:
        print(json.dumps(outcome.as_json(), indent=1))
        return 0
    print(results_table(outcome.arms, outcome.signatures))
    if outcome.figures:
        print(f"\nFigures: {outcome.figures[0].parent}")
    if outcome.how_to_open:
        print(f"Runs:    {outcome.how_to_open}")
    return 0


def _study(options: argparse.Namespace) -> int:
    from bertkd_ray.config.study import load_study
    from bertkd_ray.report.study import study_text
    from bertkd_ray.study import StudyRunner

    with StudyRunner(load_study(options.config, options.overrides)) as runner:
        outcome = runner.run()
    if options.json:
        print(json.dumps(outcome.as_json(), indent=1))
        return 0
    print(study_text(outcome.arms, outcome.run_id, outcome.signatures))
    print(f"\nReport: {outcome.report} ({', '.join(outcome.files)})")
    if outcome.how_to_open:
        print(f"Runs:   {outcome.how_to_open}")
    return 0


def _stage(options: argparse.Namespace) -> int:
    from bertkd_ray.pipeline import Pipeline

    config = load_config(options.config, options.overrides)
    with Pipeline(config) as pipeline:
        for call in _calls(pipeline, options, config):
            call()
    outcome = pipeline.outcome
    if options.json:
        print(json.dumps(outcome.as_json(), indent=1))
        return 0
    for name, result in outcome.stages.items():
        print(f"{name:<20} {result.status:<8} {result.artifact.uri}")
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


def _inspect(options: argparse.Namespace) -> int:
    from bertkd_ray.pipeline import Pipeline
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
    if options.config.endswith((".yaml", ".yml")) or os.path.isfile(options.config):
        return None, load_config(options.config, options.overrides)
    from bertkd_ray.corpus.inspect import open_corpus

    for override in options.overrides:
        if override.partition("=")[0].partition(".")[0] not in ("storage", "tracking"):
            raise UserError(f"{override}: a finished corpus is what it is; only storage and tracking can be set")
    corpus = open_corpus(options.config)
    tree = {"name": "corpora", "storage": corpus.store.uri, "corpus": {"source": "demo"}}
    return corpus, config_of(tree, options.config, options.overrides)


def _validate(options: argparse.Namespace) -> int:
    from bertkd_ray.checks import check_config, check_store

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


if __name__ == "__main__":
    sys.exit(main())
