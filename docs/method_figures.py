"""Draws the figure of docs/explanation/method.md: who sees whom in the left-to-right teacher's input.

python docs/method_figures.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from bertkd_ray.core.ragged import Ragged
from bertkd_ray.teacher.masking import BertSpecials
from bertkd_ray.teacher.prefix_lm import prefix_lm_batch

IMAGE = Path(__file__).parent / "images" / "left-to-right.svg"
NAMES = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "zwei", "hunde", "two", "dogs"]
SPECIALS = BertSpecials(*range(4))
SRC, TGT = [[4, 5]], [[6, 7]]


def figure() -> Figure:
    """The attention mask of one pair, as the package makes it."""
    src, tgt = Ragged.from_lists(SRC), Ragged.from_lists(TGT)
    batch = prefix_lm_batch(src, tgt, np.arange(len(NAMES)), SPECIALS, pad_to=1)
    names = [f"{NAMES[token]}  {position}" for position, token in enumerate(batch.input_ids[0])]
    drawn = Figure(figsize=(5.0, 3.6), layout="constrained")
    axes = drawn.subplots()
    axes.imshow(batch.attention_mask[0], cmap="Blues", vmin=0, vmax=1.6)
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    axes.set_xticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="minor", length=0)
    axes.set_title("a token of a row sees the tokens of its dark columns", fontsize="medium")
    predicted = [NAMES[token] for token in TGT[0]] + ["the end"]
    right = axes.secondary_yaxis("right")
    right.set_yticks(batch.masked_index, [f"predicts {label}" for label in predicted])
    right.tick_params(length=0)
    right.spines[:].set_visible(False)
    axes.spines[:].set_visible(False)
    return drawn


if __name__ == "__main__":
    # Ids from a constant, no date: the file changes only when the figure does.
    with mpl.rc_context({"svg.hashsalt": "method", "svg.fonttype": "none"}):
        figure().savefig(IMAGE, metadata={"Date": None})
