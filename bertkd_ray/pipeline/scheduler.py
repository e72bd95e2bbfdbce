"""Scheduler of studies: every corpus, teacher and student of them is a task of a pool of processes.

A task starts when the artifacts that it is made from are finished; an artifact that several arms or studies share is
one task. A study is compared as soon as its last student is finished. What fails keeps only those from starting that
need it. Under Ray all processes are drivers of one session, and its resources say what really runs at once.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial

from bertkd_ray.artifacts.manifest import MANIFEST
from bertkd_ray.config.study import Study, Trial
from bertkd_ray.core.console import Progress, log
from bertkd_ray.core.environment import default_variables
from bertkd_ray.core.errors import UserError, one_line
from bertkd_ray.core.stages import EVALUATE, STAGES, TRANSLATE
from bertkd_ray.pipeline.pool import process_pool
from bertkd_ray.pipeline.session import Session
from bertkd_ray.pipeline.study import BuildRecord, StudyOutcome, StudyRunner, study_run, trial_pipeline
from bertkd_ray.tracking.interface import Run, RunStatus


@dataclass
class _PoolTask:
    """A call in a process of the pool."""

    label: str
    """What people call it."""
    priority: int
    """Rank among the tasks that can start, lowest first."""
    needs: tuple[str, ...]
    """The tasks that come before it, by name."""
    run: Callable[[BuildRecord], BuildRecord | StudyOutcome]
    """Takes what the tasks before it have made; gives what it had to make itself, or the comparison of a study."""
    error: BaseException | None = None


def _make_stage(stage: str, owner: str, trial: Trial, parent: str, record: BuildRecord) -> BuildRecord:
    """Makes the artifact of a stage, of an arm or teacher, as the first trial that needs it would."""
    with trial_pipeline(trial, parent) as pipeline:
        pipeline.make(stage, owner)
    results = pipeline.outcome.stages.values()
    return {made.artifact.directory: (made.status, made.seconds) for made in results if made.status != "cached"}


def _compare(study: Study, record: BuildRecord) -> StudyOutcome:
    """Compares the students of a study when all are finished."""
    with StudyRunner(study, record) as runner:
        return runner.run()


def _add_study(tasks: dict[str, _PoolTask], study: Study, parent: str, session: Session) -> None:
    """Adds a study, as `study/NAME`, and all that it is made from, each by the directory of its artifact.

    session: names the artifacts; the tasks open sessions of their own.
    """
    results: list[str] = []
    for trial in study.trials:
        pending = session.pending_of_arm(trial.config, trial.arm)
        if study.is_finished:
            pending = {name: of for name, of in pending.items() if name.partition("/")[0] != EVALUATE.name}
        for name, artifact in pending.items():
            stage, _, teacher = name.partition("/")
            inputs = artifact.inputs.values()
            needs = tuple(source.directory for source in pending.values() if source.fingerprint in inputs)
            label = f"{name} of {trial.config.name}: {trial.title}"
            make = partial(_make_stage, stage, teacher or trial.arm, trial, parent)
            tasks.setdefault(artifact.directory, _PoolTask(label, STAGES[stage].priority, needs, make))
        last = {TRANSLATE.name, EVALUATE.name}
        results += [of.directory for name, of in pending.items() if name.partition("/")[0] in last]
    name = f"study/{study.settings.name}"
    tasks[name] = _PoolTask(f"study {study.settings.name}", 0, tuple(results), partial(_compare, study))


def finished_part(study: Study) -> Study:
    """The study with the arms alone that are finished under all of its seeds, with all that their students come of.

    Raises UserError where the control is not among them, or nothing but it is.
    """
    with Session(study.config) as session:
        unfinished = {
            trial.arm
            for trial in study.trials
            for name, pending in session.pending_of_arm(trial.config, trial.arm).items()
            # What a teacher translates is shown where it is there.
            if name.partition("/")[0] != EVALUATE.name and not session.store.exists(pending.directory, MANIFEST)
        }
    arms = {arm: keys for arm, keys in study.settings.arms.items() if arm not in unfinished}
    if study.control in unfinished or len(arms) < 2:
        raise UserError(
            f"{study.settings.name}: of its arms {', '.join(arms) or 'none'} is finished under all seeds, which leaves "
            "nothing to compare; run the study without --finished"
        )
    settings = study.settings.model_copy(update={"arms": arms})
    return Study(settings, study.control, [trial for trial in study.trials if trial.arm in arms], is_finished=True)


def run_studies(studies: Sequence[Study], jobs: int) -> Iterator[StudyOutcome]:
    """Runs studies with so many processes at a time and gives the outcome of each, in the order of their ends.

    One job is this process, one study after the other. Finished artifacts are found, not made. Raises, after all that
    can be done is done, the first task's error. Raises UserError for two studies of one name or with different stores.
    """
    if jobs == 1:
        yield from (_compare(study, {}) for study in studies)
        return
    _require_one_storage(studies)
    tasks: dict[str, _PoolTask] = {}
    open_runs: dict[str, Run] = {}
    status: RunStatus = "FAILED"
    try:
        with Session(studies[0].config) as session:
            session.store.require_writable()
            for study in studies:
                tracker = session.enter_context(Session(study.config)).tracker
                run = open_runs[f"study/{study.settings.name}"] = study_run(study, tracker, session.store.uri)
                _add_study(tasks, study, run.run_id, session)
        processes, terminal = process_pool(jobs, quiet=True), Progress(len(tasks), "study", "tasks")
        with _ray_session(studies[0]), processes as pool, terminal as progress:
            for done, (name, result) in enumerate(_completed(tasks, pool, jobs), start=1):
                progress.update(done)
                if isinstance(result, StudyOutcome):
                    del open_runs[name]  # its own process has ended it
                    yield result
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        for run in open_runs.values():
            run.finish(status, below=True)
    for task in tasks.values():
        if task.error is not None:
            raise task.error


def _require_one_storage(studies: Sequence[Study]) -> None:
    names = [study.settings.name for study in studies]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise UserError(f"{repeated[0]}: two of the studies have this name; give each its own")
    storages = {study.config.storage for study in studies}
    if len(storages) > 1:
        raise UserError(f"storage: the studies have {' and '.join(sorted(storages))}; set one storage for all of them")


def _completed(
    tasks: dict[str, _PoolTask], pool: ProcessPoolExecutor, jobs: int
) -> Iterator[tuple[str, BuildRecord | StudyOutcome | None]]:
    """Every task's name and result, in the order of their ends; None for one that failed or could not start."""
    waiting, finished, record = dict(tasks), set[str](), BuildRecord()
    running: dict[Future[BuildRecord | StudyOutcome], str] = {}
    while waiting or running:
        for name, task in list(waiting.items()):
            task.error = next((error for need in task.needs if (error := tasks[need].error)), None)
            if task.error is not None:
                del waiting[name]
                yield name, None
        ready = [name for name, task in waiting.items() if finished.issuperset(task.needs)]
        # No more than can start now, since what can start later may be more urgent.
        for name in sorted(ready, key=lambda name: tasks[name].priority)[: jobs - len(running)]:
            running[pool.submit(waiting.pop(name).run, record)] = name
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            task = tasks[name := running.pop(future)]
            task.error = future.exception()
            if task.error is not None:
                log(f"failed: {one_line(task.error)}", stage=task.label)
                yield name, None
                continue
            finished.add(name)
            result = future.result()
            if not isinstance(result, StudyOutcome):
                record.update(result)
            yield name, result


@contextmanager
def _ray_session(study: Study) -> Iterator[None]:
    """One Ray session for all processes, which find it as they would find a cluster's."""
    if study.config.runtime == "local":
        yield
        return
    from bertkd_ray.execution.ray.session import RayRuntime

    with closing(RayRuntime(study.config)) as runtime:
        runtime.start()
        with default_variables({"RAY_ADDRESS": runtime.address}):
            yield
