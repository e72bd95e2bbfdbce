"""The k best of many scores on a GPU, where the general selection reads every row several times.

A row is cut into groups. Each of its k best scores stands in one of the k groups with the largest peaks: were k other
groups better, each would have a score above it. So one reading gives the peak of every group, and the selection is
among the scores of k groups.

Shapes: M rows, V scores of a row, G groups of W scores, k largest entries of a row.
"""

import torch
from torch import Tensor

GROUP = 128
"""W: the groups' selection and the one inside of k groups have about as much to do for V = 40,000 and k = 16."""


def grouped_topk(scores_MV: Tensor, k: int, group: int = GROUP) -> tuple[Tensor, Tensor]:
    """The k largest scores [M, k] of each row and their columns int64[M, k], largest first; ties in any order.

    Raises ValueError when k is more than V.
    """
    rows, columns = scores_MV.shape
    if k > columns:
        raise ValueError(f"{k} of {columns} scores are asked for")
    groups = columns // group
    if groups <= k:
        values_Mk, columns_Mk = scores_MV.topk(k)
        return values_Mk, columns_Mk
    peaks_MG = scores_MV[:, : groups * group].unflatten(1, (groups, group)).amax(dim=2)
    chosen_Mk = peaks_MG.topk(k, sorted=False).indices
    within = torch.arange(group, device=scores_MV.device)
    candidates_MC = (chosen_Mk[:, :, None] * group + within).flatten(1)
    # Fewer than a group; always among the candidates.
    remainder = torch.arange(groups * group, columns, device=scores_MV.device).expand(rows, -1)
    candidates_MC = torch.cat([candidates_MC, remainder], dim=1)
    best = scores_MV.gather(1, candidates_MC).topk(k)
    return best.values, candidates_MC.gather(1, best.indices)


def logsumexp_of(scores_MV: Tensor) -> Tensor:
    """float32[M]: of every row, summed in float32, with half of the passes over memory that `torch.logsumexp` makes."""
    return scores_MV[:, 0].float() - torch.log_softmax(scores_MV, dim=1, dtype=torch.float32)[:, 0]
