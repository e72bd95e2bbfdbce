"""The results of a pipeline as one HTML page that needs nothing beside itself: no network, no other file.

Its text comes from artifacts alone; whatever stands in a corpus is escaped, and the page's own policy lets no script
run but the one it carries.
"""

import base64
import hashlib
from datetime import datetime
from importlib import resources
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from bertkd_ray import __version__
from bertkd_ray.config.corpus import SPLITS
from bertkd_ray.core.console import human_bytes, human_count, human_seconds
from bertkd_ray.core.redaction import redacted
from bertkd_ray.core.stages import EXTRACT, FINETUNE, PREPARE
from bertkd_ray.report import contents
from bertkd_ray.report.figures import TEACHER, finetuning_panels, translation_loss_panels, translation_quality_panels
from bertkd_ray.report.frame import Panel
from bertkd_ray.report.inline import InlineFigure, figure
from bertkd_ray.report.lengths import MOST_PAIRS, length_panels, read_lengths
from bertkd_ray.report.lineage import lineage
from bertkd_ray.report.results import Results
from bertkd_ray.report.samples import MOST_SCORED, differing_samples, drawn_samples, marked
from bertkd_ray.training.curves import VALID_ACCURACY, VALID_BLEU, VALID_LOSS, VALID_NLL, CurveRow

_TEACHER_COLUMNS = {VALID_LOSS: (".3f", 1.0), VALID_ACCURACY: (".1f", 100.0)}
_STUDENT_COLUMNS = {VALID_BLEU: (".2f", 1.0), VALID_ACCURACY: (".1f", 100.0), VALID_NLL: (".3f", 1.0)}
_LENGTH_INCHES = (4.0, 3.0)


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
        date=_date,
        kind=lambda named: contents.artifact_title(*named),
        marked=marked,
        seconds=human_seconds,
    )
    script = _asset("theme.js")
    policy = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html").render(
        style=_asset("style.css"),
        script=script,
        script_hash=f"sha256-{policy}",
        version=__version__,
        run_id=run_id,
        results=results,
        config=results.config,
        **_context(results),
    )


def _asset(name: str) -> str:
    return resources.files("bertkd_ray.report").joinpath("template", name).read_text(encoding="utf-8")


def _context(results: Results) -> dict[str, Any]:
    """The variables of the template."""
    nodes = lineage(results.stages)
    return {
        "arms": [arm.arm for arm in results.arms],
        "bars": contents.time_bars(nodes),
        "corpus": results.stages[PREPARE.name],
        "corpus_rows": contents.corpus_rows(results.stages[PREPARE.name]),
        "figures": _figures(results),
        "finished": max(artifact.created for artifact in results.stages.values()),
        "labels": results.stages.get(EXTRACT.name),
        "fidelity": contents.fidelity_bars(results.stages[EXTRACT.name]) if EXTRACT.name in results.stages else [],
        "most_pairs": MOST_PAIRS,
        "nodes": nodes,
        "only_teacher_differs": len({config.student for config in results.arm_configs.values()}) == 1,
        "rejects": contents.dead_letter_rows(results),
        "rows": contents.score_rows(results) if results.arms else [],
        "samples": _samples(results),
        "settings": _settings(results),
        "signatures": contents.signature_rows(results),
        "sizes": contents.total_bytes(nodes),
        "splits": SPLITS,
        "teacher": results.stages.get(FINETUNE.name),
        "tiles": list(contents.tiles(results)),
        "validations": _validations(results),
        "verdict": contents.verdict(results),
        "versions": contents.versions(results.stages),
    }


def _figures(results: Results) -> dict[str, list[InlineFigure]]:
    """By section; a section without numbers has none."""
    histories, arms = results.histories, _arm_histories(results)
    corpus = results.stages[PREPARE.name]
    panels: dict[str, list[Panel]] = {
        "teacher": finetuning_panels(histories[TEACHER]) if TEACHER in histories else [],
        "students": [*translation_loss_panels(arms), *translation_quality_panels(arms)] if arms else [],
    }
    drawn = {
        section: [figure(panel, f"figure-{section}-{place}") for place, panel in enumerate(of_section, start=1)]
        for section, of_section in panels.items()
    }
    lengths = length_panels({split: read_lengths(corpus, split) for split in SPLITS})
    drawn["lengths"] = [
        figure(panel, f"figure-lengths-{place}", _LENGTH_INCHES) for place, panel in enumerate(lengths, start=1)
    ]
    return drawn


def _arm_histories(results: Results) -> dict[str, list[CurveRow]]:
    return {name: history for name, history in results.histories.items() if name != TEACHER}


def _validations(results: Results) -> dict[str, Any]:
    """The numbers behind the figures."""
    arms = _arm_histories(results)
    teacher = {name: history for name, history in results.histories.items() if name == TEACHER}
    return {
        "teacher": contents.validation_rows(teacher, _TEACHER_COLUMNS),
        "students": contents.validation_rows(arms, _STUDENT_COLUMNS),
        "arms": list(arms),
    }


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


def _settings(results: Results) -> str:
    """The whole configuration as YAML, without what is private."""
    tree = results.config.model_dump(mode="json")
    return redacted(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=100))


def _date(text: str) -> str:
    """`23 November 2026, 22:00 UTC` of a manifest's time."""
    moment = datetime.fromisoformat(text)
    return f"{moment.day} {moment:%B %Y, %H:%M} UTC"
