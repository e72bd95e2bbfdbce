"""`bertkd init`: a configuration for a corpus, this machine and a number of hours."""

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from bertkd_ray.cli.arguments import EXIT_CODES
from bertkd_ray.core.console import log
from bertkd_ray.core.errors import UserError

HELP = "write a configuration for a corpus, this machine and the hours that there are, every line with its reason"
EPILOG = f"""\
The text is two line-aligned files, or one of .tsv, .jsonl or .parquet (columns as in docs/corpora.md); languages are
the ends of the files' names (train.de, train.en) unless they are given. What is not named of valid and test is held out
of the training text. The configuration goes to stdout, or to --output; `bertkd run` does the rest.

  bertkd init data/train.de data/train.en > mine.yaml
  bertkd init train.de.gz train.en.gz --valid dev.de dev.en --test test.de test.en --hours 8 --output mine.yaml
  bertkd init pairs.tsv --src-lang cs --tgt-lang en --teacher google-bert/bert-base-multilingual-cased --device h100

{EXIT_CODES}"""
_ONE_FILE = ("tsv", "jsonl", "parquet")
_NO_LANGUAGES = ("txt", "src", "tgt", "trg", "ref", "tok", "raw", "snt", "bpe")
"""Usual endings of text files, most of them codes of small languages, too: those are to be given as options."""


def add_options(parser: ArgumentParser) -> None:
    """The text, and what there is to train with."""
    add = parser.add_argument
    add("train", nargs="+", metavar="FILE", help="the training text: source and target, or one file of pairs")
    add("--valid", nargs="+", metavar="FILE", help="the valid set, likewise (default: held out)")
    add("--test", nargs="+", metavar="FILE", help="the test set, likewise (default: held out)")
    add("--src-lang", metavar="CODE", help="language of the source (default: the end of the file's name)")
    add("--tgt-lang", metavar="CODE", help="language of the target, likewise")
    add(
        "--teacher",
        metavar="MODEL",
        help="the BERT: a hub id, a directory, package:NAME/DIRECTORY (default: a fitting one)",
    )
    add("--hours", type=float, default=2.0, metavar="H", help="time for the whole pipeline (default: 2)")
    add("--device", metavar="NAME", help="choose for this device: h100 or h200 (default: this machine)")
    add("--name", metavar="NAME", help="the pipeline's name (default: that of the output, or mine)")
    add("--output", type=Path, metavar="FILE", help="the file to write, which must not be there (default: stdout)")


def call(options: Namespace) -> None:
    """Prints or writes the configuration."""
    if not 0 < options.hours <= 10**5:
        raise UserError(f"--hours {options.hours:g}: give hours above 0, at most 100000")
    output = options.output
    if output is not None:
        _require_free(output)
    splits = {split: files for split in ("train", "valid", "test") if (files := getattr(options, split))}
    corpus: dict[str, Any] = {split: _source(files, split) for split, files in splits.items()}
    # The ending of a single file is its form; `tsv` is a language, too, as are `txt`, `src` and `tgt`.
    named = [_language(path) for path in options.train] if len(options.train) == 2 else [None, None]
    if named[0] == named[1]:
        named = [None, None]
    languages = [options.src_lang or named[0], options.tgt_lang or named[1]]
    for side, language in zip(("src", "tgt"), languages, strict=True):
        if language is None:
            raise UserError(f"--{side}-lang: the name of the training text does not tell the language; give its code")
        corpus[f"{side}_lang"] = language
    name = options.name or ("mine" if output is None else output.name.partition(".")[0] or "mine")
    from bertkd_ray.plan.rates import DEVICES
    from bertkd_ray.plan.recommendation import Request, recommend
    from bertkd_ray.plan.warnings import epoch_warnings, time_warnings

    if options.device is not None and options.device.lower() not in DEVICES:
        raise UserError(f"--device {options.device}: known are {', '.join(DEVICES)}; leave it out for this machine")
    chosen = recommend(Request(name, corpus, options.hours, options.teacher, options.device))
    if output is None:
        print(chosen.as_yaml(), end="")
    else:
        _write_new(output, chosen.as_yaml())
    log(chosen.headline(), stage="init")
    for warning in (*time_warnings(chosen.plan), *epoch_warnings(chosen.plan)):
        log(f"warning: {warning}", stage="init")
    if output is not None:
        log(f"{output} is written; next: bertkd run {output}", stage="init")


def _require_free(output: Path) -> None:
    """Raises UserError where something, a link to nowhere too, stands at a place, or no directory holds it."""
    if os.path.lexists(output):
        raise _taken(output)
    if not output.parent.is_dir():
        raise UserError(f"{output}: there is no directory {output.parent}; make it or name another --output")


def _write_new(output: Path, text: str) -> None:
    """Writes a file that is not there, even if one, or a link, has come since that was looked at."""
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise _taken(output) from None
    except OSError as error:
        raise UserError(f"{output}: cannot be written, {error.strerror}; name another --output") from None


def _taken(output: Path) -> UserError:
    return UserError(f"{output}: is there already; move it away or name another --output")


def _source(files: list[str], split: str) -> dict[str, str]:
    """A source of a split: two files of text, or one whose ending names its form."""
    if len(files) == 2:
        return {"src": files[0], "tgt": files[1]}
    from bertkd_ray.config.languages import file_ending

    ending = file_ending(files[0])
    if len(files) > 2 or ending not in _ONE_FILE:
        given = " ".join(files)
        raise UserError(f"{split}: {given}: give two files, source and target, or one .tsv, .jsonl or .parquet")
    return {ending: files[0]}


def _language(path: str) -> str | None:
    from bertkd_ray.config.languages import file_ending, is_language_code

    ending = file_ending(path)
    return ending if ending not in _NO_LANGUAGES and is_language_code(ending) else None
