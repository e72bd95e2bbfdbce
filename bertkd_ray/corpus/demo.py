"""The embedded demo corpus: 8,000 German-English sentence pairs that a grammar wrote, under this project's licence.

Everyday topics, a few hundred lemmas, one fixed translation for each sentence, and no sense from one sentence to the
next: BLEU on this text says that the pipeline works, not that a system translates German. The grammar is
`tools/demo_corpus` of the source tree.
"""

from functools import cache
from pathlib import Path

from bertkd_ray.corpus.readers import read_lines

_LINES = Path(__file__).with_name("demo.tsv.zst")


def demo_pairs() -> dict[str, list[tuple[str, str]]]:
    """The (German, English) pairs: 4,000 under "train", 1,000 under "valid", 3,000 under "test".

    No sentence occurs twice in either language, letter case aside.
    """
    return {split: list(pairs) for split, pairs in _read_pairs().items()}


@cache
def _read_pairs() -> dict[str, list[tuple[str, str]]]:
    pairs: dict[str, list[tuple[str, str]]] = {"train": [], "valid": [], "test": []}
    for line in read_lines(str(_LINES)):
        split, german, english = line.split("\t")
        pairs[split].append((german, english))
    return pairs
