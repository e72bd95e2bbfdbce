"""The README.md of an export: the model, its data, method, scores and limits.

Written from the manifests alone; what a store holds no longer is left out.
"""

from pathlib import PurePath
from typing import Any, Literal

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.config import with_current_keys
from bertkd_ray.config.corpus import SPLITS
from bertkd_ray.core.console import human_count
from bertkd_ray.core.text_tables import format_number
from bertkd_ray.student.lineage import Lineage
from bertkd_ray.training.curves import VALID_ACCURACY, VALID_BLEU
from bertkd_ray.translation.lines import LineSettings
from bertkd_ray.translation.translate import signatures_of

CARD = "README.md"
Form = Literal["ctranslate2", "huggingface"]


def model_card(lineage: Lineage, settings: LineSettings, form: Form, *, license: str | None = None) -> str:
    """The card as Markdown with YAML front matter.

    license: an identifier of the hub (`apache-2.0`, `cc-by-4.0`, `other`); None is `unknown`, for the user to change.
    """
    loader = PackageLoader("bertkd_ray.translation", "template")
    environment = Environment(
        loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters.update(bert_name=_bert_name, count=human_count, number=format_number)
    return environment.get_template("model_card.md.j2").render(
        form=form,
        front_matter=_front_matter(lineage, settings, form, license),
        license=license,
        lineage=lineage,
        settings=settings,
        signatures=signatures_of({of.directory: of for of in lineage.translations}).values(),
        splits=SPLITS,
        student_settings=_settings(lineage.student),
        teachers=[teacher for teacher in (lineage.teacher, *lineage.other_teachers) if teacher is not None],
        others=[*lineage.other_softlabels, *lineage.other_teachers],
        accuracy=VALID_ACCURACY,
        valid_bleu=lineage.student.metrics.get(VALID_BLEU),
    )


def _front_matter(lineage: Lineage, settings: LineSettings, form: Form, license: str | None) -> str:
    tree: dict[str, Any] = {
        "language": [lang for lang in (settings.src_lang, settings.tgt_lang) if lang],
        "license": license or "unknown",
        "library_name": "transformers" if form == "huggingface" else form,
        "pipeline_tag": "translation",
        "tags": ["translation", "knowledge-distillation", "bertkd-ray", *([form] if form == "ctranslate2" else [])],
        "datasets": _datasets(lineage.corpus),
        "metrics": ["bleu", "chrf"],
    }
    return str(yaml.safe_dump({key: value for key, value in tree.items() if value}, sort_keys=False))


def _datasets(corpus: Artifact | None) -> list[str]:
    """Names of the corpus' inputs; none for text, which a manifest names by its content."""
    names = {"demo": "bertkd-ray-demo", "archive": "iwslt14"}
    return [name for key, name in names.items() if corpus is not None and key in corpus.inputs]


def _bert_name(source: str) -> str:
    """A hub id or a package as they are; of a directory the last part, since the rest is of the machine it was on."""
    path = PurePath(source)
    return path.name if path.is_absolute() or source.startswith((".", "~")) else source


def _settings(student: Artifact) -> dict[str, Any]:
    config = with_current_keys(student.config)
    losses = {f"kd.{key}": value for key, value in config["kd"].items()}
    training = {"seed": config["seed"], "precision": student.info.get("precision") or config["precision"]}
    start = {"start": f"weights {student.inputs['start'][:16]}"} if "start" in student.inputs else {}
    return {**config["student"], **start, **losses, **training, "best step": int(student.metrics["best_step"])}
