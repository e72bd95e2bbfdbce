"""`bertkd translate`: the test set of a configuration, or lines of text with a finished student or teacher."""

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from bertkd_ray.cli import stage
from bertkd_ray.cli.arguments import EXIT_CODES, is_config
from bertkd_ray.core.console import log
from bertkd_ray.core.errors import UserError

EPILOG = f"""\
With a MODEL in the place of CONFIG.yaml (the DIR or URI of a student artifact, its model directory, an export, or the
artifact of a left-to-right teacher beside its corpus) it translates text: a line for a line, from FILE (.gz and .zst
too) or stdin to stdout, while the input still comes. Long lines are split into sentences and joined again. Lines are
raw text, whatever the model's corpus was, or with --tokenised Moses tokens, escapes included, as the files of a Moses
corpus.

  bertkd translate configs/demo.yaml
  bertkd translate artifacts/student-4ef9fb1b8af97cbe news.de > news.en
  echo "Der Hund schläft." | bertkd translate demo-distilled-ctranslate2 --beam 1

{EXIT_CODES}"""
_STDIN = "-"


def add_options(parser: ArgumentParser) -> None:
    """The options of a stage and of a MODEL."""
    stage.add_options(parser)
    parser.usage = "%(prog)s [OPTIONS] CONFIG.yaml [section.key=value ...]\n       %(prog)s [OPTIONS] MODEL [FILE]"
    add = parser.add_argument
    add("--beam", type=int, metavar="N", help="with a MODEL: beam size (default: the model's; 1: greedy)")
    add("--device", metavar="NAME", help="with a MODEL: auto, cpu, cuda or cuda:N (default: auto)")
    add("--tokenised", action="store_true", help="with a MODEL: lines are Moses tokens, in and out")


def call(options: Namespace) -> None:
    """Makes the stage of a CONFIG.yaml, or translates text with a MODEL."""
    if is_config(options.config):
        if options.beam is not None or options.device is not None:
            raise UserError("--beam and --device belong to a MODEL; set translate.beam=N or device=cpu instead")
        if options.tokenised:
            raise UserError("--tokenised belongs to a MODEL; corpus.text says what the files of a configuration are")
        if files := [word for word in options.overrides if "=" not in word]:
            raise UserError(f"{files[0]}: a CONFIG.yaml's test set is translated; for a file name a student or export")
        stage.call(options)
        return
    if options.arm is not None or options.json:
        raise UserError(f"--arm and --json belong to a CONFIG.yaml; {options.config} is a MODEL, whose output is text")
    _translate_text(options)


def _translate_text(options: Namespace) -> None:
    """Translates a file, or stdin, to stdout."""
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
        translate_stream(translator, line_windows(read, name), out.write, out.flush)


@contextmanager
def _opened(file: str) -> Iterator[tuple[Callable[[int], bytes], str]]:
    """How a file is read, and its name in messages. Of stdin a read gives what is there, so that no line waits."""
    if file == _STDIN:
        if sys.stdin.isatty():
            log("reading lines from the terminal; end with Ctrl-D", stage="translate")
        yield partial(os.read, sys.stdin.fileno()), "stdin"
        return
    from bertkd_ray.corpus.readers import open_bytes

    with open_bytes(file, once=True) as stream:
        yield stream.read, file
