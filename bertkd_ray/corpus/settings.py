"""What a corpus depends on besides its text, and what the workers of stage 0 are given."""

from dataclasses import dataclass
from typing import Any

from bertkd_ray.config.corpus import SPLITS, CorpusConfig
from bertkd_ray.corpus.sources import source_settings

_NOT_SETTINGS = {*SPLITS, "source", "directory", "archive", "archive_sha256", "cache"}


@dataclass(frozen=True)
class PrepareSettings:
    """How the text becomes token ids."""

    corpus: CorpusConfig

    def fingerprinted(self) -> dict[str, Any]:
        """What enters the fingerprint; the text enters by its content, not by its paths."""
        settings = self.corpus.model_dump(exclude=_NOT_SETTINGS)
        rule = {"dotted_i": True} if any(map(self.corpus.dotted_i, ("src", "tgt"))) else {}
        return {**settings, **rule, **self.corpus.languages(), **source_settings(self.corpus)}

    def is_given_test(self, split: str) -> bool:
        """Whether no rule may drop a pair of the split: a score is over every line of a test set with its own files."""
        return split == "test" and "test" not in self.corpus.held_out()


@dataclass(frozen=True)
class PrepareJob:
    """What the passes are given: the store and directories in it, the settings, and how duplicates are found."""

    storage: str
    staging: str
    artifact: str
    settings: PrepareSettings
    buckets: int = 0
    """Of hashes; with none, no rule needs all of the text."""
    group_starts: tuple[int, ...] = ()
    """Number of the first chunk of every group."""
