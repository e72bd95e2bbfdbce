"""`bertkd submit`: a command as a job of a Ray cluster."""

import json
import sys
from argparse import ArgumentParser, Namespace

from bertkd_ray.cli.arguments import EXIT_CODES, add_overrides
from bertkd_ray.core.stages import STAGES

HELP = "hand a command to a Ray cluster as a job, with this directory and the configuration in it"
EPILOG = f"""\
The directory travels without what .gitignore and .rayignore name, and not with a file that looks like a secret (.env,
a private key); deploy/runtime_env.yaml in it says what else the job sees. Of the variables set here MLFLOW_TRACKING_URI
travels, and those that --env names; Ray shows a job's variables to whoever may see the job, so credentials are better
given to the cluster's nodes. RAY_AUTH_MODE and the token are Ray's.
With --follow the exit code is the job's. {EXIT_CODES}

  bertkd submit configs/demo.yaml storage=s3://bucket/demo tracking=none --address http://head:8265 --follow
  bertkd submit configs/multi30k.yaml storage=/shared/store --job finetune --env HF_TOKEN
"""
JOBS = ("run", "study", *STAGES, "inspect", "validate")
"""Commands that a cluster runs as a job."""


def add_options(parser: ArgumentParser) -> None:
    """The configuration, the cluster, and what of this machine the job sees."""
    add = parser.add_argument
    add("config", metavar="CONFIG.yaml", help="the configuration, or the study for --job study")
    add_overrides(parser)
    what = "what the cluster runs: %(choices)s (default: run)"
    add("--job", choices=JOBS, default="run", metavar="COMMAND", help=what)
    add("--address", metavar="URL", help="the cluster's job server, http://HOST:8265")
    add("--follow", action="store_true", help="show the job's log and end with its exit code")
    add("--working-dir", default=".", metavar="DIR", help="what the job sees (default: .)")
    add("--env", action="append", default=[], metavar="NAME", help="pass on a variable that is set here; repeatable")
    add("--json", action="store_true", help="print one JSON object; the log goes to stderr")


def call(options: Namespace) -> int:
    """Submits one job; with `--follow` until its end, whose exit code it returns."""
    from bertkd_ray.execution.submission import SubmittedJob, follow, submit

    job = SubmittedJob(options.config, options.overrides, options.job, options.working_dir, options.env)
    submitted = submit(job, options.address)
    summary = submitted.as_json()
    if not options.json:
        print(f"Job:    {summary['job']}\nFollow: {summary['follow']}\nStop:   {summary['stop']}", flush=True)
    code = follow(submitted, sys.stderr if options.json else sys.stdout) if options.follow else 0
    if options.json:
        print(json.dumps(summary | ({"exit_code": code} if options.follow else {})))
    return code
