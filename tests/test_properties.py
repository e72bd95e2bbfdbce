"""What holds for any text: prepare and extract keep every admitted pair exactly once."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.corpus.cleaning import REASONS
from bertkd_ray.corpus.segmentation import normalise
from bertkd_ray.softlabels.extract import shard_name
from bertkd_ray.softlabels.shards import decode_labels
from tests.helpers.local_project import Project

pytestmark = pytest.mark.slow

SAFE = ("Ein Hund schläft.", "Dogs are asleep.")
"""Ends every file but the test set's: no rule drops it, so that something is left."""
TEST = ("Zwei Katzen schlafen.", "Two cats sleep.")
"""Ends the test set."""
K = 4
GLYPHS = [
    *"aäAßz.,'-&@_▁# 0 ",
    "Hund", "dog", "schläft", "[MASK]", "<s>", "</s>", "##a", "&amp;", "@-@",
    "a\u0301", "\u0301", "\u1112\u1161\u11ab", "e\u0323\u0302", "ﬁ", "İ", "ǆ", "Σς",  # combining, compatibility, case
    "😀", "👩‍👩‍👧", "𝒳", "𐍈", "\U000e0041", "\U0010ffff", "\U0001f1e9",  # astral
    "犬", "いぬ", "هر", "שלום", "ไทย", "\u0915\u094d\u0937",
    "\x00", "\x07", "\x1b", "\x1c", "\x7f", "\x85", "\x9f", "\t", "\r", "\x0b", "\x0c",  # control characters
    "\u00a0", "\u2028", "\u2029", "\u200b", "\u200d", "\u00ad", "\u2060", "\ufeff", "\ufffd", "\ue000", "\uffff",
]  # fmt: skip
"""Of what lines are made: words, marks, and what has broken one tool or another."""
LINES = st.one_of(
    st.lists(st.sampled_from(GLYPHS), max_size=12).map("".join),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=8),
    st.sampled_from(["", " ", "Hund " * 120, "x" * 5_000, "犬" * 130, *TEST, "Hund", "dog"]),
)
FILES = st.lists(st.tuples(LINES, LINES), max_size=14)


@dataclass(frozen=True)
class Case:
    """A corpus and how it is prepared."""

    sources: list[tuple[list[tuple[str, str]], float]]
    """Training pairs and their weight, source by source."""
    test: list[tuple[str, str]]
    clean: dict[str, Any]
    lowercase: bool
    fragment_pairs: int
    group_pairs: int

    def overrides(self, directory: Path) -> list[str]:
        """Writes the text below a directory, and says where it is."""
        train = []
        for number, (pairs, weight) in enumerate(self.sources):
            train.append({**_write(directory, f"train{number}", [*pairs, SAFE]), "weight": weight})
        return [
            f"storage={directory / 'artifacts'}",
            "corpus.directory=null",
            f"corpus.train={json.dumps(train)}",
            f"corpus.valid={json.dumps(_write(directory, 'valid', [SAFE]))}",
            f"corpus.test={json.dumps(_write(directory, 'test', [*self.test, TEST]))}",
            f"corpus.clean={json.dumps(self.clean)}",
            f"corpus.lowercase={json.dumps(self.lowercase)}",
            f"corpus.fragment_pairs={self.fragment_pairs}",
            f"corpus.group_pairs={self.group_pairs}",
            "teacher.steps=1",
            "teacher.eval_every=1",
        ]


CLEAN = st.fixed_dictionaries(
    {},
    optional={
        "duplicates": st.booleans(),
        "test_overlap": st.booleans(),
        "identical_sides": st.booleans(),
        "min_words": st.just(2),
        "max_words": st.integers(3, 40),
        "max_ratio": st.sampled_from([1.0, 1.5, 3.0]),
    },
)
CASES = st.builds(
    Case,
    # A whole weight first: of a half, a single pair may be sampled out.
    sources=st.builds(
        lambda first, more: [first, *more],
        st.tuples(FILES, st.sampled_from([1.0, 1.0, 2.0, 2.5])),
        st.lists(st.tuples(FILES, st.sampled_from([0.5, 1.0, 2.0, 2.5])), max_size=2),
    ),
    test=FILES,
    clean=st.one_of(st.just({}), CLEAN),
    lowercase=st.booleans(),
    fragment_pairs=st.integers(1, 9),
    group_pairs=st.integers(1, 9),
)
EVERYTHING = Case(
    sources=[([(f"{one} a", "b " + one) for one in GLYPHS], 2.5), ([SAFE, SAFE, ("", "x"), ("x" * 5_000, "x")], 1.0)],
    test=[("", ""), ("\x00", "\u2028"), TEST],
    clean={"duplicates": True},
    lowercase=False,
    fragment_pairs=7,
    group_pairs=3,
)


def _write(directory: Path, name: str, pairs: list[tuple[str, str]]) -> dict[str, str]:
    files = {}
    for side, key in enumerate(("src", "tgt")):
        path = directory / f"{name}.{key}"
        path.write_bytes("".join(pair[side] + "\n" for pair in pairs).encode())
        files[key] = str(path)
    return files


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Holds the small BERT and the configuration that each case changes."""
    directory = tmp_path_factory.mktemp("home")
    Project(directory)
    return directory


@given(case=CASES)
@example(case=EVERYTHING)
@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    # A case takes a second or two, so to make a failing one smaller would take minutes.
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_admitted_pair_has_its_soft_labels_once(home, case):
    with tempfile.TemporaryDirectory() as directory:
        project = Project(home, *case.overrides(Path(directory)))
        corpus, labels = project.corpus(), project.labels()
        fragments = corpus.files_below("train/")
        shards = {shard_name(entry.path): entry.row_groups for entry in fragments}
        found = {entry.path: entry.row_groups for entry in labels.files if entry.path.startswith("shard-")}
        assert found == shards
        assert all(rows <= case.group_pairs for groups in shards.values() for rows in groups)
        pairs = _together([pq.read_table(corpus.path(entry.path)) for entry in fragments])
        _check_text(case, pairs)
        _check_counts(case, corpus, pairs)
        _check_test(case, corpus)
        for entry in fragments:
            shard = labels.path(shard_name(entry.path))
            _check_shard(pq.read_table(corpus.path(entry.path)), pq.read_table(shard))
        assert labels.metrics["pairs"] == len(pairs)
        assert labels.metrics["rejects"] == 0


def _together(tables: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables).combine_chunks()


def _check_text(case: Case, pairs: pa.Table) -> None:
    """Each id is there once, and what stands there is the line that the id names."""
    ids = pairs["id"].to_pylist()
    assert len(set(ids)) == len(ids)
    for pair in pairs.to_pylist():
        copy, source, line = pair["id"] >> 56, pair["id"] >> 40 & 0xFFFF, pair["id"] & (1 << 40) - 1
        given_pairs, weight = case.sources[source]
        assert copy < np.ceil(weight)
        expected = [*given_pairs, SAFE][line]
        assert (pair["src"], pair["tgt"]) == tuple(_as_read(text, line, case.lowercase) for text in expected)
        assert min(len(pair["src_ids"]), len(pair["tgt_ids"])) > 0
    if case.clean or any(weight % 1 for _, weight in case.sources):
        return
    # Without rules, all are admitted that have text on both sides and few enough tokens, as often as their weight says.
    seen = {pair & (1 << 56) - 1: copies for pair, copies in Counter(i & (1 << 56) - 1 for i in ids).items()}
    for source, (given_pairs, weight) in enumerate(case.sources):
        for line, texts in enumerate([*given_pairs, SAFE]):
            words = [_as_read(text, line, case.lowercase) for text in texts]
            if all(words) and max(map(len, words)) <= 100:
                assert seen[source << 40 | line] == weight
            elif not all(words):
                assert source << 40 | line not in seen


def _as_read(text: str, line: int, lowercase: bool) -> str:
    # The mark of a file's byte order, and the carriage return of a line's end, are no text.
    text = text.removesuffix("\r")
    return normalise(text.removeprefix("\ufeff") if line == 0 else text, lowercase=lowercase)


def _check_counts(case: Case, corpus: Artifact, pairs: pa.Table) -> None:
    """What was read is what is kept and what was dropped, for one reason each."""
    counts = corpus.info["splits"]["train"]
    assert counts["read"] == sum(len(given_pairs) + 1 for given_pairs, _ in case.sources)
    dropped = sum(counts[reason] for reason in REASONS) + counts.get("sampled_out", 0)
    assert counts["read"] == counts["pairs"] - counts.get("repeated", 0) + dropped
    assert counts["pairs"] == len(pairs) == corpus.metrics["train/pairs"]
    assert len({pair & (1 << 56) - 1 for pair in pairs["id"].to_pylist()}) == counts["read"] - dropped


def _check_test(case: Case, corpus: Artifact) -> None:
    """A score is over every line, in the order of the input."""
    table = _together([pq.read_table(corpus.path(entry.path)) for entry in corpus.files_below("test/")])
    expected = [*case.test, TEST]
    assert table["id"].to_pylist() == list(range(len(expected)))
    for row, texts in zip(table.to_pylist(), expected, strict=True):
        assert (row["src"], row["tgt"]) == tuple(_as_read(text, row["id"], case.lowercase) for text in texts)


def _check_shard(fragment: pa.Table, shard: pa.Table) -> None:
    """The pairs of the fragment in its order, with k entries for each target token and for the end."""
    columns = ["id", "src_ids", "tgt_ids"]
    assert shard.select(columns).equals(fragment.select(columns))
    lengths = Ragged.from_arrow(fragment["tgt_ids"]).lengths
    soft = decode_labels(shard)
    assert np.diff(soft.offsets).tolist() == (lengths + 1).tolist()
    assert soft.topk_ids.shape == soft.topk_logits.shape == (int((lengths + 1).sum()), K)
    assert np.isfinite(soft.topk_logits).all()
    assert np.isfinite(soft.logsumexp).all()
    # A position that no pass has predicted would have the same token k times.
    assert (np.sort(soft.topk_ids, axis=1)[:, 1:] != np.sort(soft.topk_ids, axis=1)[:, :-1]).all()
