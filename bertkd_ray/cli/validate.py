"""`bertkd validate`: a configuration, or a store against its manifests, without training."""

import json
from argparse import ArgumentParser, Namespace

from bertkd_ray.cli.arguments import EXIT_CODES, add_json, configuration
from bertkd_ray.core.errors import UserError

EPILOG = EXIT_CODES


def add_options(parser: ArgumentParser) -> None:
    """A configuration or a store."""
    parser.description = (
        "Check everything that can be checked without training: storage, BERT, vocabulary, device, text, line counts.\n"
        "With --artifacts: every file of a store against its manifest."
    )
    add = parser.add_argument
    add("config", nargs="?", metavar="CONFIG.yaml", help="the configuration")
    add("overrides", nargs="*", metavar="section.key=value", help="changes to it")
    add("--artifacts", metavar="DIR", help="a storage directory or URI whose files are checked")
    add_json(parser)


def call(options: Namespace) -> int:
    """Checks the one or the other."""
    if (options.config is None) == (options.artifacts is None):
        raise UserError("validate takes either a CONFIG.yaml or --artifacts DIR")
    return _validate_store(options) if options.config is None else _validate_config(options)


def _validate_config(options: Namespace) -> int:
    from bertkd_ray.pipeline.checks import check_config

    lines = []
    for line in check_config(configuration(options)):
        lines.append(line)
        if not options.json:
            print(f"ok  {line}")
    if options.json:
        print(json.dumps({"ok": lines}))
    return 0


def _validate_store(options: Namespace) -> int:
    from bertkd_ray.pipeline.checks import check_store

    count, problems = check_store(options.artifacts)
    if options.json:
        print(json.dumps({"artifacts": count, "problems": problems}))
    else:
        print("\n".join(problems) or f"ok  {count} artifacts, every file as its manifest says")
    return 2 if problems else 0
