"""`bertkd plan` as a script: what `ray job submit -- python jobs/plan.py CONFIG.yaml` runs."""

import sys
from pathlib import Path

sys.path.pop(0)  # this directory, whose inspect.py would stand before the standard library's
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bertkd_ray.cli import main

sys.exit(main(["plan", *sys.argv[1:]]))
