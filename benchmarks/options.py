"""What the benchmarks' command lines have in common."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from functools import partial


def add_only(parser: argparse.ArgumentParser, known: Collection[str], what: str) -> None:
    """Adds `--only NAME,NAME`; what: "rows" or "blocks"."""
    names = partial(_chosen_names, known=known)
    parser.add_argument("--only", type=names, default=list(known), help=f"{what}, of {','.join(known)}")


def _chosen_names(text: str, known: Collection[str]) -> list[str]:
    """Names from a list with commas, in the order of the known ones; raises argparse's error for another."""
    chosen = text.split(",")
    if unknown := set(chosen) - set(known):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: choose from {', '.join(known)}")
    return [name for name in known if name in chosen]
