"""A run of MLflow for every arm of a pipeline: all that two arms have to be compared by, in one place.

Keys are the same in all arms; which arm it is, name and tags say. `valid/*` are curves, their step the student's
updates; the scores (`valid_bleu`, `test_bleu`, `chrf`, …) stand at step 0. A run is complete whoever made the student
and when: a stage that was cached has its own run below another pipeline.
"""

from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.core.stages import DISTILL, PREPARE, TRANSLATE
from bertkd_ray.report.results import Results
from bertkd_ray.report.tables import ArmResult
from bertkd_ray.tracking.interface import Run, StudentModel, Tracker, closing_run, failures_logged, now_ms
from bertkd_ray.training.curves import CurveRow


def record_arms(results: Results, tracker: Tracker, parent: str) -> None:
    """A run for every finished arm below the pipeline's, with its model where `tracking.log_model` says so.

    An arm that cannot be recorded is said in one line, and the others are.
    """
    for scores in results.arms:
        with failures_logged():
            _record_arm(results, scores, tracker, parent)


def record_teachers(results: Results, tracker: Tracker, parent: str) -> None:
    """Runs with the scores of the teachers that translate, below the pipeline's, under the keys of the arms' runs."""
    for scores, (name, evaluation) in zip(results.teacher_rows, results.evaluations.items(), strict=True):
        config = results.config.teacher_configs()[name]
        run = tracker.run(
            f"{config.name}/{scores.arm}",
            key=f"teacher:{evaluation.fingerprint}",
            parent=parent,
            params=config.as_given(exclude={"arms", "tracking", "storage"}),
            tags={"bertkd.kind": "teacher", "bertkd.pipeline": config.name},
        )
        with closing_run(run):
            run.log_metrics([(0, scores.metrics(), now_ms())], series="scores")
            run.set_tags(
                {
                    "bertkd.corpus": evaluation.inputs["corpus"],
                    "bertkd.teacher": evaluation.inputs["teacher"],
                    "bertkd.artifact": evaluation.uri,
                    "bertkd.precision": evaluation.info.get("trained_in") or "unknown",
                }
            )


def _record_arm(results: Results, scores: ArmResult, tracker: Tracker, parent: str) -> None:
    arm, config = scores.arm, results.arm_configs[scores.arm]
    student, translation = results.stages[DISTILL.result(arm)], results.stages[TRANSLATE.result(arm)]
    run = tracker.run(
        f"{config.name}/{arm}",
        key=f"arm:{arm}:{translation.fingerprint}",
        parent=parent,
        params=config.as_given(exclude={"arms", "tracking", "storage"}),
        tags={
            "bertkd.kind": "arm",
            "bertkd.pipeline": config.name,
            "bertkd.arm": arm,
            "bertkd.artifact": translation.uri,
            # Two machines may have a storage at the same path.
            "bertkd.content": f"{_weights_hash(student)} {translation.content_hash()}",
        },
    )
    with closing_run(run):
        record_student(run, scores, student, translation, results.histories[arm])
        if config.tracking.log_model:
            model = _model(scores, student, results.stages[PREPARE.name], results.translations[arm])
            run.log_model(model, register=config.tracking.registered_model)


def record_student(
    run: Run, scores: ArmResult, student: Artifact, translation: Artifact, history: list[CurveRow]
) -> None:
    """Curve and scores of a student in its run, and the tags by which it is searched and found again."""
    curve = [(row.step, row.metrics, int(row.time * 1000)) for row in history if row.split == "valid"]
    run.log_metrics(curve, series="valid")
    run.log_metrics([(0, scores.metrics(), now_ms())], series="scores")
    run.set_tags(
        {
            "bertkd.corpus": student.inputs["corpus"],
            "bertkd.student": student.fingerprint,
            "bertkd.translation": translation.fingerprint,
            "bertkd.artifact": translation.uri,
            "bertkd.precision": student.info.get("precision") or "unknown",
        }
    )


def _weights_hash(student: Artifact) -> str:
    from bertkd_ray.student.distill import MODEL

    return student.content_hash(f"{MODEL}/")


def _model(scores: ArmResult, student: Artifact, corpus: Artifact, translations: pa.Table) -> StudentModel:
    from bertkd_ray.corpus import moses
    from bertkd_ray.corpus.text_form import TextForm
    from bertkd_ray.student.distill import MODEL

    form = TextForm.of(corpus)
    return StudentModel(
        name=scores.arm,
        fingerprint=student.fingerprint,
        fetch=lambda scratch: student.copy(MODEL, scratch / student.directory / MODEL),
        example=next((str(source) for source in translations["source"] if str(source)), ""),
        settings=asdict(form),
        code=[Path(moses.__file__)],
        scores=scores.metrics(),
        tags={
            "bertkd.arm": scores.arm,
            "bertkd.content": _weights_hash(student),
            "bertkd.corpus": corpus.fingerprint,
            "bertkd.languages": f"{form.src_lang}-{form.tgt_lang}",
        },
    )
