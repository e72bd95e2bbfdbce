"""Remarks, never errors, where names or text suggest that source and target have changed places, or are the same.

Without a model of languages one side of a corpus is as good as the other. What can be told is that files are named
after the other side's language, and that one split reads the other way round than train.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import combinations

import pyarrow as pa

from bertkd_ray.config.corpus import SPLITS, CorpusConfig
from bertkd_ray.config.languages import file_ending, language_code

SAMPLE_PAIRS = 1000
"""Pairs of each split that are compared."""
_GRAM, _GRAM_PAIRS = 3, 300
_TIMES = 2


def swapped_names(corpus: CorpusConfig) -> Iterator[str]:
    """A remark for every source whose files are named after each other's language (`train.en` as the German side)."""
    for split in SPLITS:
        for files in corpus.sources(split):
            if files.src is None or files.tgt is None:
                continue
            src_lang, tgt_lang = corpus.languages().values()
            if src_lang != tgt_lang and (_language(files.src), _language(files.tgt)) == (tgt_lang, src_lang):
                yield (
                    f"corpus.{split}: {files.src} is the source, in {corpus.src_lang}, and {files.tgt} the target, in "
                    f"{corpus.tgt_lang}; swap the files, or src_lang and tgt_lang"
                )


def swapped_splits(samples: Mapping[str, pa.Table]) -> Iterator[str]:
    """A remark for every split that reads like train the other way round; samples: `src` and `tgt` by split."""
    if "train" not in samples:
        return
    src, tgt = (set(_grams(samples["train"], side)) for side in ("src", "tgt"))
    src_only, tgt_only = src - tgt, tgt - src
    for split in SPLITS:
        if split != "train" and split in samples:
            counts = {side: Counter(_grams(samples[split], side)) for side in ("src", "tgt")}
            hits = {
                (side, name): sum(counts[side][gram] for gram in distinctive & counts[side].keys())
                for side in ("src", "tgt")
                for name, distinctive in (("src", src_only), ("tgt", tgt_only))
            }
            if hits["src", "tgt"] > _TIMES * hits["src", "src"] and hits["tgt", "src"] > _TIMES * hits["tgt", "tgt"]:
                yield (
                    f"corpus.{split}: its source reads like the target of train, and its target like the source; "
                    "swap them"
                )


def repeated_text(samples: Mapping[str, pa.Table]) -> Iterator[str]:
    """A remark for every two sides that begin alike, one of them a source; samples: as above."""
    heads = {f"{split}.{side}": samples[split][side][:SAMPLE_PAIRS] for split in samples for side in ("src", "tgt")}
    for first, second in combinations(heads, 2):
        lines = min(len(heads[first]), len(heads[second]))
        if first.endswith("src") and lines and heads[first][:lines].equals(heads[second][:lines]):
            yield f"corpus.{first} and corpus.{second} begin with the same lines; give each text of its own"


def _grams(table: pa.Table, side: str) -> Iterator[str]:
    """The runs of three characters of a side's first lines; they tell languages apart in any script."""
    for line in table[side][:_GRAM_PAIRS].to_pylist():
        text = f" {line.lower()} "
        yield from (text[start : start + _GRAM] for start in range(len(text) - _GRAM + 1))


def _language(path: str) -> str:
    """The language that a file is named after: `en` of `train.en.gz`, and of `train.eng`."""
    return language_code(file_ending(path))
