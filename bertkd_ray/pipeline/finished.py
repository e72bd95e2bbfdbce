"""What a configuration's pipeline has finished, and its page; nothing is made here."""

from dataclasses import replace
from pathlib import Path

from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.config import Config
from bertkd_ray.core.console import log
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.stages import DISTILL, results_of
from bertkd_ray.pipeline.pipeline import Pipeline
from bertkd_ray.pipeline.session import Session
from bertkd_ray.report.results import Results
from bertkd_ray.tracking.interface import failures_logged


def report_finished(pipeline: Pipeline, output: Path | None = None) -> Results:
    """Writes the page of all that is finished into the store and the pipeline's run, and to `output`, if given.

    What is not finished is named, on the page and on stderr. Raises UserError when not even the corpus is, and when
    `output` cannot be written.
    """
    from bertkd_ray.report.writing import PAGE, write_page

    outcome, store = pipeline.outcome, pipeline.session.store
    outcome.how_to_open = pipeline.session.tracker.how_to_open  # opened first, as in Pipeline.run
    unfinished: dict[str, str] = {}
    for name, (stage, arm) in results_of(pipeline.config).items():
        if pipeline.find(stage.name, arm) is not None:
            continue
        if not stage.inputs:
            raise UserError(
                f"{store.display_uri()}: nothing of this configuration is finished; run {pipeline.command('run')}"
            )
        unfinished[name] = pipeline.command(stage.name, *(["--arm", arm] if arm else []))
        log(f"not finished; {unfinished[name]} makes it", stage=name)
    results = replace(pipeline.results, unfinished=unfinished)
    html = write_page(results, store, pipeline.run_id)
    outcome.arms, outcome.signatures = results.arms, results.signatures
    outcome.page = store.display_uri(results.directory, PAGE)
    if output is not None:
        try:
            output.write_text(html, encoding="utf-8")
        except OSError as error:
            raise UserError(f"--output {output}: {error.strerror}; give a file that can be written") from None
        outcome.page = str(output.resolve())
    with failures_logged():
        pipeline.parent_run.log_text(html, PAGE)
    return results


def student_of(config: Config, arm: str, origin: str) -> Artifact:
    """The finished student of an arm; origin stands for the configuration in messages.

    Nothing is made. Raises UserError for an unknown arm, and for one that is not finished.
    """
    arms = config.arm_configs()
    if arm not in arms:
        raise UserError(f"--arm {arm}: the configuration has the arms {', '.join(arms)}")
    with Session(config) as session:
        student = session.find(session.pending_of_arm(config, arm)[DISTILL.name])
    if student is None:
        raise UserError(f"{origin}: the student of arm {arm} is not finished; run bertkd distill {origin} --arm {arm}")
    return student
