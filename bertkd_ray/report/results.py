"""What a pipeline has come to: its finished artifacts, and what they say together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from bertkd_ray.artifacts.artifact import Artifact, fingerprint
from bertkd_ray.config import Config
from bertkd_ray.config.results import owners_of, results_of
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.stages import DISTILL, EVALUATE, EXTRACT, FINETUNE, PREPARE, TRANSLATE, Stage
from bertkd_ray.report.tables import ArmResult
from bertkd_ray.training.curves import VALID_ACCURACY, VALID_BLEU, VALID_LOSS, VALID_PERPLEXITY, CurveRow

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from bertkd_ray.evaluation.significance import BleuResamples
    from bertkd_ray.report.buckets import BucketTables


TEACHER = "BERT teacher"
"""The teacher's label among those of arms, whose names have no space."""


@dataclass(frozen=True)
class Results:
    """The finished stages of one configuration; those that are not finished are absent, and so is what needs them."""

    config: Config
    stages: Mapping[str, Artifact]
    """Finished artifacts by stage, or stage/arm."""
    unfinished: Mapping[str, str] = field(default_factory=dict)
    """What is not finished, by stage or stage/arm, and the command that makes it."""
    command: str = ""
    """What makes all of it; empty where it is not known."""

    @property
    def directory(self) -> str:
        """Where in the store figures, tables and page go."""
        # The tails: a report of a version that counted one is not this one.
        bootstrap = {"bootstrap_samples": self.config.translate.bootstrap_samples, "tails": 2, "control": self.control}
        made = {result: artifact.fingerprint for result, artifact in self.stages.items()}
        return f"report-{fingerprint('report', bootstrap, made)}"

    @cached_property
    def arm_configs(self) -> dict[str, Config]:
        """The configuration of every arm, finished or not."""
        return self.config.arm_configs()

    @property
    def translated(self) -> dict[str, Artifact]:
        """The translation artifact of every arm that is finished."""
        results = {arm: TRANSLATE.result(arm) for arm in self.arm_configs}
        return {arm: self.stages[result] for arm, result in results.items() if result in self.stages}

    @property
    def evaluations(self) -> dict[str, Artifact]:
        """The finished scores of the teachers that translate, by name; the only teacher has none."""
        made = {name: self.stages.get(EVALUATE.named(name)) for name in self.teachers}
        return {name: of for name, of in made.items() if of is not None and FINETUNE.named(name) in self.stages}

    @property
    def scored(self) -> dict[str, Artifact]:
        """What has a row in the table: the arms' translations and the teacher's."""
        return {**self.translated, **{f"{TEACHER}{name and ' '}{name}": of for name, of in self.evaluations.items()}}

    @cached_property
    def translations(self) -> dict[str, pa.Table]:
        """The translations of every arm that is finished, see `translation.translate.read_translations`."""
        from bertkd_ray.translation.translate import read_translations

        return {arm: read_translations(artifact) for arm, artifact in self.translated.items()}

    @property
    def control(self) -> str | None:
        """The finished arm without a teacher with which the others are compared: `control`, else the first."""
        without_teacher = [arm for arm in self.translated if not self.arm_configs[arm].kd.has_teacher]
        return min(without_teacher, key=lambda arm: arm != "control", default=None)

    @property
    def signatures(self) -> dict[str, str]:
        """What the scores are, by metric. Raises as `arms`."""
        from bertkd_ray.evaluation.significance import bootstrap_signature
        from bertkd_ray.translation.translate import signatures_of

        signatures = signatures_of(self.scored, self.command)
        if any(arm.delta is not None for arm in self.arms):
            signatures["bootstrap"] = bootstrap_signature(self.config.translate.bootstrap_samples)
        return signatures

    @cached_property
    def arms(self) -> list[ArmResult]:
        """The scores of every finished arm. Raises UserError where they do not compare."""
        from bertkd_ray.evaluation.significance import compare, resample_counts
        from bertkd_ray.translation.translate import signatures_of

        arms: list[ArmResult] = []
        samples = self.config.translate.bootstrap_samples
        resamples: dict[str | None, BleuResamples] = {}
        signatures_of(self.scored, self.command)
        if self.control is not None and len(self.translations) > 1:
            resamples = {arm: resample_counts(counts_NC, samples=samples) for arm, counts_NC in self._counts.items()}
        for arm in self.translations:
            student, translation = self.stages[DISTILL.result(arm)], self.stages[TRANSLATE.result(arm)]
            is_compared = resamples and arm != self.control
            compared = compare([resamples[self.control]], [resamples[arm]]) if is_compared else None
            arms.append(
                ArmResult(
                    arm=arm,
                    parameters=int(student.metrics["parameters"]),
                    valid_bleu=student.metrics[VALID_BLEU],
                    test_bleu=translation.metrics["test/bleu"],
                    chrf=translation.metrics["test/chrf"],
                    legacy_bleu=translation.metrics["test/legacy_bleu"],
                    delta=compared.delta if compared else None,
                    p_value=compared.p_value if compared else None,
                    seconds=self._seconds(arm),
                    valid_perplexity=student.metrics[VALID_PERPLEXITY],
                    valid_accuracy=student.metrics[VALID_ACCURACY],
                    length_ratio=translation.metrics["test/length_ratio"],
                    sentences_per_second=translation.metrics.get("test/sentences_per_second"),
                )
            )
        return arms

    @cached_property
    def _counts(self) -> dict[str, NDArray[np.int64]]:
        return {arm: counted(of, self.translations[arm]) for arm, of in self.translated.items()}

    @cached_property
    def buckets(self) -> BucketTables:
        """BLEU of the arms against the control by bucket, see `report.buckets`; empty where nothing is compared."""
        from bertkd_ray.report.buckets import bucket_tables

        if self.control is None or len(self.translations) < 2:
            return {}
        counts = {arm: [counts_NC] for arm, counts_NC in self._counts.items()}
        corpus, samples = self.stages[PREPARE.name], self.config.translate.bootstrap_samples
        return bucket_tables(corpus, self.translations[self.control], counts, self.control, samples=samples)

    @cached_property
    def teacher_rows(self) -> list[ArmResult]:
        """The scores of the teachers that translate, compared with no control. Raises UserError as `arms`."""
        from bertkd_ray.translation.translate import signatures_of

        signatures_of(self.scored, self.command)
        rows = []
        for name, evaluation in self.evaluations.items():
            teacher = self.stages[FINETUNE.named(name)]
            row = ArmResult(
                arm=f"{TEACHER}{name and ' '}{name}",
                parameters=int(teacher.metrics["parameters"]),
                valid_bleu=evaluation.metrics["valid/bleu"],
                test_bleu=evaluation.metrics["test/bleu"],
                chrf=evaluation.metrics["test/chrf"],
                legacy_bleu=evaluation.metrics["test/legacy_bleu"],
                seconds=self._seconds(name, EVALUATE),
                valid_perplexity=math.exp(teacher.metrics[VALID_LOSS]),
                valid_accuracy=teacher.metrics[VALID_ACCURACY],
                length_ratio=evaluation.metrics["test/length_ratio"],
                sentences_per_second=evaluation.metrics.get("test/sentences_per_second"),
            )
            rows.append(row)
        return rows

    @property
    def rows(self) -> list[ArmResult]:
        """The rows of the table: the arms, then the teachers that translate."""
        return [*self.arms, *self.teacher_rows]

    def _seconds(self, owner: str, last: Stage = TRANSLATE) -> dict[str, float]:
        """How long a stage of an arm or teacher and every stage behind it took when it was done."""
        config = self.arm_configs[owner] if last.per_arm else self.config.teacher_configs()[owner]
        seconds: dict[str, float] = {}
        for stage in last.made_from(config):
            owners = owners_of(stage, owner, config) if last.per_arm else [owner if stage.per_teacher else ""]
            made = [self.stages[name] for name in map(stage.named, owners) if name in self.stages]
            if made:  # teachers of equal settings are one artifact
                seconds[stage.name] = sum({artifact.directory: artifact.seconds for artifact in made}.values())
        return seconds

    @cached_property
    def histories(self) -> dict[str, list[CurveRow]]:
        """The curves of every training: by arm, of one that arms share by result (`finetune`, `finetune/TEACHER`)."""
        from bertkd_ray.student.distill import HISTORY

        results = results_of(self.config).items()
        trained = {
            (owner if stage.per_arm else name): self.stages.get(name) for name, (stage, owner) in results if stage.steps
        }
        return {
            label: [CurveRow.from_json(row) for row in artifact.read_json(HISTORY)["rows"]]
            for label, artifact in trained.items()
            if artifact is not None
        }

    @property
    def teachers(self) -> list[str]:
        """The teachers that arms learn from, finished or not; one that is the only one has no name."""
        return [teacher for stage, teacher in results_of(self.config).values() if stage is FINETUNE]

    def fidelity(self, teacher: str) -> dict[str, float]:
        """What a teacher's soft labels keep of it, see `figures.draw_fidelity`; empty where there are none."""
        labels = self.stages.get(EXTRACT.named(teacher))
        prefix, metrics = "fidelity/", labels.metrics if labels else {}
        return {key.removeprefix(prefix): value for key, value in metrics.items() if key.startswith(prefix)}


def counted(translation: Artifact, table: pa.Table) -> NDArray[np.int64]:
    """`sentence_counts` of translations, of which the table was read.

    Raises UserError where their tokenizer cannot be had.
    """
    from bertkd_ray.evaluation.metrics import DEFAULT_TOKENIZER
    from bertkd_ray.evaluation.significance import sentence_counts
    from bertkd_ray.translation.translate import best_hypotheses

    tokenize = translation.info.get("tokenize", DEFAULT_TOKENIZER)
    try:
        return sentence_counts(best_hypotheses(table), table["reference"].to_pylist(), tokenize=tokenize)
    except UserError as error:
        raise UserError(f"{translation.display_uri}: {error}") from None
