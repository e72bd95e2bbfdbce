"""A left-to-right teacher translates as if its whole input were laid out anew for every token."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bertkd_ray.config.sections import TeacherConfig
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.corpus.tokenizer import BOS_ID, EOS_ID, PAD_ID
from bertkd_ray.decoding.batches import Translation
from bertkd_ray.decoding.beam_search import Step, beam_search
from bertkd_ray.teacher import decoding
from bertkd_ray.teacher.decoding import TeacherStep, translate_ids
from bertkd_ray.teacher.model import ConditionalMaskedLM, build_teacher
from bertkd_ray.teacher.prefix_lm import prefix_lm_batch
from bertkd_ray.teacher.task import TeacherBatch
from tests.teacher.tiny import SPECIALS, write_bert

VOCABULARY, POSITIONS = 30, 32
BERT_IDS = np.r_[0, 1, 2, 3, np.random.default_rng(2).permutation(np.arange(5, 31))].astype(np.int32)


def build(directory: Path, attention: str) -> ConditionalMaskedLM:
    """Random weights, with which translations of the same batch have 0 to 20 tokens."""
    teacher = build_teacher(
        write_bert(directory), BERT_IDS, TeacherConfig(direction="left_to_right"), attention=attention
    ).eval()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        teacher.output.weight.copy_(torch.randn(VOCABULARY, 16, generator=generator) * 0.5)
        teacher.output.bias[EOS_ID] = 2.5
    return teacher


@pytest.fixture(scope="module", params=["eager", "sdpa"])
def teacher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ConditionalMaskedLM:
    return build(tmp_path_factory.mktemp("bert"), request.param)


@pytest.fixture(scope="module")
def sources() -> Ragged:
    """Rows of 1 to 12 tokens in no order of length, an empty one, and three near and at the end of the positions."""
    rng = np.random.default_rng(5)
    rows = [rng.integers(4, VOCABULARY, length).tolist() for length in [*rng.integers(1, 13, 14), 26, 28, 29]]
    rows[3] = []
    return Ragged.from_lists(rows)


class UncachedStep(Step):
    """Lays source and target out anew for every position, and keeps nothing of the model's."""

    def __init__(self, teacher: ConditionalMaskedLM, source: list[int]) -> None:
        self._teacher, self._source, self._targets = teacher, source, [[]]

    def log_probs(self, tokens_R: Tensor) -> Tensor:
        if tokens_R[0] != BOS_ID:
            self._targets = [[*row, token] for row, token in zip(self._targets, tokens_R.tolist(), strict=True)]
        return all_log_probs(self._teacher, [(self._source, target) for target in self._targets])[:, -1].contiguous()

    def reorder(self, rows_R: Tensor) -> None:
        self._targets = [self._targets[row] for row in rows_R.tolist()]

    def keep(self, rows_NB: Tensor) -> None:
        self.reorder(rows_NB.flatten())


@torch.no_grad()
def all_log_probs(teacher: ConditionalMaskedLM, pairs: list[tuple[list[int], list[int]]]) -> Tensor:
    """float32[n, T + 1, V] at every position of n pairs of T target tokens, with the model's own forward pass."""
    src, tgt = (Ragged.from_lists([pair[side] for pair in pairs]) for side in (0, 1))
    batch = TeacherBatch.of(prefix_lm_batch(src, tgt, BERT_IDS, SPECIALS, 1))
    hidden = teacher(batch.input_ids, batch.token_type_ids, batch.attention_mask, batch.masked_index)
    log_probs = torch.log_softmax(teacher.logits(hidden), dim=-1)
    log_probs[:, [PAD_ID, BOS_ID]] = -torch.inf
    return log_probs.unflatten(0, (len(pairs), -1))


def uncached(teacher: ConditionalMaskedLM, source: list[int], **search: int | float) -> list[Translation]:
    limit = min(2 * len(source) + 10, POSITIONS - len(source) - 2)
    (found,) = beam_search(
        UncachedStep(teacher, source), batch=1, bos=BOS_ID, eos=EOS_ID, pad=PAD_ID, max_length=limit, **search
    )
    return [Translation([token for token in tokens.tolist() if token != EOS_ID], score) for tokens, score in found]


@pytest.mark.parametrize(("beam", "n_best", "batch_tokens"), [(1, 1, 4096), (4, 1, 4096), (5, 3, 300), (3, 3, 1)])
def test_hypotheses_and_scores_are_those_of_the_uncached_reference(
    teacher: ConditionalMaskedLM, sources: Ragged, beam: int, n_best: int, batch_tokens: int
) -> None:
    found = translate_ids(
        teacher, BERT_IDS, SPECIALS, sources, beam=beam, n_best=n_best, alpha=0.6, batch_tokens=batch_tokens
    )
    for row, translations in enumerate(found):
        if row == 3:
            assert translations == [Translation([], 0.0)]
            continue
        expected = uncached(teacher, sources.row(row).tolist(), beam=beam, n_best=n_best, alpha=0.6)
        assert [t.ids for t in translations] == [t.ids for t in expected]
        assert [t.score for t in translations] == pytest.approx([t.score for t in expected], abs=1e-5)
    lengths = [len(of_row[0].ids) for of_row in found]
    assert len(set(lengths)) > 5, "the sentences must leave the batch at different times"


def test_scores_are_those_of_one_pass_over_the_pair(teacher: ConditionalMaskedLM, sources: Ragged) -> None:
    """The sum of log-probabilities over ((5 + length + 1) / 6)^alpha, length with the end of the sentence."""
    for row, ((ids, score),) in enumerate(translate_ids(teacher, BERT_IDS, SPECIALS, sources, beam=3, alpha=0.8)):
        source = sources.row(row).tolist()
        if not source:
            continue
        ended = len(ids) < min(2 * len(source) + 10, POSITIONS - len(source) - 2)
        whole = torch.tensor([*ids, EOS_ID] if ended else ids)
        log_probs = all_log_probs(teacher, [(source, whole[:-1].tolist())])[0]
        total = float(log_probs[torch.arange(len(whole)), whole].sum())
        assert score == pytest.approx(total / ((5 + len(whole) + 1) / 6) ** 0.8, abs=1e-5)


def test_a_translation_ends_where_the_positions_do(tmp_path: Path, sources: Ragged) -> None:
    """Rows that are full stay in the batch of those that are not."""
    teacher = build(tmp_path, "eager")
    with torch.no_grad():
        teacher.output.bias[EOS_ID] = -1e4
    found = translate_ids(teacher, BERT_IDS, SPECIALS, sources, beam=2, max_length_factor=9)
    lengths = np.array([len(best.ids) for (best,) in found])
    limits = np.minimum(9 * sources.lengths + 10, POSITIONS - 2 - sources.lengths) * (sources.lengths > 0)
    assert lengths.tolist() == limits.tolist()
    assert lengths[-3:].tolist() == [4, 2, 1]


def test_a_source_that_fills_the_positions_has_an_empty_translation(teacher: ConditionalMaskedLM) -> None:
    long, short = [5] * (POSITIONS - 2), [6, 7]
    found = translate_ids(teacher, BERT_IDS, SPECIALS, Ragged.from_lists([long, short, long * 2]), beam=2)
    assert found[0] == found[2] == [Translation([], 0.0)]
    assert [t.ids for t in found[1]] == [t.ids for t in uncached(teacher, short, beam=2)]


def test_rows_of_a_beam_can_be_moved_and_dropped(teacher: ConditionalMaskedLM) -> None:
    """Two sentences of two rows each swap their rows, then the first sentence leaves: as if computed alone."""
    frame = torch.tensor([[2, 11, 12, 13, 3], [2, BERT_IDS[14], BERT_IDS[15], 3, 0]])
    with torch.no_grad():
        step = TeacherStep(teacher, torch.tensor(BERT_IDS), frame, frame != 0)
        step.log_probs(torch.tensor([BOS_ID, BOS_ID]))
        step.keep(torch.tensor([[0, 0], [1, 1]]))
        step.log_probs(torch.tensor([10, 11, 12, 13]))
        step.reorder(torch.tensor([1, 0, 3, 3]))
        step.keep(torch.tensor([[2, 3]]))
        found = step.log_probs(torch.tensor([16, 17]))
    expected = all_log_probs(teacher, [([14, 15], [13, last]) for last in (16, 17)])[:, -1]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_neither_pad_nor_start_is_ever_written(tmp_path: Path, sources: Ragged) -> None:
    teacher = build(tmp_path, "eager")
    with torch.no_grad():
        teacher.output.bias[[PAD_ID, BOS_ID]] = 1e4
    found = translate_ids(teacher, BERT_IDS, SPECIALS, sources, beam=3, n_best=3)
    written = {token for of_row in found for best in of_row for token in best.ids}
    assert written.isdisjoint({PAD_ID, BOS_ID, EOS_ID})
    assert written


def test_bf16_is_close(teacher: ConditionalMaskedLM, sources: Ragged) -> None:
    found = translate_ids(teacher, BERT_IDS, SPECIALS, sources, beam=1, alpha=0.0, precision="bf16")
    differences = []
    for row, ((ids, score),) in enumerate(found):
        source = sources.row(row).tolist()
        if source and len(ids) < POSITIONS - len(source) - 2 and len(ids) < 2 * len(source) + 10:
            whole = torch.tensor([*ids, EOS_ID])
            total = float(all_log_probs(teacher, [(source, ids)])[0, torch.arange(len(whole)), whole].sum())
            differences.append(abs(score - total) / len(whole))
    assert 1e-6 < max(differences) < 0.05


def test_the_source_is_read_once_and_the_training_mode_left(
    teacher: ConditionalMaskedLM, sources: Ragged, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = []
    plain = decoding.TeacherStep

    def recorded(model: ConditionalMaskedLM, ids: Tensor, prefix: Tensor, seen: Tensor) -> TeacherStep:
        shapes.append(tuple(prefix.shape))
        return plain(model, ids, prefix, seen)

    monkeypatch.setattr(decoding, "TeacherStep", recorded)
    expected = translate_ids(teacher, BERT_IDS, SPECIALS, sources, beam=4, batch_tokens=400)
    assert sum(rows for rows, _ in shapes) == len(sources) - 1
    assert all(rows * width * 4 <= 400 for rows, width in shapes)
    assert max(width for _, width in shapes) == POSITIONS
    teacher.train()
    try:
        assert translate_ids(teacher, BERT_IDS, SPECIALS, sources, beam=4, batch_tokens=400) == expected
        assert teacher.training
    finally:
        teacher.eval()


def test_a_bidirectional_teacher_cannot_translate(tmp_path: Path) -> None:
    teacher = build_teacher(write_bert(tmp_path), BERT_IDS, TeacherConfig())
    with pytest.raises(ValueError, match="'both' cannot translate; left_to_right can"):
        translate_ids(teacher, BERT_IDS, SPECIALS, Ragged.from_lists([[5]]))


def test_a_beam_narrower_than_what_is_asked_for_is_refused(teacher: ConditionalMaskedLM, sources: Ragged) -> None:
    with pytest.raises(ValueError, match="beam width 2, got 3"):
        translate_ids(teacher, BERT_IDS, SPECIALS, sources, beam=2, n_best=3)
