"""The table of commands: for each name its module, its line of help, and whether a cluster may run it as a job."""

from dataclasses import dataclass

from bertkd_ray.core.stages import STAGES, TRANSLATE


@dataclass(frozen=True)
class Command:
    """One command of `bertkd`."""

    module: str
    """Of `bertkd_ray.cli`, with `EPILOG`, `add_options` and `call`."""
    help: str
    is_job: bool = False
    """Whether `bertkd submit --job` takes it."""


COMMANDS = {
    "run": Command("run", "all stages, for every arm, and the table of scores", is_job=True),
    "study": Command(
        "study", "a study: arms of one base configuration under several seeds, and the table that compares them", True
    ),
    **{
        stage.name: Command("translate" if stage is TRANSLATE else "stage", f"stage {number}: {stage.summary}", True)
        for number, stage in enumerate(STAGES.values())
    },
    "export": Command("export", "take a student with you: a directory for CTranslate2 or for plain transformers"),
    "inspect": Command(
        "inspect", "figures of a corpus: counts, lengths, unknown tokens, drops by reason, and a few of its pairs", True
    ),
    "submit": Command(
        "submit", "hand a command to a Ray cluster as a job, with this directory and the configuration in it"
    ),
    "compare": Command(
        "compare", "finished students side by side: settings, scores, a bootstrap, and the sentences that differ most"
    ),
    "report": Command(
        "report", "one HTML page of what is finished: scores, figures, translations, artifacts; makes nothing"
    ),
    "validate": Command(
        "validate", "check a configuration, or a store against its manifests, without training", is_job=True
    ),
    "plan": Command(
        "plan", "what a configuration and its corpus will take: steps, tokens, operations, device hours, gigabytes"
    ),
    "completion": Command("completion", "a script that makes your shell complete commands, options and files"),
}
"""By the name on the command line, in the order of the help."""

JOBS = tuple(name for name, command in COMMANDS.items() if command.is_job)
"""Commands that `bertkd submit` hands to a cluster."""
