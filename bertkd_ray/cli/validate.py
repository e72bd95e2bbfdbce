"""`bertkd validate`: a configuration, or a store against its manifests, without training."""

import json
from argparse import ArgumentParser, Namespace

from bertkd_ray.cli.arguments import EXIT_CODES, add_json, configuration, print_result
from bertkd_ray.core.errors import UserError

HELP = "check a configuration, or a store against its manifests, without training"
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
    from bertkd_ray.pipeline.checks import check_config, check_store

    if options.config is None:
        count, problems = check_store(options.artifacts)
        text = "\n".join(problems) or f"ok  {count} artifact{'s' * (count != 1)}, every file as its manifest says"
        print_result(options, {"artifacts": count, "problems": problems}, text)
        return 2 if problems else 0
    lines = []
    for line in check_config(configuration(options)):
        lines.append(line)
        if not options.json:
            print(f"ok  {line}")
    if options.json:
        print(json.dumps({"ok": lines}))
    return 0
