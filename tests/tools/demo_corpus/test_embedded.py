"""What the package carries is what the grammar writes."""

from __future__ import annotations

from pathlib import Path

from bertkd_ray.corpus.demo import demo_pairs
from bertkd_ray.corpus.readers import open_bytes
from tools.demo_corpus import demo_corpus
from tools.demo_corpus.__main__ import EMBEDDED, write


def lines_of(path: Path) -> bytes:
    with open_bytes(str(path)) as stream:
        return stream.read()


def test_the_embedded_lines_are_written_again(tmp_path: Path) -> None:
    """The lines are compared, not the file: another version of zstd compresses them to other bytes."""
    write(tmp_path / "again.zst")
    assert lines_of(tmp_path / "again.zst") == lines_of(EMBEDDED)


def test_the_pairs_are_read_as_they_were_drawn() -> None:
    assert demo_pairs() == demo_corpus()
