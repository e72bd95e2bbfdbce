"""The results of a pipeline as one HTML page that needs nothing beside itself: no network, no other file.

Its text comes from artifacts alone; whatever stands in a corpus is escaped, and the page's own policy lets no script
run but the one it carries.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import resources
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from bertkd_ray import __version__
from bertkd_ray.config.corpus import SPLITS
from bertkd_ray.config.results import results_of
from bertkd_ray.core.console import human_bytes, human_count, human_seconds
from bertkd_ray.core.redaction import redacted
from bertkd_ray.core.stages import AUGMENT, DECODE, EXTRACT, FINETUNE, LABEL, PREPARE
from bertkd_ray.corpus.tokenizer import TYPES_BY_COUNT
from bertkd_ray.report import contents
from bertkd_ray.report.buckets import TITLES, bucket_panels, bucket_table
from bertkd_ray.report.fidelity import fidelity_table
from bertkd_ray.report.figures import (
    History,
    finetuning_panels,
    split_histories,
    translation_loss_panels,
    translation_quality_panels,
)
from bertkd_ray.report.frame import Panel, inline_svg
from bertkd_ray.report.lengths import MOST_PAIRS, length_panels, read_lengths
from bertkd_ray.report.results import Results
from bertkd_ray.report.samples import MOST_SCORED, differing_samples, drawn_samples, marked
from bertkd_ray.training.curves import VALID_ACCURACY, VALID_BLEU, VALID_LOSS, VALID_NLL

_TEACHER_COLUMNS = {VALID_LOSS: (".3f", 1.0), VALID_ACCURACY: (".1f", 100.0)}
_STUDENT_COLUMNS = {VALID_BLEU: (".2f", 1.0), VALID_ACCURACY: (".1f", 100.0), VALID_NLL: (".3f", 1.0)}


def page_html(results: Results, *, run_id: str = "") -> str:
    """The page. run_id: of the pipeline's run in MLflow, empty where nothing is tracked.

    At least the corpus must be finished; a section whose artifacts are not says which command makes them.
    """
    environment = Environment(
        loader=PackageLoader("bertkd_ray.report", "template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        bytes=human_bytes,
        count=human_count,
        kind=lambda named: contents.artifact_title(*named),
        marked=marked,
        seconds=human_seconds,
    )
    assets = resources.files("bertkd_ray.report") / "template"
    script = (assets / "theme.js").read_text(encoding="utf-8")
    policy = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html").render(
        style=(assets / "style.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=f"sha256-{policy}",
        version=__version__,
        run_id=run_id,
        results=results,
        config=results.config,
        **_context(results),
    )


def _context(results: Results) -> dict[str, Any]:
    """The variables of the template."""
    of_teachers, arms = split_histories(results.histories)
    teachers = [_teacher(results, name, of_teachers) for name in results.teachers]
    named = [(stage, results.stages.get(name)) for name, (stage, _) in results_of(results.config).items()]
    corpus, tree = results.stages[PREPARE.name], results.config.as_given(mode="json")
    students = [*translation_loss_panels(arms), *translation_quality_panels(arms)] if arms else []
    lengths = length_panels({split: read_lengths(corpus, split) for split in SPLITS})
    finished = datetime.fromisoformat(max(artifact.created for artifact in results.stages.values()))
    return {
        "bars": contents.time_bars(results.stages),
        "buckets": [(TITLES[name][0], bucket_table(name, results.buckets)) for name in results.buckets],
        "corpus": corpus,
        "corpus_rows": contents.corpus_rows(corpus),
        "types_columns": [name.replace("_", " ") for name in TYPES_BY_COUNT],
        "types_rows": contents.types_rows(corpus),
        "monolingual": next((of for stage, of in named if stage is AUGMENT and of), None),
        "figures": {
            **{of["section"]: of["figures"] for of in teachers},
            "students": _figures("students", students),
            "buckets": _figures("buckets", bucket_panels(results.buckets)),
            "lengths": _figures("lengths", lengths, (4.0, 3.0)),
        },
        "finished": f"{finished.day} {finished:%B %Y, %H:%M} UTC",
        "most_pairs": MOST_PAIRS,
        "nodes": contents.lineage(results.stages),
        "only_teacher_differs": len({config.student for config in results.arm_configs.values()}) == 1,
        "rows": contents.score_rows(results) if results.rows else [],
        "samples": _samples(results),
        # The whole configuration without what is private.
        "settings": redacted(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=10**9)),
        "splits": SPLITS,
        "teachers": teachers,
        "tiles": list(contents.tiles(results)),
        "trained": list(arms),
        "validations": {
            "students": contents.validation_rows(arms, _STUDENT_COLUMNS),
        },
        "verdict": contents.verdict(results),
        "versions": contents.versions(results.stages),
    }


def _teacher(results: Results, name: str, histories: Mapping[str, History]) -> dict[str, Any]:
    """What the page has of a teacher; an empty name is the only one's."""
    history = {name: histories[name]} if name in histories else {}
    labelled, section = [EXTRACT.named(name), LABEL.named(name)], f"teacher{name and '-'}{name}"
    labels = next((results.stages[result] for result in labelled if result in results.stages), None)
    return {
        "name": name,
        "section": section,
        "settings": results.config.teacher_configs()[name].teacher,
        "made": results.stages.get(FINETUNE.named(name)),
        "figures": _figures(section, finetuning_panels(history[name]) if history else []),
        "validations": contents.validation_rows(history, _TEACHER_COLUMNS),
        "unfinished": FINETUNE.named(name),
        "labels": labels,
        "fidelity": contents.fidelity_bars(labels) if labels else [],
        "fidelity_by_part": fidelity_table(labels) if labels else [],
        "unlabelled": next((result for result in labelled if result in results.unfinished), ""),
        "decoded": results.stages.get(DECODE.named(name)),
        "undecoded": DECODE.named(name),
    }


def _figures(section: str, panels: Sequence[Panel], inches: tuple[float, float] = (4.5, 3.3)) -> list[tuple[str, str]]:
    """Title and `svg` element of each."""
    numbered = enumerate(panels, start=1)
    return [(panel.title, inline_svg(panel, f"figure-{section}-{number}", inches)) for number, panel in numbered]


def _samples(results: Results) -> list[dict[str, Any]]:
    """The two groups of translations; the second only where there are arms to differ."""
    tables, seed = results.translations, results.config.seed
    if not tables:
        return []
    size = len(next(iter(tables.values())))
    title = f"Drawn at random from {size:,} sentences"
    groups = [{"id": "drawn", "title": title, "samples": drawn_samples(tables, seed=seed)}]
    if len(tables) > 1:
        title = f"Where the students differ most, of {min(size, MOST_SCORED):,} sentences"
        groups.append({"id": "differing", "title": title, "samples": differing_samples(tables, seed=seed)})
    return groups
