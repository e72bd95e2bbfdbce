"""The scores of every arm as a table: for the terminal, as Markdown, as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bertkd_ray.core.console import human_count
from bertkd_ray.core.stages import STAGES
from bertkd_ray.core.text_tables import TableRow, format_number, format_p, join_blocks, markdown_table, text_table


@dataclass(frozen=True)
class ArmResult:
    """The scores of an arm, or of a teacher that translates. BLEU and chrF run from 0 to 100."""

    arm: str
    parameters: int
    """Parameters of the model."""
    valid_bleu: float
    """BLEU of greedy translations of the valid set, at the best checkpoint."""
    test_bleu: float
    """sacrebleu's BLEU of beam search on the test set."""
    chrf: float
    """sacrebleu's chrF on the test set."""
    legacy_bleu: float
    """Tokenised and lower-cased BLEU on the test set, as papers of 2020 report it."""
    delta: float | None = None
    """Test BLEU minus the control's; None for the control."""
    p_value: float | None = None
    """Two-tailed, of delta, by paired bootstrap over the sentences; None for the control."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds by stage."""
    valid_perplexity: float | None = None
    """Perplexity a token of the valid references, at the best checkpoint."""
    valid_accuracy: float | None = None
    """Share of the valid references' tokens that score highest, at the best checkpoint."""
    length_ratio: float | None = None
    """Tokens of the translations over tokens of the references, on the test set."""
    sentences_per_second: float | None = None
    """Sentences of the test set that an actor translates a second, by itself; None where it was not measured."""

    def as_json(self) -> dict[str, Any]:
        """The arm's entry in `--json`."""
        return asdict(self)

    def metrics(self) -> dict[str, float]:
        """The figures as metrics of a run, the same keys for every arm; those that there are."""
        figures = {**asdict(self), "p": self.p_value, "seconds": sum(self.seconds.values())}
        return {name: value for name, value in figures.items() if name not in ("arm", "p_value") and value is not None}


def results_table(rows: Sequence[ArmResult], signatures: Mapping[str, str] | None = None) -> str:
    """The scores, the seconds a stage, and below them the metrics' signatures; at most 100 columns wide.

    Long arm names are cut where the scores would not fit beside them; signatures are never cut.
    """
    return join_blocks([*map(text_table, _tables(rows)), signature_lines(signatures, "{}  {}")])


def as_markdown(
    rows: Sequence[ArmResult], signatures: Mapping[str, str] | None = None, others: Sequence[list[TableRow]] = ()
) -> str:
    """`results_table` as GitHub-flavoured Markdown, with other tables below its own."""
    return join_blocks(
        [*map(markdown_table, [*_tables(rows), *others]), signature_lines(signatures, "- {}: `{}`")], "\n"
    )


def as_csv(rows: Sequence[ArmResult]) -> str:
    """One line an arm under a header, numbers in full precision, nothing where there is no value."""
    stages = _stages([row.seconds for row in rows])
    names = ["arm", "parameters", "valid_bleu", "test_bleu", "legacy_bleu", "chrf", "delta", "p_value"]
    names.append("sentences_per_second")
    values = [[*(getattr(row, name) for name in names), *(row.seconds.get(stage) for stage in stages)] for row in rows]
    return csv_text([*names, *(f"seconds_{stage}" for stage in stages)], values)


def csv_text(header: list[str], rows: list[list[Any]]) -> str:
    """CSV with lines that end in a newline; nothing where a value is None."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def _tables(rows: Sequence[ArmResult]) -> list[list[TableRow]]:
    delta = delta_label({row.arm: row.delta for row in rows})
    is_timed = any(row.sentences_per_second is not None for row in rows)
    timed = ["sent./s"] if is_timed else []
    table = [["arm", "params", "valid BLEU", "test BLEU", "legacy BLEU", "chrF", delta, "p", *timed]]
    for row in rows:
        scores = [format_number(score, ".2f") for score in (row.valid_bleu, row.test_bleu, row.legacy_bleu, row.chrf)]
        delta, p_value = format_number(row.delta, "+z.2f"), format_p(row.p_value)
        timed = [format_number(row.sentences_per_second, ",.1f")] if is_timed else []
        table.append([row.arm, human_count(row.parameters), *scores, delta, p_value, *timed])
    return [table, seconds_table({row.arm: row.seconds for row in rows})]


def delta_label(deltas: Mapping[str, object]) -> str:
    """`Δ control`, by the arm that has no difference beside others that have, its name cut after 12 characters."""
    without = [arm for arm, delta in deltas.items() if delta is None]
    name = without[0] if 0 < len(without) < len(deltas) else "control"
    return f"Δ {name if len(name) <= 12 else name[:11] + '…'}"


def seconds_table(arms: Mapping[str, Mapping[str, float]]) -> list[TableRow]:
    """Seconds by arm and stage; the arms share the stages before their training, so sums are given by arm alone."""
    stages = _stages(list(arms.values()))
    if not stages:
        return []
    table = [["seconds", *stages, "all"]]
    for arm, seconds in arms.items():
        figures = [*(seconds.get(stage) for stage in stages), sum(seconds.values())]
        table.append([arm, *(format_number(figure, ",.1f") for figure in figures)])
    return table


def _stages(seconds: Sequence[Mapping[str, float]]) -> list[str]:
    """In the order in which they run, though the first arm may be one without a teacher."""
    present = dict.fromkeys(stage for of_arm in seconds for stage in of_arm)
    return [*(stage for stage in STAGES if stage in present), *(stage for stage in present if stage not in STAGES)]


def signature_lines(signatures: Mapping[str, str] | None, form: str) -> list[str]:
    """Name and signature of every metric in this form."""
    return [form.format(name, signature) for name, signature in (signatures or {}).items()]
