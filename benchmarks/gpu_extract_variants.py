"""Other ways to extract the same pairs: budgets, a compiled encoder, no padding, and shards written meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.gpu_extract import Work, scorer_of
from benchmarks.gpu_rates import Rates
from benchmarks.gpu_results import ResultTable
from benchmarks.gpu_setting import TOPK, GpuSetting
from benchmarks.gpu_timing import ProductRate, teacher_products
from benchmarks.gpu_varlen import VariableLengthScorer
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.softlabels.scoring import Scorer
from bertkd_ray.softlabels.shards import encode_shard, parquet_bytes, shard_schema

FRAGMENTS = 3
Fragment = tuple[Ragged, Ragged, NDArray[np.int64]]
Compile = Callable[[Callable[..., Any]], Callable[..., Any]]


def measure(setting: GpuSetting, results: ResultTable, *, compiles: bool = False) -> None:
    """Pairs a second from token ids to soft labels in memory: today's, and the variants that compile, or the others.

    With the others, to shards on disk too.
    """
    taken = fragments(setting)
    pairs = FRAGMENTS * setting.sizes.fragment_pairs
    default, budgets = setting.sizes.extract_default, setting.sizes.extract_budgets
    first = budgets[0]
    model = setting.teacher(dropout=0.0)
    of_first = [Work.of(setting.sizes.teacher, src, tgt, scorer_of(setting, model, default)) for src, tgt, _ in taken]
    products = teacher_products(setting.sizes.teacher, of_first[0].padded_tokens_a_batch, of_first[0].masked_a_batch)
    product_rate, _ = ProductRate(setting.device, training=False, spent=results.product_seconds)(products)
    flops = sum(each.operations.computed for each in of_first)
    rates = Rates(results, setting.device, "extract", "pairs/s", pairs, flops, product_rate)
    compile_part = compile_of(setting)
    others: dict[str, Callable[[], Scorer]] = {
        **{f"{budget:,} tokens": partial(scorer_of, setting, model, budget) for budget in budgets if budget != default},
        f"{first:,} tokens, variable length": partial(variable_length, setting, model, first),
    }
    compiled: dict[str, Callable[[], Scorer]] = {
        f"{first:,} tokens, compiled": partial(compiled_scorer, setting, model, first, compile_part),
        f"{first:,} tokens, variable length, compiled": partial(variable_length, setting, model, first, compile_part),
    }
    rates.add(f"as today, {default:,} tokens", partial(_scoring, partial(scorer_of, setting, model, default), taken))
    for name, open_scorer in (compiled if compiles else others).items():
        rates.add(name, partial(_scoring, open_scorer, taken), compiles=compiles)
    if not compiles:
        _measure_shards(setting, results, model, taken)


def _measure_shards(setting: GpuSetting, results: ResultTable, model: Any, taken: list[Fragment]) -> None:
    pairs = FRAGMENTS * setting.sizes.fragment_pairs
    rates = Rates(results, setting.device, "extract to shards", "pairs/s", pairs)
    open_scorer = partial(scorer_of, setting, model, setting.sizes.extract_budgets[0])
    for name, behind in (("one after another, as today", False), ("written behind, two fragments in flight", True)):
        rates.add(name, partial(_writing, setting, open_scorer, taken, behind=behind))


def fragments(setting: GpuSetting) -> list[Fragment]:
    """The first pairs, as fragments of the corpus have them."""
    src, tgt = setting.pairs
    size = setting.sizes.fragment_pairs
    rows = [np.arange(start, start + size) for start in range(0, FRAGMENTS * size, size)]
    return [(src.take(of_fragment), tgt.take(of_fragment), of_fragment) for of_fragment in rows]


def compile_of(setting: GpuSetting) -> Compile:
    """Compiles once for all shapes; in miniature traced alone."""
    return partial(torch.compile, dynamic=True, backend="inductor" if setting.sizes.compiles else "aot_eager")


def compiled_scorer(setting: GpuSetting, model: Any, budget: int, compile_part: Compile) -> Scorer:
    """The product's scorer, a layer of whose encoder is compiled."""
    scorer = scorer_of(setting, model, budget)
    encoder: Any = scorer.encoder
    encoder._compute_layer = compile_part(encoder._compute_layer)
    return scorer


def variable_length(
    setting: GpuSetting, model: Any, budget: int, compile_part: Compile | None = None
) -> VariableLengthScorer:
    """A scorer without padding, over the batches of the product's."""
    scorer = scorer_of(setting, model, budget, scorer_class=VariableLengthScorer)
    assert isinstance(scorer, VariableLengthScorer)
    if compile_part is not None:
        scorer.before, scorer.after = compile_part(scorer.before), compile_part(scorer.after)
    return scorer


@contextmanager
def _scoring(open_scorer: Callable[[], Scorer], taken: list[Fragment]) -> Iterator[Callable[[], object]]:
    scorer = open_scorer()
    yield lambda: [scorer.score(*fragment) for fragment in taken]


@contextmanager
def _writing(
    setting: GpuSetting, open_scorer: Callable[[], Scorer], taken: list[Fragment], *, behind: bool
) -> Iterator[Callable[[], object]]:
    scorer, directory = open_scorer(), setting.storage / "shards"
    directory.mkdir(exist_ok=True)
    schema = shard_schema(setting.sizes.teacher.vocabulary, TOPK)

    def write(fragment: Fragment, labels: Any) -> None:
        src, tgt, rows = fragment
        data = parquet_bytes(encode_shard(rows, src, tgt, labels, schema), [len(rows)])
        (directory / f"{rows[0]}.parquet").write_bytes(data)

    def in_turn() -> None:
        for fragment in taken:
            write(fragment, scorer.score(*fragment))

    def meanwhile() -> None:
        with ThreadPoolExecutor(1) as writer:
            written = None
            for fragment in taken:
                labels = scorer.score(*fragment)
                if written is not None:
                    written.result()  # one that is scored and one that is written, no more
                written = writer.submit(write, fragment, labels)
            if written is not None:
                written.result()

    yield meanwhile if behind else in_turn
