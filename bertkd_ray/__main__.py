"""`python -m bertkd_ray`: the same as `bertkd`."""

import sys

from bertkd_ray.cli import main

if __name__ == "__main__":
    sys.exit(main())
