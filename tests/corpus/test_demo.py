"""The embedded pairs: what stands in fingerprints stays as it is."""

from __future__ import annotations

from bertkd_ray.config.corpus import CorpusConfig
from bertkd_ray.corpus.demo import demo_pairs
from bertkd_ray.corpus.sources import source_hashes


def test_every_split_has_its_pairs():
    assert {split: len(pairs) for split, pairs in demo_pairs().items()} == {"train": 4000, "valid": 1000, "test": 3000}


def test_finished_stores_stay_cached():
    digest = "76a48dda50119167a53e5c66e1df2c975b975220370383a4c3f02b8adf883baa"
    assert source_hashes(CorpusConfig(source="demo")) == {"demo": digest}
