"""Extraction: from a fragment of the corpus to the bytes of its shard of soft labels."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from unittest.mock import patch

from torch import Tensor

from benchmarks.baselines import OriginalExtraction
from benchmarks.comparison import OURS, compare
from benchmarks.setting import CPU, Setting
from benchmarks.table import Row
from benchmarks.timing import Spread, interleaved, rates, ratios
from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.execution.dead_letters import ErrorBudget
from bertkd_ray.softlabels.extract import ExtractJob, ShardWriter
from bertkd_ray.softlabels.scoring import Scorer
from bertkd_ray.teacher.finetune import MODEL
from bertkd_ray.teacher.model import ConditionalMaskedLM, load_teacher

TOPK = 8
_PLACE, _WORK = "benchmark-shards", "benchmark-work"
_ORIGINAL, _PADDED = "original", "padded"
_PACKED_PAIRS = {"both": 256, "left_to_right": 2_048}


def measure(setting: Setting, rounds: int) -> list[Row]:
    """Pairs a second and the shard's size, for the corpus's first fragment."""
    corpus, teacher, config = setting.corpus, setting.teacher, setting.config
    store = corpus.store
    entry = corpus.files_below("train/")[0]
    pairs = entry.rows
    job = ExtractJob(
        storage=store.uri,
        artifact=_PLACE,
        staging=_WORK,
        corpus=corpus.directory,
        teacher=teacher.directory,
        config=config.model_copy(update={"extract": config.extract.model_copy(update={"topk": TOPK, "passes": 7})}),
        budget=ErrorBudget("extract", 0.0, pairs),
    )
    writer, fragment = ShardWriter(job), entry.path

    def ours() -> None:
        # A shard that is there is not made again, and one that was begun before is made with more care.
        store.delete(_PLACE)
        store.delete(_WORK)
        writer(fragment)

    with scratch_directory("teacher-") as scratch:
        model = load_teacher(teacher.local(MODEL, scratch))
    original = OriginalExtraction(model, setting.bert_ids, setting.specials, TOPK)

    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:

        def theirs() -> None:
            table = corpus.read_table(entry.path).combine_chunks()
            original(Ragged.from_arrow(table["src_ids"]), Ragged.from_arrow(table["tgt_ids"]), Path(directory))

        try:
            compared = compare(ours, {_ORIGINAL: theirs}, rounds, setting.clock)
            sizes = [size for name, size in store.files(_PLACE) if name.endswith(".parquet")]
        finally:
            store.delete(_PLACE)
            store.delete(_WORK)
        stored = sum(path.stat().st_size for path in Path(directory).iterdir())
    targets = _targets(setting, entry.path)
    positions = targets + pairs
    speed = Row(
        "extract",
        "pairs/s",
        ours=compared.rate(OURS, pairs),
        baseline=compared.rate(_ORIGINAL, pairs),
        ratio=compared.ratio(_ORIGINAL, pairs, pairs),
        goal="≥ 8; ≥ 50% of the products",
        **compared.columns,
        details={"pairs": pairs, "positions": positions, "topk": TOPK, **compared.details()},
    )
    ours_size, their_size = Spread.of([size / positions for size in sizes]), Spread.of([stored / positions])
    size = Row(
        "soft labels on disk",
        "bytes a target position",
        ours=ours_size,
        baseline=their_size,
        ratio=Spread.of([size / stored for size in sizes]),
        goal="≤ 40 bytes",
        details={"note": "the baseline has hidden states in float16 and k float16 logits with int32 ids, no logsumexp"},
    )
    return [speed, size]


def packing(setting: Setting, rounds: int) -> list[Row]:
    """Pairs a second of the teacher's pass, by its direction, against the same one on padded hidden states."""
    rows = []
    for direction, pairs in _PACKED_PAIRS.items():
        model = setting.new_teacher()
        model.config.direction = direction
        budget = setting.config.extract.forward_tokens
        scorer = Scorer(
            model,
            setting.bert_ids,
            setting.specials,
            topk=TOPK,
            batch_tokens=budget,
            precision=setting.precision,
            device=CPU,
        )
        table = setting.rows("train").slice(0, pairs)
        src, tgt = (Ragged.from_arrow(table[side]) for side in ("src_ids", "tgt_ids"))
        ours = partial(scorer.score, src, tgt, table["id"].to_numpy())
        theirs = patch.object(ConditionalMaskedLM, "packed", padded_pass)(lambda ours=ours: ours())
        seconds = interleaved({OURS: ours, _PADDED: theirs}, rounds, clock=setting.clock)
        packed, padded = (rates(pairs, seconds[name]) for name in (OURS, _PADDED))
        row = Row(
            f"extract ({direction}) against padded hidden states",
            "pairs/s",
            ours=Spread.of(packed),
            baseline=Spread.of(padded),
            ratio=ratios(packed, padded),
            goal="> 1",
            details={"pairs": pairs, "seconds": seconds},
        )
        rows.append(row)
    return rows


def padded_pass(
    model: ConditionalMaskedLM, inputs: tuple[Tensor, ...], attention_mask: Tensor | None, _: Tensor, most: int
) -> Tensor:
    """A teacher's pass over padded hidden states, in place of its `packed`; [M, H]."""
    hidden_MH: Tensor = model(inputs[0], inputs[1], attention_mask, inputs[2], most)
    return hidden_MH


def _targets(setting: Setting, fragment: str) -> int:
    """Target tokens of a fragment."""
    return int(Ragged.from_arrow(setting.corpus.read_table(fragment, ["tgt_ids"])["tgt_ids"]).lengths.sum())
