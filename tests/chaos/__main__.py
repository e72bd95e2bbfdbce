"""`python -m tests.chaos --runs 20 --seed 1`: kills, and whether anything was lost, as a table."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from transformers.utils.logging import disable_progress_bar

from tests.chaos.machine import machine
from tests.chaos.trials import Undisturbed, describe, trials


def main() -> int:
    """Prints a row a trial as it ends; 1 if one of them differs from the undisturbed run."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="trials (default: 20)")
    parser.add_argument("--first", type=int, default=1, help="number of the first (default: 1)")
    parser.add_argument("--seed", type=int, default=1, help="what is killed, and when (default: 1)")
    parser.add_argument("--directory", type=Path, help="keep stores and logs here (default: removed at the end)")
    options = parser.parse_args()
    disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch, machine() as cluster:
        directory = (options.directory or Path(scratch)).resolve()
        started = time.monotonic()
        undisturbed = Undisturbed(directory, cluster)
        stages = ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in undisturbed.stage_seconds.items())
        print(f"undisturbed, seconds: {stages}", file=sys.stderr)
        equal, header = 0, False
        for trial in trials(undisturbed, cluster, options.seed, range(options.first, options.first + options.runs)):
            row = describe(trial)
            if not header:
                print("| " + " | ".join(row) + " |\n|" + " --- |" * len(row))
                header = True
            print("| " + " | ".join(row.values()) + " |", flush=True)
            equal += trial.differences.none
        minutes = (time.monotonic() - started) / 60
        print(
            f"\nSeed {options.seed}: {equal} of {options.runs} equal to the undisturbed run, in {minutes:.1f} minutes."
        )
    return 0 if equal == options.runs else 1


if __name__ == "__main__":
    sys.exit(main())
