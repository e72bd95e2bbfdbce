"""Memory of an extraction actor and of a train worker, for a corpus and for one ten times as large.

Models are small, so that it is the data that shows: one layer of the BERT, a student of width 32. Both read the corpus
as the real ones do. Memory is what a process does not share, its largest value.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psutil

from benchmarks.copies import grown
from benchmarks.memory import is_named, own_mib
from benchmarks.setting import Setting
from benchmarks.table import Row
from benchmarks.timing import Spread, ratios
from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact
from bertkd_ray.config import Config
from bertkd_ray.config.sections import ExtractConfig
from bertkd_ray.execution.dead_letters import ErrorBudget
from bertkd_ray.execution.ray.session import RayRuntime
from bertkd_ray.execution.stage import StageContext
from bertkd_ray.softlabels.extract import ExtractJob, ShardWriter
from bertkd_ray.student import distill
from bertkd_ray.teacher import finetune
from bertkd_ray.teacher.source import model_hash

TIMES = 10
GOAL = "< 5% more"
FRAGMENT_PAIRS = 128
EVERY = 10
"""Of the fragments every so-manieth is extracted, of both corpora: the larger one keeps the actor ten times longer."""
STEPS = 150
RUNS = 3
"""Of each corpus, in turn: the peak of a single one varies by a tenth."""
_INTERVAL = 0.05


def measure(setting: Setting, rounds: int) -> list[Row]:
    """A row for each of the two. rounds: not used, since a peak does not depend on what else the machine does."""
    corpora = [grown(setting.corpus, copies, fragment_pairs=FRAGMENT_PAIRS) for copies in (1, TIMES)]
    config = _config(setting.config)
    runtime = RayRuntime(config)
    runtime.start()
    try:
        teacher = _teacher(config, runtime, corpora[0], setting.bert)
        actors = [[_extracting(config, runtime, corpus, teacher) for corpus in corpora] for _ in range(RUNS)]
        workers = [[_training(config, runtime, corpus) for corpus in corpora] for _ in range(RUNS)]
    finally:
        runtime.close()
    pairs = [corpus.metrics["train/pairs"] for corpus in corpora]
    return [_row("extraction actor", pairs, actors), _row("train worker (distill)", pairs, workers)]


def _row(what: str, pairs: list[float], mib: list[list[float]]) -> Row:
    small, large = ([of_round[index] for of_round in mib] for index in (0, 1))
    return Row(
        f"memory of an {what}" if what[0] in "aeiou" else f"memory of a {what}",
        "MiB",
        Spread.of(large),
        Spread.of(small),
        ratios(large, small),
        GOAL,
        details={"pairs": pairs, "mib": mib, "ours": "the larger corpus", "baseline": "the smaller one"},
    )


def _config(config: Config) -> Config:
    tree: dict[str, Any] = config.model_dump(exclude_unset=True)
    tree |= {"runtime": "ray", "workers": 1, "cpus_per_worker": 1, "log_every": 50, "checkpoint_every": 10 * STEPS}
    tree["teacher"] |= {"layers": 1, "steps": 2, "eval_every": 2, "batch_tokens": 512}
    tree["student"] |= {"encoder_layers": 1, "decoder_layers": 1, "width": 32, "ffn": 64, "heads": 2}
    tree["student"] |= {"steps": STEPS, "eval_every": STEPS, "batch_tokens": 1024}
    tree["arms"] = {"only": {}}
    tree["kd"] = {**tree.get("kd", {}), "alpha": 0.0}
    return Config.model_validate(tree)


def _teacher(config: Config, runtime: RayRuntime, corpus: Artifact, bert: str) -> Artifact:
    work = replace(_fresh(corpus, "teacher"), inputs={"bert": model_hash(bert)})
    return finetune.make(work, StageContext(config, runtime, {"corpus": corpus}, bert))


def _extracting(config: Config, runtime: RayRuntime, corpus: Artifact, teacher: Artifact) -> float:
    """The largest memory (MiB) of an actor that extracts every `EVERY`th fragment."""
    work = _fresh(corpus, "softlabels")
    job = ExtractJob(
        storage=corpus.store.uri,
        artifact=work.directory,
        staging=work.staging,
        corpus=corpus.directory,
        teacher=teacher.directory,
        config=config.model_copy(update={"extract": ExtractConfig(topk=8, passes=7, forward_tokens=2048)}),
        budget=ErrorBudget("extract", 0.0, int(corpus.metrics["train/pairs"])),
    )
    fragments = [entry.path for entry in corpus.files_below("train/")[::EVERY]]
    with peak("ray::MapWorker", "ray::_MapWorker", "ray::Map(") as largest:
        for _ in runtime.map(fragments, ShardWriter, job):
            pass
    corpus.store.delete(work.directory)
    corpus.store.delete(work.staging)
    return largest()


def _training(config: Config, runtime: RayRuntime, corpus: Artifact) -> float:
    """The largest memory (MiB) of a train worker."""
    work = _fresh(corpus, "student")
    with peak("ray::RayTrainWorker") as largest:
        distill.make(work, StageContext(config, runtime, {"corpus": corpus}))
    corpus.store.delete(work.directory)
    return largest()


def _fresh(corpus: Artifact, stage: str) -> PendingArtifact:
    work = PendingArtifact(corpus.store, stage, f"{0xBE7C:016x}", {}, {})
    corpus.store.delete(work.directory)
    corpus.store.delete(work.staging)
    return work


@contextmanager
def peak(*names: str) -> Iterator[Any]:
    """Watches this process' descendants whose name begins so; gives a function for the largest of them in MiB."""
    largest = [0.0]
    ended = threading.Event()

    def watch() -> None:
        driver = psutil.Process()
        while not ended.wait(_INTERVAL):
            for child in driver.children(recursive=True):
                if is_named(child, *names):
                    largest[0] = max(largest[0], own_mib(child))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lambda: _seen(largest[0], names)
    finally:
        ended.set()
        thread.join()


def _seen(mib: float, names: tuple[str, ...]) -> float:
    if mib == 0:
        raise ValueError(f"no process named {' or '.join(names)} was seen")
    return mib
