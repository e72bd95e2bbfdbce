"""The label stage: the teacher's soft labels of its own translations, for arms that have both.

It is the extract stage over another text: what decode has made has the form of a corpus.
"""

from dataclasses import replace

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config
from bertkd_ray.core.stages import DECODE, LABEL
from bertkd_ray.execution.stage import StageContext
from bertkd_ray.softlabels import extract


def pending_artifact(config: Config, store: Store, inputs: dict[str, str]) -> PendingArtifact:
    """The artifact of soft labels of the teacher's translations."""
    return PendingArtifact.of(store, LABEL.artifact, extract.settings_of(config), inputs)


def make(pending: PendingArtifact, context: StageContext) -> Artifact:
    """Makes the soft labels as extract does; raises as it."""
    inputs = {**context.inputs, "corpus": context.inputs[DECODE.artifact]}
    return extract.make(pending, replace(context, inputs=inputs))
