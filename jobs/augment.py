"""`bertkd augment` as a script: what `ray job submit -- python jobs/augment.py CONFIG.yaml` runs."""

import os
import runpy

if __name__ == "__main__":  # not in a process that is spawned by it
    runpy.run_path(os.path.join(os.path.dirname(os.path.realpath(__file__)), "_job.py"))
