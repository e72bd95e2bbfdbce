"""Descriptions of a corpus and of devices that are not at hand."""

from dataclasses import dataclass

VOCABULARY = 40_000
HELD_PAIRS = 5_000


@dataclass(frozen=True)
class GivenCorpus:
    """A corpus that is described, not read."""

    pairs: int
    src_tokens: float
    tgt_tokens: float
    vocabulary: int = VOCABULARY
    held: int = HELD_PAIRS
    """Pairs of valid, and of test."""


@dataclass(frozen=True)
class GivenDevice:
    """The devices as the command line has them; None is taken from the configuration or measured."""

    name: str | None = None
    tflops: float | None = None
    count: int | None = None
