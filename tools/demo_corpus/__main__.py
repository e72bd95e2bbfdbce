"""`python -m tools.demo_corpus` writes the demo corpus anew, from the root of the source tree."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from tools.demo_corpus.corpus import demo_corpus

EMBEDDED = Path(__file__).resolve().parents[2] / "bertkd_ray" / "corpus" / "demo.tsv.zst"


def write(path: Path) -> None:
    """The default corpus as lines of split, German and English between tabs.

    The lines are always the same; their compressed bytes are those of the installed version of zstd.
    """
    lines = [f"{split}\t{german}\t{english}\n" for split, pairs in demo_corpus().items() for german, english in pairs]
    path.write_bytes(pa.Codec("zstd", compression_level=19).compress("".join(lines).encode(), asbytes=True))


if __name__ == "__main__":
    write(EMBEDDED)
