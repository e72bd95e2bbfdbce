"""The artifacts of a pipeline as a tree: each hangs below the newest artifact that it was made from."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from bertkd_ray.artifacts.artifact import Artifact


class Node(NamedTuple):
    """An artifact in the tree."""

    name: str
    """Stage, or stage/arm."""
    artifact: Artifact
    depth: int
    """Level in the tree; 0 for the corpus."""
    sources: dict[str, str]
    """Stage of each artifact that it was made from, and the input's fingerprint."""
    texts: dict[str, str]
    """Its other inputs, by name and content hash: text, a BERT."""

    @property
    def bytes(self) -> int:
        """Bytes of all files of the artifact."""
        return sum(entry.bytes for entry in self.artifact.files)


def lineage(stages: Mapping[str, Artifact]) -> list[Node]:
    """The artifacts of a pipeline, by stage or stage/arm, from the top of the tree downwards.

    An artifact hangs below that of its inputs which was itself made last, counted in steps from the text; its other
    inputs are only named. An artifact without inputs among these (its maker's are not given) stands at the top.
    """
    by_digest = {artifact.fingerprint: name for name, artifact in stages.items()}
    depths: dict[str, int] = {}

    def inputs(name: str) -> list[str]:
        return [by_digest[digest] for digest in stages[name].inputs.values() if digest in by_digest]

    def depth(name: str) -> int:
        if name not in depths:
            depths[name] = 1 + max((depth(source) for source in inputs(name)), default=-1)
        return depths[name]

    parents = {name: max(inputs(name), key=depth, default=None) for name in stages}

    def below(parent: str | None, level: int) -> Iterator[Node]:
        # The order of the mapping within a parent: arms stay in theirs.
        for name, artifact in stages.items():
            if parents[name] == parent:
                # Sorted: a manifest that was read back has them in another order than one that was just made.
                given = sorted(artifact.inputs.items())
                sources = {by_digest[digest]: digest for _, digest in given if digest in by_digest}
                texts = {source: digest for source, digest in given if digest not in by_digest}
                yield Node(name, artifact, level, sources, texts)
                yield from below(name, level + 1)

    return list(below(None, 0))
