"""The fidelity of soft labels as a table: over all positions, and over parts of them."""

import math

from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.core.text_tables import TableRow, format_number, text_table

_COLUMNS = {
    "": "all",
    "end/": "end of sentence",
    "not_end/": "elsewhere",
    "gold_first/": "first",
    "gold_not_first/": "not first",
}
_ROWS = {
    "positions": ("positions", ",.0f", 1),
    "topk_mass": ("probability in the top k, %", ".1f", 100),
    "gold_in_topk": ("reference among the top k, %", ".1f", 100),
    "gold_first": ("reference first, %", ".1f", 100),
    "gold_perplexity": ("perplexity of the reference", ".2f", 1),
    "entropy_t1": ("entropy at temperature 1, nats", ".2f", 1),
    "entropy_t10": ("entropy at temperature 10, nats", ".2f", 1),
}


def fidelity_table(labels: Artifact) -> list[TableRow]:
    """A column a part of the positions (`softlabels.fidelity.PARTS`); empty for soft labels of an earlier version."""
    metrics = {"fidelity/positions": labels.metrics["positions"], **labels.metrics}
    if "fidelity/end/positions" not in metrics:
        return []
    rows = [["fidelity", *_COLUMNS.values()]]
    for name, (label, form, factor) in _ROWS.items():
        values = [metrics.get(f"fidelity/{part}{name}", math.nan) for part in _COLUMNS]
        rows.append([label, *(format_number(factor * value, form) for value in values)])
    return rows


def fidelity_text(labels: Artifact) -> str:
    """What `bertkd inspect` prints of soft labels."""
    title = f"{labels.fingerprint}  {labels.display_uri}"
    table = text_table(fidelity_table(labels)) or [
        "Of an earlier version: it has no figures of parts of the positions."
    ]
    of_references = "first: the reference is the teacher's best token; perplexity: of references among the top k"
    return "\n".join([title, f"k = {labels.info['k']}, {labels.info['mask_scheme']}", "", *table, "", of_references])
