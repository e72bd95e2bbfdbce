"""The raw sentence pairs of a corpus' configuration, one by one."""

from __future__ import annotations

from bertkd_ray.config.corpus import CorpusConfig
from bertkd_ray.corpus.sources import read_sources


def raw_pairs(corpus: CorpusConfig, split: str) -> list[tuple[str, str]]:
    """The (source, target) pairs of all sources of a split, in the order of the input."""
    tables = [table for source in read_sources(corpus, split) for table in source]
    return [(row["src"], row["tgt"]) for table in tables for row in table.to_pylist()]
