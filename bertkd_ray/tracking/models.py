"""A student as a model of MLflow: logged once, with signature, input example and pinned requirements.

What is logged needs nothing of this package: the student's `save_pretrained` directory and `served.py`, which
transformers and MLflow run ("models from code", nothing is pickled).

    mlflow models serve --model-uri models:/m-… --env-manager local --port 5001
    curl localhost:5001/invocations -H 'Content-Type: application/json' -d '{"inputs": {"text": ["Guten Morgen!"]}}'
"""

import importlib.metadata
import re
import tempfile
from pathlib import Path
from typing import Any

from bertkd_ray.tracking.interface import StudentModel

STUDENT_TAG = "bertkd.student"
_REQUIRED = ("mlflow", "torch", "transformers", "tokenizers", "safetensors", "pandas")
_NOT_IN_NAMES = re.compile("[/:.%\"']")
"""What MLflow refuses in the name of a logged model."""
_SERVED = Path(__file__).with_name("served.py")


def logged_model(client: Any, experiment_id: str, run_id: str, student: StudentModel) -> str:
    """The URI (`models:/m-…`) of the student's model in an experiment, logged now unless an earlier run has done so.

    In both cases the run has it as an output.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    earlier = client.search_logged_models([experiment_id], f"tags.`{STUDENT_TAG}` = '{student.fingerprint}'")
    # One whose files were not all copied is not READY.
    whole = (str(model.model_id) for model in earlier if model.status == LoggedModelStatus.READY)
    model_id = next(whole, None) or _log(client, experiment_id, run_id, student)
    outputs = client.get_run(run_id).outputs
    if model_id not in {output.model_id for output in (outputs.model_outputs if outputs else [])}:
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
    return f"models:/{model_id}"


def _log(client: Any, experiment_id: str, run_id: str, student: StudentModel) -> str:
    from mlflow.entities import LoggedModelStatus
    from mlflow.models import Model

    model = client.create_logged_model(
        experiment_id,
        name=_NOT_IN_NAMES.sub("-", student.name),
        source_run_id=run_id,
        tags={STUDENT_TAG: student.fingerprint, **student.tags},
        model_type="translation",
    )
    card = Model(artifact_path=model.artifact_location, run_id=run_id, model_id=model.model_id)
    with tempfile.TemporaryDirectory(prefix="model-") as scratch:
        directory = Path(scratch) / "model"
        _save(directory, student, card, Path(scratch))
        client.log_model_artifacts(model.model_id, str(directory))
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    return str(model.model_id)


def _save(directory: Path, student: StudentModel, card: Any, scratch: Path) -> None:
    """Writes the model's directory, as MLflow loads it."""
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    is_raw = student.settings["text"] == "raw"
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
        pip_requirements=requirements() if is_raw else [*requirements(), _pinned("sacremoses")],
        mlflow_model=card,
    )


def requirements() -> list[str]:
    """What a served student needs, each pinned to the version that is installed here."""
    return [_pinned(name) for name in _REQUIRED]


def _pinned(name: str) -> str:
    # A build of its own (`2.13.0+cpu`) is on no index under that name.
    return f"{name}=={importlib.metadata.version(name).partition('+')[0]}"
