"""`bertkd plan`: what a configuration and its corpus will take, before anything starts. Nothing is written."""

from argparse import ArgumentParser, Namespace
from typing import Any

from bertkd_ray.cli.arguments import EXIT_CODES, add_config, configuration, print_result
from bertkd_ray.core.console import log
from bertkd_ray.core.errors import UserError

_DEFAULTS = {"vocabulary": 40_000, "held": 5_000}
HELP = "what a configuration and its corpus will take: steps, tokens, operations, device hours, gigabytes"
EPILOG = f"""\
The corpus is the finished one, or else an estimate: the first 131,072 pairs of each source are looked at, 16,384 of
them tokenised, lines counted (beyond 1 GiB of plain text: worked out from the file's size). With --pairs, --src-tokens
and --tgt-tokens no text is needed, and no BERT where its name tells its shape.

Device hours are matrix operations over a rate and the share of it that the stages reach. The rate is measured here, in
about a second, unless --device names one of the table or --rate gives TFLOP/s of bf16 products.

  bertkd plan configs/multi30k.yaml
  bertkd plan mine.yaml student.steps=20000 --device h100 --devices 8
  bertkd plan configs/iwslt14.yaml --pairs 160239 --src-tokens 27 --tgt-tokens 25 --device h200

{EXIT_CODES}"""


def add_options(parser: ArgumentParser) -> None:
    """The configuration, and a corpus or devices that are not at hand."""
    add_config(parser)
    add = parser.add_argument
    vocabulary, held = _DEFAULTS.values()
    add("--pairs", type=int, metavar="N", help="training pairs, to plan without the text")
    add("--src-tokens", type=float, metavar="MEAN", help="with --pairs: tokens of a source sentence")
    add("--tgt-tokens", type=float, metavar="MEAN", help="with --pairs: tokens of a target sentence")
    add("--vocabulary", type=int, metavar="V", help=f"with --pairs: the student's tokens (default: {vocabulary})")
    add("--held", type=int, metavar="N", help=f"with --pairs: pairs of valid, and of test (default: {held})")
    add("--device", metavar="NAME", help="plan for this device: h100 or h200 (default: this machine)")
    add("--rate", type=float, metavar="TFLOPS", help="a device's rate of bf16 products, instead of a measurement")
    add("--devices", type=int, metavar="N", help="devices that share the work (default: workers)")


def call(options: Namespace) -> None:
    """Prints the plan."""
    given = _given_corpus(options)
    if options.rate is not None and not 0 < options.rate <= 10**9:
        raise UserError(f"--rate {options.rate:g}: give TFLOP/s above 0, at most 1e9")
    if options.devices is not None and not 1 <= options.devices <= 10**6:
        raise UserError(f"--devices {options.devices}: give 1 or more, at most 1000000")
    config = configuration(options)
    from bertkd_ray.corpus.sampling import shape_as_given
    from bertkd_ray.plan.costs import plan_pipeline
    from bertkd_ray.plan.text import plan_text
    from bertkd_ray.plan.warnings import epoch_warnings, time_warnings

    corpus = shape_as_given(**given) if given else None
    planned = plan_pipeline(config, corpus, device=options.device, tflops=options.rate, devices=options.devices)
    warnings = [*time_warnings(planned), *epoch_warnings(planned)]
    print_result(options, {**planned.as_json(), "warnings": warnings}, plan_text(planned))
    for warning in warnings:
        log(f"warning: {warning}", stage="plan")


def _given_corpus(options: Namespace) -> dict[str, Any] | None:
    """The corpus that the command line describes, if it does. Raises UserError where it does so by half."""
    needed = {name: getattr(options, name) for name in ("pairs", "src_tokens", "tgt_tokens")}
    more = {name: value for name in _DEFAULTS if (value := getattr(options, name)) is not None}
    missing = [f"--{name.replace('_', '-')}" for name, value in needed.items() if value is None]
    if missing and (more or len(missing) < len(needed)):
        raise UserError(f"a corpus without its text needs {' and '.join(missing)} too")
    return None if missing else _DEFAULTS | needed | more
