"""What every script of this directory does: the command of its name, from any directory, the package not installed."""

import sys
from pathlib import Path

sys.path.pop(0)  # the scripts' directory, whose inspect.py would stand before the standard library's
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bertkd_ray.cli import main

sys.exit(main([Path(str(sys.modules["__main__"].__file__)).resolve().stem, *sys.argv[1:]]))
