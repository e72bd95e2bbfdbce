"""`bertkd --version`: this package and what it stands on, as installed, without importing any of it."""

import argparse
from typing import Any

from bertkd_ray import __version__
from bertkd_ray.core.libraries import library_versions

STACK = ("ray", "torch", "transformers", "tokenizers", "pyarrow", "mlflow", "sacrebleu", "ctranslate2")
"""Distributions whose versions belong into a report of a defect; the last one is optional."""


def versions() -> dict[str, str]:
    """Version by name: this package's, Python's, the stack's; `not installed` where there is none."""
    return {"bertkd": __version__, **library_versions(STACK)}


class ShowVersions(argparse.Action):
    """Prints a line for each and ends the program."""

    def __init__(self, option_strings: list[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Called by argparse where the option stands."""
        installed = versions()
        width = max(map(len, installed))
        print("\n".join(f"{name:<{width}}  {version}" for name, version in installed.items()))
        parser.exit()
