"""Studies side by side: every corpus, teacher and student of them is a task of a pool of processes.

A task starts when the artifacts that it is made from are finished; an artifact that several arms or studies share is
one task. A study is compared as soon as its last student is finished. What fails keeps only those from starting that
need it. Under Ray all processes are drivers of one session, and its resources say what really runs at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import active_children, get_context
from typing import Any

from bertkd_ray.artifacts.manifest import MANIFEST
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config.study import Study, Trial
from bertkd_ray.core.console import Progress, log
from bertkd_ray.core.environment import variables
from bertkd_ray.core.errors import UserError, one_line
from bertkd_ray.pipeline.study import BuildRecord, StudyOutcome, StudyRunner, TrialPipeline
from bertkd_ray.student.lineage import SharedInputs, shared_inputs
from bertkd_ray.tracking.interface import NO_TRACKING, RunRef
from bertkd_ray.translation import translate

_ORDER = ("study", "translate", "prepare", "finetune", "extract", "distill")
"""Which of the tasks that can start is begun first: what others wait for goes before students, what is short first."""


@dataclass
class _Task:
    stage: str
    """`study` for the comparison of one."""
    arguments: tuple[Any, ...]
    needs: tuple[str, ...]
    error: BaseException | None = None

    @property
    def label(self) -> str:
        """What people call it."""
        if self.stage == "study":
            return f"study {self.arguments[0].settings.name}"
        trial: Trial = self.arguments[0]
        return f"{self.stage} of {trial.config.name}: {trial.arm}, seed {trial.seed}"


@dataclass
class _Graph:
    """All tasks by name: the directory of what they make, of a study `study/NAME`."""

    tasks: dict[str, _Task] = field(default_factory=dict)
    _shared: dict[str, SharedInputs] = field(default_factory=dict)

    def add(self, study: Study, parent: RunRef) -> None:
        """A study and everything that it is made from."""
        translations = tuple(self._add_trial(trial, parent) for trial in study.trials)
        self.tasks[_name(study)] = _Task("study", (study,), translations)

    def _add_trial(self, trial: Trial, parent: RunRef) -> str:
        store, config = Store(trial.config.storage), trial.config.arm_configs()[trial.arm]
        key = config.model_dump_json(include={"corpus", "teacher", "extract", "kd", "arms", "seed", "precision"})
        if key not in self._shared:  # hashing text and BERT takes a while
            self._shared[key] = shared_inputs(trial.config, store)
        shared = self._shared[key]
        student = shared.student(config, store)
        translation = translate.pending_artifact(config, store, shared.corpus.fingerprint, student.fingerprint)
        chain = {"prepare": shared.corpus, "distill": student, "translate": translation}
        if config.kd.alpha > 0:
            teacher = {"finetune": shared.teacher, "extract": shared.softlabels}
            chain = {"prepare": shared.corpus, **teacher, "distill": student, "translate": translation}
        needs: tuple[str, ...] = ()
        for stage, draft in chain.items():
            self.tasks.setdefault(draft.directory, _Task(stage, (trial, parent), needs))
            needs = (draft.directory,)
        return translation.directory


def finished_part(study: Study) -> Study:
    """The study with the arms alone that are finished under all of its seeds.

    Raises UserError where the control is not among them, or nothing but it is.
    """
    graph = _Graph()
    graph.add(study, RunRef(NO_TRACKING, ""))
    store = Store(study.config.storage)
    unfinished = {
        trial.arm
        for trial, translation in zip(study.trials, graph.tasks[_name(study)].needs, strict=True)
        if not store.exists(translation, MANIFEST)
    }
    arms = {arm: keys for arm, keys in study.settings.arms.items() if arm not in unfinished}
    if study.control in unfinished or len(arms) < 2:
        raise UserError(
            f"{study.settings.name}: of its arms {', '.join(arms) or 'none'} is finished under all seeds, which leaves "
            "nothing to compare; run the study without --finished"
        )
    settings = study.settings.model_copy(update={"arms": arms})
    return Study(settings, study.control, [trial for trial in study.trials if trial.arm in arms])


def run_studies(studies: Sequence[Study], jobs: int) -> Iterator[StudyOutcome]:
    """Runs studies with so many processes at a time and gives the outcome of each, in the order of their ends.

    Finished artifacts are found, not made. Raises, after all that can be done is done, the first task's error. Raises
    UserError for two studies of one name or with different stores.
    """
    _require_one_place(studies)
    graph = _Graph()
    open_runs = {_name(study): StudyRunner(study).parent for study in studies}
    for study in studies:
        graph.add(study, open_runs[_name(study)].ref)
    try:
        with _session(studies[0]), _pool(jobs) as pool, Progress(len(graph.tasks), "study", "tasks") as progress:
            for done, (task, result) in enumerate(_completed(graph.tasks, pool, jobs), start=1):
                progress.update(done)
                if task.stage == "study" and task.error is None:
                    # Its own process has ended its run.
                    del open_runs[_name(task.arguments[0])]
                    yield result
    finally:
        for run in open_runs.values():
            run.finish("FAILED")
    for task in graph.tasks.values():
        if task.error is not None:
            raise task.error


def _require_one_place(studies: Sequence[Study]) -> None:
    names = [study.settings.name for study in studies]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise UserError(f"{repeated[0]}: two of the studies have this name; give each its own")
    if len(places := {study.config.storage for study in studies}) > 1:
        raise UserError(f"storage: the studies have {' and '.join(sorted(places))}; set one storage for all of them")


def _name(study: Study) -> str:
    return f"study/{study.settings.name}"


def _completed(tasks: dict[str, _Task], pool: ProcessPoolExecutor, jobs: int) -> Iterator[tuple[_Task, Any]]:
    """Every task with its result, in the order of their ends; None for one that failed or could not start."""
    waiting, finished, made = dict(tasks), set[str](), BuildRecord()
    running: dict[Future[Any], str] = {}
    while waiting or running:
        for name, error in _doomed(waiting, tasks):
            waiting.pop(name).error = error
            yield tasks[name], None
        for name in _most_urgent(waiting, finished, jobs - len(running)):
            running[pool.submit(_run, waiting[name].stage, waiting.pop(name).arguments, made)] = name
        ended, _ = wait(running, return_when=FIRST_COMPLETED) if running else (set(), set())
        for future in ended:
            task = tasks[name := running.pop(future)]
            task.error = future.exception()
            if task.error is not None:
                log(f"failed: {one_line(task.error)}", stage=task.label)
                yield task, None
                continue
            finished.add(name)
            if task.stage != "study":
                made.update(future.result())
            yield task, future.result()


def _doomed(waiting: dict[str, _Task], tasks: dict[str, _Task]) -> list[tuple[str, BaseException]]:
    """The tasks that need one that has failed, and the error of that."""
    found = ((name, tasks[need].error) for name, task in waiting.items() for need in task.needs)
    return list({name: error for name, error in found if error is not None}.items())


def _most_urgent(waiting: dict[str, _Task], finished: set[str], free: int) -> list[str]:
    """At most `free` tasks that can start; no more, since what can start later may be more urgent."""
    ready = [name for name, task in waiting.items() if finished.issuperset(task.needs)]
    return sorted(ready, key=lambda name: _ORDER.index(waiting[name].stage))[:free]


@contextmanager
def _session(study: Study) -> Iterator[None]:
    """One Ray session for all processes, which find it as they would find a cluster's."""
    if study.config.runtime == "local":
        yield
        return
    from bertkd_ray.execution.ray.session import Runtime

    runtime = Runtime(study.config)
    runtime.start()
    try:
        with variables({"RAY_ADDRESS": runtime.address}):
            yield
    finally:
        runtime.close()


@contextmanager
def _pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that share the cores out and leave the terminal to this one."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with variables({"OMP_NUM_THREADS": str(threads)}):
        pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_be_quiet)
        try:
            yield pool
        except KeyboardInterrupt:
            # They would go on to the end of their tasks: Ctrl-C tells them too, `kill` does not.
            for process in active_children():
                process.terminate()
            raise
        finally:
            # After another error what runs is finished; what has not begun never is.
            pool.shutdown(cancel_futures=True)


def _be_quiet() -> None:
    if not os.environ.get("BERTKD_WORKER_LOGS"):
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until this process ends


def _run(stage: str, arguments: tuple[Any, ...], made: BuildRecord) -> BuildRecord | StudyOutcome:
    """One task, in a process of the pool."""
    if stage == "study":
        (study,) = arguments
        with StudyRunner(study, made) as runner:
            return runner.run()
    trial, parent = arguments
    with TrialPipeline(trial, parent) as pipeline:
        getattr(pipeline, stage)(*([trial.arm] if stage in ("distill", "translate") else []))
    return pipeline.made
