"""Students as versions of a registered model; the alias `champion` is the one that validates best.

Two students compare when they were validated on the same text, which the same corpus fingerprint guarantees.

Tags of a version: `bertkd.student`, `bertkd.corpus` (fingerprints), `bertkd.arm`, `bertkd.score.<name>`, and, once it
has been compared with the champion, `bertkd.compared_with`: the champion's version, or `none`.
"""

from typing import Any

from bertkd_ray.tracking.interface import StudentModel
from bertkd_ray.tracking.models import STUDENT_TAG
from bertkd_ray.tracking.store import unless_made_meanwhile

CHAMPION = "champion"
CORPUS_TAG = "bertkd.corpus"
SCORE_TAG = "bertkd.score."
COMPARED_TAG = "bertkd.compared_with"
DECIDES = "valid_bleu"
"""The score by which a champion is chosen; the higher wins."""


def register(client: Any, name: str, uri: str, run_id: str, student: StudentModel) -> str:
    """Makes a logged model a version of the registered model `name`, once; what came of it, in one line.

    The champion moves to a version with a higher valid BLEU when that one is new, or where there is no champion; so an
    alias that was moved by hand stays.
    """
    if not client.search_registered_models(f"name = '{name}'"):
        with unless_made_meanwhile():
            client.create_registered_model(name)
    aliases = client.get_registered_model(name).aliases
    versions = {int(version.version): version for version in client.search_model_versions(f"name = '{name}'")}
    version = next((n for n, of in versions.items() if of.tags.get(STUDENT_TAG) == student.fingerprint), None)
    champion = int(aliases[CHAMPION]) if CHAMPION in aliases else None
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
    beaten, why = _compare(student, champion, versions[champion].tags if champion is not None else {})
    if beaten:
        client.set_registered_model_alias(name, CHAMPION, str(version))
    client.set_model_version_tag(name, str(version), COMPARED_TAG, str(champion or "none"))
    return f"{message}{' and' if beaten else ';'} {why}"


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
