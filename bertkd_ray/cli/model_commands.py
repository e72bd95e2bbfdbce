"""`bertkd export` and `bertkd translate MODEL`: what is done with a student once it is finished."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from bertkd_ray.config import Config
from bertkd_ray.core.console import log
from bertkd_ray.core.errors import UserError

if TYPE_CHECKING:
    from bertkd_ray.translation.export import Exported

LINES_EPILOG = """\
With a MODEL in the place of CONFIG.yaml (the DIR or URI of a student artifact, its model directory or an export) it
translates text: a line for a line, from FILE (.gz and .zst too) or stdin to stdout, while the input still comes. Long
lines are split into sentences and joined again. Lines are raw text, whatever the model's corpus was, or with
--tokenised Moses tokens, escapes included, as the files of a Moses corpus.

  bertkd translate configs/demo.yaml
  bertkd translate artifacts/student-4ef9fb1b8af97cbe news.de > news.en
  echo "Der Hund schläft." | bertkd translate demo-distilled-ctranslate2 --beam 1
"""
EXPORT_EPILOG = """\
The student must be finished. ctranslate2 (pip install "bertkd-ray[export]") is measured: BLEU and speed beside the
student in PyTorch, on the corpus' test text. Both directories hold the tokenizer and a model card, README.md.

  bertkd export configs/demo.yaml --to ctranslate2 --quantization int8
  bertkd export s3://bucket/store/student-4ef9fb1b8af97cbe --to huggingface --license cc-by-4.0 --output model
"""
_STDIN = "-"


def add_line_options(command: ArgumentParser) -> None:
    """Those of `bertkd translate MODEL`."""
    command.add_argument(
        "--beam", type=int, metavar="N", help="with a MODEL: beam size (default: the model's; 1: greedy)"
    )
    command.add_argument("--device", metavar="NAME", help="with a MODEL: auto, cpu, cuda or cuda:N (default: auto)")
    command.add_argument("--tokenised", action="store_true", help="with a MODEL: lines are Moses tokens, in and out")


def add_export_options(command: ArgumentParser) -> None:
    """Those of `bertkd export MODEL`."""
    command.add_argument("--arm", metavar="NAME", help="of the configuration (default: the first with a teacher)")
    command.add_argument("--to", required=True, choices=("ctranslate2", "huggingface"), help="the form")
    command.add_argument(
        "--output", metavar="DIR", help="or a URI: what is made (default: named for MODEL, in this directory)"
    )
    command.add_argument("--force", action="store_true", help="replace an earlier export")
    command.add_argument(
        "--license", metavar="ID", help="of the model card, as the hub calls it: apache-2.0, cc-by-4.0, …"
    )
    command.add_argument(
        "--quantization", metavar="TYPE", help="ctranslate2: int8, int16, float16, … (default: float32)"
    )
    command.add_argument(
        "--sentences", type=int, metavar="N", help="ctranslate2: how many to measure with (default: 200; 0: none)"
    )
    command.add_argument("--json", action="store_true", help="print one JSON object")


def export_student(options: Namespace, config: Config | None) -> Exported:
    """Exports the student of a configuration's arm, or that of a directory or URI (config: None)."""
    from bertkd_ray.student.lineage import distilled_arm, lineage_of, student_at, student_of
    from bertkd_ray.translation import export as exports

    _check(options, config, exports.QUANTIZATIONS)
    if config is not None:
        arm = options.arm or distilled_arm(config)
        student, name = student_of(config, arm, options.config), f"{config.name}-{arm}"
    else:
        student = student_at(options.config)
        name = student.directory
    quantization = options.quantization or "float32"
    output = options.output or str(exports.default_output(name, options.to, quantization))
    given = {"license": options.license, "force": options.force}
    if options.to == "huggingface":
        export = partial(exports.export_huggingface, lineage_of(student), **given)
    else:
        sentences = exports.SENTENCES if options.sentences is None else options.sentences
        export = partial(
            exports.export_ctranslate2, lineage_of(student), quantization=quantization, sentences=sentences, **given
        )
    return exports.export_to(output, export, force=options.force)


def _check(options: Namespace, config: Config | None, quantizations: Sequence[str]) -> None:
    """Raises UserError for options that do not fit each other."""
    if config is None and (options.arm is not None or options.overrides):
        given = options.overrides[0] if options.overrides else f"--arm {options.arm}"
        raise UserError(f"{given}: a finished student is what it is; only a CONFIG.yaml has arms and keys")
    for name in ("quantization", "sentences"):
        if options.to == "huggingface" and getattr(options, name) is not None:
            raise UserError(f"--{name} belongs to --to ctranslate2; remove it")
    if options.quantization is not None and options.quantization not in quantizations:
        raise UserError(f"--quantization {options.quantization}: give one of {', '.join(quantizations)}")
    if options.sentences is not None and options.sentences < 0:
        raise UserError(f"--sentences {options.sentences}: give a number of sentences, or 0 to measure nothing")


def refuse_line_options(options: Namespace) -> None:
    """Raises UserError where a configuration is given the options of a MODEL."""
    if options.beam is not None or options.device is not None:
        raise UserError("--beam and --device belong to a MODEL; set translate.beam=N or device=cpu instead")
    if options.tokenised:
        raise UserError("--tokenised belongs to a MODEL; corpus.text says what the files of a configuration are")


def translate_text(options: Namespace) -> int:
    """Translates a file, or stdin, to stdout; ends quietly when nobody reads on."""
    files = options.overrides
    if len(files) > 1:
        raise UserError(f"{files[1]}: bertkd translate MODEL takes one FILE, or stdin")
    with _opened(files[0] if files else _STDIN) as (read, name):
        from bertkd_ray.translation.lines import line_windows, translate_stream
        from bertkd_ray.translation.models import open_translator

        translator = open_translator(
            options.config, beam=options.beam, device=options.device or "auto", tokenised=options.tokenised
        )
        out = sys.stdout.buffer
        try:
            translate_stream(translator, line_windows(read, name), out.write, out.flush)
        except BrokenPipeError:
            # Python flushes stdout once more when it ends, and would complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


@contextmanager
def _opened(file: str) -> Iterator[tuple[Callable[[int], bytes], str]]:
    """How a file is read, and its name in messages. Of stdin a read gives what is there, so that no line waits."""
    if file == _STDIN:
        if sys.stdin.isatty():
            log("reading lines from the terminal; end with Ctrl-D", stage="translate")
        yield partial(os.read, sys.stdin.fileno()), "stdin"
        return
    from bertkd_ray.corpus.readers import open_bytes

    with open_bytes(file) as stream:
        yield stream.read, file
