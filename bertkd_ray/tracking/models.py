"""A student as a model of MLflow: logged once, with signature, input example and pinned requirements.

What is logged needs nothing of this package: the student's `save_pretrained` directory and `served.py`, which
transformers and MLflow run ("models from code", nothing is pickled).

    mlflow models serve --model-uri models:/m-… --env-manager local --port 5001
    curl localhost:5001/invocations -H 'Content-Type: application/json' -d '{"inputs": {"text": ["Guten Morgen!"]}}'

Students become versions of a registered model; the alias `champion` is the one that validates best. Two students
compare when they were validated on the same text, which the same corpus fingerprint guarantees.

Tags of a version: `bertkd.student`, `bertkd.corpus` (fingerprints), `bertkd.content` (a hash of the files: machines of
another kind train other weights), `bertkd.arm`, `bertkd.score.<name>`, and, once it has been compared with the
champion, `bertkd.compared_with`: the champion's version, or `none`.
"""

import importlib.metadata
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bertkd_ray.tracking.interface import StudentModel
from bertkd_ray.tracking.store import artifact_repository, require_own_location, unless_made_meanwhile

STUDENT_TAG = "bertkd.student"
CHAMPION = "champion"
CORPUS_TAG = "bertkd.corpus"
CONTENT_TAG = "bertkd.content"
SCORE_TAG = "bertkd.score."
COMPARED_TAG = "bertkd.compared_with"
DECIDES = "valid_bleu"
"""The score by which a champion is chosen; the higher wins."""
_REQUIRED = ("mlflow", "torch", "transformers", "tokenizers", "safetensors", "pandas")
_NOT_IN_NAMES = re.compile("[/:.%\"']")
"""What MLflow refuses in the name of a logged model."""
_SERVED = Path(__file__).with_name("served.py")


def logged_model(client: Any, uri: str, experiment_id: str, run_id: str, student: StudentModel) -> str:
    """The URI (`models:/m-…`) of the student's model in an experiment, logged now unless an earlier run has done so.

    In both cases the run has it as an output.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    earlier = client.search_logged_models([experiment_id], f"tags.`{STUDENT_TAG}` = '{student.fingerprint}'")
    # One whose files were not all copied is not READY.
    whole = (
        str(model.model_id)
        for model in earlier
        if model.status == LoggedModelStatus.READY and _has_content(model.tags, student)
    )
    model_id = next(whole, None) or _log(client, uri, experiment_id, run_id, student)
    outputs = client.get_run(run_id).outputs
    if model_id not in {output.model_id for output in (outputs.model_outputs if outputs else [])}:
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
    return f"models:/{model_id}"


def _has_content(tags: Mapping[str, str], student: StudentModel) -> bool:
    """Whether a model of the student's fingerprint has its weights; one of an earlier version does not say."""
    return tags.get(CONTENT_TAG) in (None, student.tags.get(CONTENT_TAG))


def _log(client: Any, uri: str, experiment_id: str, run_id: str, student: StudentModel) -> str:
    from mlflow.entities import LoggedModelStatus
    from mlflow.models import Model

    model = client.create_logged_model(
        experiment_id,
        name=_NOT_IN_NAMES.sub("-", student.name),
        source_run_id=run_id,
        tags={STUDENT_TAG: student.fingerprint, **student.tags},
        model_type="translation",
    )
    require_own_location(uri, f"model {model.model_id}", model.artifact_location)
    card = Model(artifact_path=model.artifact_location, run_id=run_id, model_id=model.model_id)
    with tempfile.TemporaryDirectory(prefix="model-") as scratch:
        directory = Path(scratch) / "model"
        _save(directory, student, card, Path(scratch))
        artifact_repository(uri, model.artifact_location).log_artifacts(str(directory))
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    return str(model.model_id)


def _save(directory: Path, student: StudentModel, card: Any, scratch: Path) -> None:
    """Writes the model's directory, as MLflow loads it."""
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    is_raw = student.settings["text"] == "raw"
    required = _REQUIRED if is_raw else (*_REQUIRED, "sacremoses")
    mlflow.pyfunc.save_model(
        path=directory,
        python_model=_SERVED,
        artifacts={"student": str(student.fetch(scratch))},
        model_config=dict(student.settings),
        code_paths=None if is_raw else [str(path) for path in student.code],
        signature=ModelSignature(
            inputs=Schema([ColSpec(DataType.string, "text")]), outputs=Schema([ColSpec(DataType.string, "translation")])
        ),
        input_example={"text": [student.example]},
        # A build of its own (`2.13.0+cpu`) is on no index under that name.
        pip_requirements=[f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in required],
        mlflow_model=card,
    )


def register(client: Any, name: str, uri: str, run_id: str, student: StudentModel) -> str:
    """Makes a logged model a version of the registered model `name`, once; what came of it, in one line.

    The champion moves to a version with a higher valid BLEU when that one is new, so an alias that was moved by hand
    stays. Where there is no champion, it is the best of all versions of the student's corpus.
    """
    if not client.search_registered_models(f"name = '{name}'"):
        with unless_made_meanwhile():
            client.create_registered_model(name)
    aliases = client.get_registered_model(name).aliases
    versions = {int(version.version): version for version in client.search_model_versions(f"name = '{name}'")}
    own = (n for n, of in versions.items() if of.tags.get(STUDENT_TAG) == student.fingerprint)
    version = next((n for n in own if _has_content(versions[n].tags, student)), None)
    champion = next((n for n in versions if str(n) == str(aliases.get(CHAMPION))), None)
    is_new = version is None
    if version is None:
        # By its place: an SQL store looks a `models:/` URI up in the process's global store, which may be another one.
        model_id = uri.rpartition("/")[2]
        source = client.get_logged_model(model_id).artifact_location
        scores = {SCORE_TAG + key: repr(value) for key, value in student.scores.items()}
        tags = {STUDENT_TAG: student.fingerprint, **student.tags, **scores}
        made = client.create_model_version(name, source, run_id, tags=tags, model_id=model_id)
        version, versions[int(made.version)] = int(made.version), made
    message = f"{student.name}: {'registered as' if is_new else 'is'} version {version} of {name}"
    if champion == version:
        return f"{message}, its {CHAMPION}"
    if champion is not None and COMPARED_TAG in versions[version].tags:
        return f"{message}; its {CHAMPION} is version {champion}"
    best = _best(student, version, versions) if champion is None else version
    beaten, why = _compare(student, champion, versions[champion].tags if champion is not None else {})
    if best != version:
        score = float(versions[best].tags[SCORE_TAG + DECIDES])
        champion, beaten = best, False
        why = f"its {CHAMPION} is version {best} from now on: valid BLEU {score:.2f}, the highest that is left"
    if beaten or best != version:
        client.set_registered_model_alias(name, CHAMPION, str(best))
    client.set_model_version_tag(name, str(version), COMPARED_TAG, str(champion or "none"))
    return f"{message}{' and' if beaten else ';'} {why}"


def _best(student: StudentModel, version: int, versions: Mapping[int, Any]) -> int:
    """The version of the student's corpus with the highest valid BLEU; of equal ones the student's own, or the first.

    versions: MLflow's, by number, of which only those count that say corpus and BLEU.
    """
    bleu = {
        number: float(of.tags[SCORE_TAG + DECIDES])
        for number, of in versions.items()
        if of.tags.get(CORPUS_TAG) == student.tags[CORPUS_TAG] and SCORE_TAG + DECIDES in of.tags
    }
    return max(bleu, key=lambda number: (bleu[number], number == version, -number), default=version)


def _compare(student: StudentModel, champion: int | None, of_champion: dict[str, str]) -> tuple[bool, str]:
    """Whether a student is the champion from now on, and why."""
    bleu = student.scores[DECIDES]
    if champion is None:
        return True, f"its first {CHAMPION}, valid BLEU {bleu:.2f}"
    stays = f"version {champion} stays {CHAMPION}"
    corpus, score = of_champion.get(CORPUS_TAG), of_champion.get(SCORE_TAG + DECIDES)
    if corpus is None or score is None:
        return False, f"{stays}: it was not registered here, so that its valid BLEU is not known"
    if corpus != student.tags[CORPUS_TAG]:
        return False, f"{stays}: BLEU on the valid set of corpus {corpus} does not compare with {bleu:.2f} on this one"
    if bleu > float(score):
        return True, f"now its {CHAMPION}: valid BLEU {bleu:.2f} against {float(score):.2f} of version {champion}"
    return False, f"{stays}: valid BLEU {float(score):.2f} against {bleu:.2f}"
