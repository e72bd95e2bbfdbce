"""The soft labels of one teacher or of several for the same pairs, read like the rows of one table."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.artifacts.row_groups import RowGroups
from bertkd_ray.execution.dead_letters import DEAD_LETTERS
from bertkd_ray.softlabels.shards import LABELS, VALID_SHARDS, numbered

_EXCLUDED = (DEAD_LETTERS, VALID_SHARDS)


class LabelledRowGroups(RowGroups):
    """The row groups of the first soft labels, the others' columns beside theirs: `topk_ids.2`, `topk_logits.2`, …

    All are of one corpus. A pair that some teacher has not labelled is left out, so that a group may have fewer rows
    than `rows` says.
    """

    def __init__(self, labels: Sequence[Artifact]) -> None:
        first, *others = labels
        super().__init__(first, "", ["id", "src_ids", "tgt_ids", *LABELS], exclude=_EXCLUDED)
        self._others = [RowGroups(other, "", ["id", *LABELS], exclude=_EXCLUDED) for other in others]

    def read(self, groups: NDArray[np.int64]) -> pa.Table:
        """The rows of the given row groups that all teachers have labelled, as `RowGroups.read`."""
        table = super().read(groups)
        for number, other in enumerate(self._others, start=2):
            ids = table["id"].to_numpy()
            labels = other.read_around(self.numbers(groups), ids)
            labelled = labels["id"].to_numpy()
            order = np.argsort(labelled, kind="stable")
            kept = np.flatnonzero(np.isin(ids, labelled))
            rows = order[np.searchsorted(labelled, ids[kept], sorter=order)]
            table, labels = table.take(kept), labels.take(rows)
            for name in LABELS:
                table = table.append_column(numbered(name, number), labels[name])
        return table.combine_chunks()
