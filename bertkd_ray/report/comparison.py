"""Finished students side by side: what they were made with, how they score, and which sentences tell them apart.

Every other student is compared with the first by `evaluation.significance`, as arms are in a run and in a study of one
seed: a two-tailed paired bootstrap over the sentences. Sentences are compared by chrF. Only manifests and translations
are read; nothing is made.
"""

import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import pyarrow as pa

from bertkd_ray.artifacts.artifact import Artifact, load_finished
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config, dotted, with_current_keys
from bertkd_ray.config.sections import TranslateConfig
from bertkd_ray.core.console import log
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.redaction import redacted
from bertkd_ray.core.stages import BY_ARTIFACT, DISTILL, STAGES, TRANSLATE
from bertkd_ray.evaluation.metrics import DEFAULT_TOKENIZER
from bertkd_ray.evaluation.significance import PairedTestResult, bootstrap_signature, compare, resample_counts
from bertkd_ray.report.results import counted
from bertkd_ray.report.samples import Sentence, most_different, sentences_of
from bertkd_ray.softlabels.shards import numbered
from bertkd_ray.student.lineage import Lineage, artifact_at, evaluations_of, lineage_of
from bertkd_ray.tracking import default_uri
from bertkd_ray.tracking.search import RunFinder
from bertkd_ray.translation.translate import read_translations, signatures_of

SENTENCES = 5
SAMPLES: int = TranslateConfig.model_fields["bootstrap_samples"].default
_SECTIONS = list(dict.fromkeys(section for stage in STAGES.values() for section in stage.sections))
_HASH_DIGITS = 12
# Of other URIs a host or a query names the server, which would be given the credentials of whoever compares.
_NAMES_NO_SERVER = re.compile(r"(?!.*://).*|(file:///|(s3|gs|gcs)://)[^?]*", re.DOTALL)


@dataclass(frozen=True)
class ComparedStudent:
    """A student with its translations, under a letter."""

    label: str
    """A, B, C, …"""
    name: str
    """The run's name, or the directory."""
    run_id: str
    """Id of the MLflow run; empty where a directory was given."""
    lineage: Lineage
    translation: Artifact


@dataclass(frozen=True)
class Difference(PairedTestResult):
    """A student against the first student, by test BLEU and by sentence."""

    better: int
    """Sentences with a higher chrF than the first's."""
    worse: int
    equal: int


@dataclass(frozen=True)
class StudentComparison:
    """Students beside each other; values by label, in the order in which the students were given."""

    students: list[ComparedStudent]
    configuration: dict[str, dict[str, Any]]
    """Dotted keys that differ; a student that has no such key is absent."""
    metrics: dict[str, dict[str, float]]
    differences: dict[str, Difference]
    """Difference from the first student, by label of each other one."""
    sentences: list[Sentence]
    """Sentences whose hypotheses differ most in chrF, by falling difference."""
    test_sentences: int
    signatures: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {
            "runs": {
                student.label: {
                    "name": student.name,
                    "run_id": student.run_id,
                    "student": student.lineage.student.fingerprint,
                    "translation": student.translation.fingerprint,
                    "path": student.translation.display_uri,
                }
                for student in self.students
            },
            "configuration": self.configuration,
            "metrics": self.metrics,
            "bootstrap": {label: asdict(difference) for label, difference in self.differences.items()},
            "sentences": [asdict(sentence) for sentence in self.sentences],
            "signatures": self.signatures,
        }


def compare_students(
    students: Sequence[Artifact | str],
    *,
    tracking: str | None = None,
    storage: str | None = None,
    sentences: int = SENTENCES,
    samples: int = SAMPLES,
) -> StudentComparison:
    """Finished students compared with the first of them: settings, scores, significance, sentences that differ most.

    students: 2 to 26 student or translation artifacts, their directories or URIs, or names or ids of MLflow runs.
    tracking: the MLflow store of the runs; None is that of `storage`. storage: where the runs' artifacts are; None is
    where they were made. sentences: how many of those that differ most are kept. samples: resamples of the two-tailed
    bootstrap.

    Raises UserError, in one line, for translations of different test sets or tokenizers, and see `open_students`.
    """
    names = [student if isinstance(student, str) else student.uri for student in students]
    opened = open_students(names, tracking=tracking, storage=storage)
    first, *others = opened
    tables = {student.label: read_translations(student.translation) for student in opened}
    for student in others:
        _require_same_test_set(first, tables[first.label], student, tables[student.label])
    signatures = signatures_of({student.name: student.translation for student in opened})
    every = sentences_of(tables)
    resamples = {
        student.label: resample_counts(counted(student.translation, tables[student.label]), samples=samples)
        for student in opened
    }
    differences = {}
    for label in list(tables)[1:]:
        test = compare([resamples[first.label]], [resamples[label]])
        gains = [sentence.chrf[label] - sentence.chrf[first.label] for sentence in every]
        better, worse = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
        differences[label] = Difference(**asdict(test), better=better, worse=worse, equal=len(gains) - better - worse)
    return StudentComparison(
        students=opened,
        configuration=_differing({student.label: dict(_settings(student)) for student in opened}),
        metrics=_by_key({student.label: dict(_metrics(student)) for student in opened}),
        differences=differences,
        sentences=most_different(every, sentences),
        test_sentences=len(every),
        signatures={**signatures, "bootstrap": bootstrap_signature(samples)},
    )


def open_students(
    names: Sequence[str], *, tracking: str | None = None, storage: str | None = None
) -> list[ComparedStudent]:
    """The finished students that names, ids and directories stand for; the parameters are those of `compare_students`.

    Of several runs of a name, and several translations of a student, the newest is taken, which stderr says. Raises
    UserError, in one line, for fewer than two or more than 26 names, an unknown one, the beginning of several ids, and
    a student that is not finished or not translated.
    """
    if not 2 <= len(names) <= len(string.ascii_uppercase):
        raise UserError(f"compare takes 2 to {len(string.ascii_uppercase)} runs, got {len(names)}; give names or paths")

    # Opened only if a run is named.
    @cache
    def finder() -> RunFinder:
        return RunFinder(tracking or default_uri(storage or Config.model_fields["storage"].default))

    labelled = zip(string.ascii_uppercase, names, strict=False)
    return [_open(label, *_find(name, finder, storage)) for label, name in labelled]


def _find(name: str, finder: Callable[[], RunFinder], storage: str | None) -> tuple[Artifact, str, str]:
    """The artifact that a word stands for, its name, and the run's id if it is that of a run."""
    artifact = artifact_at(name)
    if artifact is not None:
        return artifact, artifact.directory, ""
    if "://" in name:
        raise UserError(f"{redacted(name)}: no finished artifact is here; give that of a student or a translation")
    run = finder().find(name)
    location = str(run.artifact)
    if storage is not None:
        directory = location.partition("?")[0] if "://" in location else location
        artifact = load_finished(Store(storage), directory.rstrip("/").rpartition("/")[2])
    elif _NAMES_NO_SERVER.fullmatch(location):
        artifact = artifact_at(location)
    else:
        raise UserError(
            f"{run.name}: its artifact is said to be {redacted(location)}, and a tracking store does not choose which "
            "server is spoken to; give its storage with --storage URI"
        )
    if artifact is None:
        raise UserError(
            f"{run.name}: its artifact {redacted(location)} is not there, or not finished; say where with --storage DIR"
        )
    return artifact, run.name, run.run_id


def _open(label: str, artifact: Artifact, name: str, run_id: str) -> ComparedStudent:
    if artifact.stage == TRANSLATE.artifact:
        directory = f"{DISTILL.artifact}-{artifact.inputs['student']}"
        student = load_finished(artifact.store, directory)
        if student is None:
            raise UserError(f"{artifact.display_uri}: its student {directory} is not beside it; copy it there")
        return ComparedStudent(label, name, run_id, lineage_of(student), artifact)
    if artifact.stage != DISTILL.artifact:
        raise UserError(f"{name}: is a {artifact.stage}; give a student or a translation")
    lineage = lineage_of(artifact)
    if not lineage.translations:
        raise UserError(f"{name}: has not been translated; run bertkd translate")
    newest = lineage.translations[-1]
    if (count := len(lineage.translations)) > 1:
        log(f"{name}: of its {count} translations the newest is taken: {newest.display_uri}")
    return ComparedStudent(label, name, run_id, lineage, newest)


def _require_same_test_set(first: ComparedStudent, ours: pa.Table, student: ComparedStudent, theirs: pa.Table) -> None:
    why = [f"{len(theirs):,} sentences against {len(ours):,}"] if len(ours) != len(theirs) else []
    for column in ("source", "reference"):
        triples = zip(*(of.to_pylist() for of in (ours["id"], ours[column], theirs[column])), strict=False)
        why += [f"the {column} of sentence {row} is another one" for row, our, their in triples if our != their]
    if why:
        raise UserError(
            f"{student.name}: its test set is not that of {first.name} ({why[0]}), so that they do not compare; "
            "translate the same corpus.test with both"
        )


def _settings(student: ComparedStudent) -> Iterator[tuple[str, Any]]:
    """The configuration behind a student by dotted keys, and its inputs (texts and models) by their hashes."""
    lineage = student.lineage
    before = lineage.corpus, lineage.teacher, lineage.softlabels, lineage.decoded, lineage.monolingual
    for artifact in (*before, lineage.student, student.translation):
        if artifact is not None:
            yield from _settings_of(artifact)
    for others in (lineage.other_teachers, lineage.other_softlabels):
        for number, artifact in enumerate(others, start=2):
            section = BY_ARTIFACT[artifact.stage].section
            for key, value in _settings_of(artifact):
                yield key.replace(section, numbered(section, number), 1), value
    yield f"{TRANSLATE.section}.tokenize", student.translation.info.get("tokenize", DEFAULT_TOKENIZER)


def _settings_of(artifact: Artifact) -> Iterator[tuple[str, Any]]:
    section = BY_ARTIFACT[artifact.stage].section
    yield from dotted(with_current_keys(_sectioned(artifact.config, section)))
    if "bert" in artifact.info:
        yield f"{section}.model", artifact.info["bert"]
    if artifact.info.get("precision"):
        yield f"{section}.precision", artifact.info["precision"]
    for name, digest in artifact.inputs.items():
        if name.partition(".")[0] not in BY_ARTIFACT:
            yield f"{section}.input.{name}", str(digest)[:_HASH_DIGITS]


def _sectioned(tree: Mapping[str, Any], section: str) -> dict[str, Any]:
    """A manifest's settings under sections of the configuration: what stands outside of any goes below `section`."""
    if not isinstance(tree.get(section), dict):
        return {section: dict(tree)}
    below = {key: value for key, value in tree.items() if not isinstance(value, dict)}
    return {**{key: value for key, value in tree.items() if key not in below}, section: {**tree[section], **below}}


def _differing(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Keys of which the values differ. Of a section that some student lacks altogether (a control has no teacher),
    only that, and what differs among the others.
    """
    differing: dict[str, dict[str, Any]] = {}
    for key, values in _by_key(settings).items():
        section = key.partition(".")[0]
        with_section = [label for label, of in settings.items() if any(key.startswith(f"{section}.") for key in of)]
        if len(with_section) < len(settings):
            differing[section] = dict.fromkeys(with_section, "yes")
        first, *others = values.values()
        if any(value != first for value in others) or len(values) < len(with_section):
            differing[key] = values
    return dict(sorted(differing.items(), key=lambda item: _SECTIONS.index(item[0].partition(".")[0])))


def _by_key(of_students: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    keys = dict.fromkeys(key for of in of_students.values() for key in of)
    return {key: {label: of[key] for label, of in of_students.items() if key in of} for key in keys}


def _metrics(student: ComparedStudent) -> Iterator[tuple[str, float]]:
    """Figures of the translations, of the student, and of the teacher where there is one."""
    lineage = student.lineage
    yield from student.translation.metrics.items()
    yield from lineage.student.metrics.items()
    yield "seconds", lineage.student.seconds
    for number, teacher in enumerate(filter(None, (lineage.teacher, *lineage.other_teachers)), start=1):
        for of_teacher in (teacher, *evaluations_of(teacher)[-1:]):
            metrics = of_teacher.metrics.items()
            yield from ((f"{numbered('teacher', number)}/{key}", value) for key, value in metrics if "/" in key)
    for number, labels in enumerate(filter(None, (lineage.softlabels, *lineage.other_softlabels)), start=1):
        # Not those of parts of the positions, which are many.
        kept = ((key.split("/"), value) for key, value in labels.metrics.items() if key.count("/") == 1)
        yield from ((f"{numbered(of, number)}/{key}", value) for (of, key), value in kept if of == "fidelity")
