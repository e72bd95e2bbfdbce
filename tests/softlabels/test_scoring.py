"""The teacher's pass: top-k by hand, against the original's vectors, and the fast paths against the plain one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bertkd_ray.config.sections import TeacherConfig
from bertkd_ray.core.devices import Precision
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.softlabels import scoring
from bertkd_ray.softlabels.scoring import Scorer, topk_scores
from bertkd_ray.teacher.gpu_inference import GpuEncoder
from bertkd_ray.teacher.masking import BertSpecials, cmlm_batch, expand_passes
from bertkd_ray.teacher.model import ConditionalMaskedLM, build_teacher
from bertkd_ray.teacher.source import bert_specials
from tests.helpers.shared_files import golden_path
from tests.teacher.tiny import SPECIALS, hidden_after, write_bert

BERT_IDS = np.asarray([0, 1, 2, 3, *range(5, 29)], np.int32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ConditionalMaskedLM:
    teacher = build_teacher(write_bert(tmp_path_factory.mktemp("bert")), BERT_IDS, TeacherConfig()).eval()
    with torch.no_grad():
        teacher.output.bias.copy_(torch.linspace(-1, 1, len(BERT_IDS)))
    return teacher


@pytest.fixture(scope="module")
def pairs() -> tuple[Ragged, Ragged, np.ndarray]:
    rng = np.random.default_rng(0)
    sources = [rng.integers(4, 28, length).tolist() for length in (3, 9, 1, 6, 6, 0, 12)]
    targets = [rng.integers(4, 28, length).tolist() for length in (5, 16, 1, 8, 0, 3, 2)]
    return Ragged.from_lists(sources), Ragged.from_lists(targets), np.arange(100, 107)


def scorer(model: ConditionalMaskedLM, **changes: Any) -> Scorer:
    options: dict[str, Any] = {"topk": 4, "batch_tokens": 256, "precision": "float32", "device": torch.device("cpu")}
    return Scorer(model, BERT_IDS, SPECIALS, **{**options, **changes})


def plain_logits(
    model: ConditionalMaskedLM, src: Ragged, tgt: Ragged, bert_ids: np.ndarray, specials: BertSpecials, passes: int = 7
) -> torch.Tensor:
    """[P, V]: pair by pair, pass by pass, without padding."""
    rows = []
    for pair in range(len(src)):
        one = np.asarray([pair])
        length = int(tgt.lengths[pair]) + 1
        logits = torch.full((length, len(bert_ids)), torch.nan)
        for mask in expand_passes(np.asarray([length]), passes)[1].reshape(-1, length):
            batch = cmlm_batch(src.take(one), tgt.take(one), mask, bert_ids, specials, pad_to=1)
            tensors = (batch.input_ids, batch.token_type_ids, batch.attention_mask, batch.masked_index)
            with torch.no_grad():
                logits[torch.from_numpy(mask)] = model.logits(model(*map(torch.from_numpy, tensors)))
        rows.append(logits)
    return torch.cat(rows)


def test_topk_by_hand() -> None:
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0]])
    bias = torch.tensor([0.0, 0.5, -4.0, 0.0])
    ids, logits, logsumexp = topk_scores(torch.tensor([[2.0, 1.0], [0.0, 5.0]]), weight, bias, 2)
    assert ids.tolist() == [[0, 1], [1, 2]]  # scores 2, 1.5, -1, -2 and 0, 5.5, 1, 0
    assert logits.tolist() == [[2.0, 1.5], [5.5, 1.0]]
    expected = [np.log(np.exp([2, 1.5, -1, -2]).sum()), np.log(np.exp([0, 5.5, 1, 0]).sum())]
    assert logsumexp.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_chunks_change_nothing(precision: Precision, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight, bias = (torch.randn(size, generator=generator) for size in ((11, 8), (40, 8), (40,)))
    whole = topk_scores(hidden, weight, bias, 3, precision=precision)
    monkeypatch.setattr(scoring, "CPU_BLOCK_ELEMENTS", 90)  # two rows a block
    for part, expected in zip(topk_scores(hidden, weight, bias, 3, precision=precision), whole, strict=True):
        torch.testing.assert_close(part, expected)
    monkeypatch.setattr(scoring, "CPU_BLOCK_ELEMENTS", 1)  # never less than one
    torch.testing.assert_close(topk_scores(hidden, weight, bias, 3, precision=precision)[2], whole[2])


def test_topk_of_nothing_and_of_everything() -> None:
    weight, bias = torch.eye(3), torch.zeros(3)
    ids, logits, logsumexp = topk_scores(torch.zeros(0, 3), weight, bias, 2)
    assert (ids.shape, logits.shape, logsumexp.shape) == ((0, 2), (0, 2), (0,))
    for precision in ("float32", "bf16"):
        ids, _, _ = topk_scores(torch.tensor([[1.0, 3.0, 2.0]]), weight, bias, 3, precision=precision)
        assert ids.tolist() == [[1, 2, 0]]


def test_bf16_product_gives_exact_logits_of_candidates_within_its_rounding() -> None:
    """bf16 keeps 8 bits: scores are off by at most 2^-8 of the sum of absolute products (and 2^-8 of the result)."""
    generator = torch.Generator().manual_seed(1)
    hidden, weight = torch.randn(200, 64, generator=generator), torch.randn(500, 64, generator=generator)
    bias = torch.randn(500, generator=generator)
    ids, logits, logsumexp = topk_scores(hidden, weight, bias, 8, precision="bf16")
    exact = hidden @ weight.T + bias
    torch.testing.assert_close(logits, exact.gather(1, ids), rtol=1e-5, atol=1e-4)
    assert (logits.diff(dim=1) <= 0).all()
    rounding = 3 * 2.0**-8 * (hidden.abs() @ weight.abs().T + bias.abs()).amax(1, keepdim=True)
    kth = exact.topk(8).values[:, -1:]
    assert (logits >= kth - 2 * rounding).all()
    same = [set(mine) == set(theirs) for mine, theirs in zip(ids.tolist(), exact.topk(8).indices.tolist(), strict=True)]
    assert np.mean(same) > 0.99
    torch.testing.assert_close(logsumexp, exact.logsumexp(1), rtol=0, atol=0.15)


@pytest.mark.parametrize("batch_tokens", [1, 40, 256, 4096])
def test_scores_are_those_of_the_plain_loop(
    model: ConditionalMaskedLM, pairs: tuple[Ragged, Ragged, np.ndarray], batch_tokens: int
) -> None:
    """Any budget, down to one row a batch: the plain loop's top-k up to float32 rounding and float16 storage."""
    src, tgt, ids = pairs
    labels = scorer(model, batch_tokens=batch_tokens).score(src, tgt, ids)
    expected = plain_logits(model, src, tgt, BERT_IDS, SPECIALS)
    assert labels.offsets.tolist() == [0, 6, 23, 25, 34, 35, 39, 42]
    assert np.array_equal(labels.topk_ids, expected.topk(4).indices.numpy())
    np.testing.assert_allclose(labels.topk_logits, expected.topk(4).values.numpy(), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(labels.logsumexp, expected.logsumexp(1).numpy(), rtol=1e-5, atol=1e-5)
    assert (labels.topk_ids.dtype, labels.topk_logits.dtype) == (np.uint8, np.float16)
    assert (labels.logsumexp.dtype, labels.offsets.dtype) == (np.float32, np.int64)


def test_other_numbers_of_passes(model: ConditionalMaskedLM, pairs: tuple[Ragged, Ragged, np.ndarray]) -> None:
    src, tgt, ids = pairs
    seen = {}
    for passes in (1, 2, 7):
        labels = scorer(model, passes=passes).score(src, tgt, ids)
        expected = plain_logits(model, src, tgt, BERT_IDS, SPECIALS, passes)
        assert np.array_equal(labels.topk_ids, expected.topk(4).indices.numpy())
        seen[passes] = labels.logsumexp
    assert not np.allclose(seen[1], seen[7])


@pytest.fixture
def left_to_right(model: ConditionalMaskedLM) -> Iterator[ConditionalMaskedLM]:
    model.config.direction = "left_to_right"
    yield model
    model.config.direction = "both"


def plain_left_to_right(model: ConditionalMaskedLM, src: Ragged, tgt: Ragged) -> torch.Tensor:
    """[P, V]: every position by itself, after the target before it, whose tokens see no later one."""
    rows = []
    for pair in range(len(src)):
        frame = [SPECIALS.cls, *BERT_IDS[src.row(pair)], SPECIALS.sep]
        for position in range(len(tgt.row(pair)) + 1):
            rows.append(hidden_after(model, frame, BERT_IDS[tgt.row(pair)[:position]]))
    with torch.no_grad():
        return model.logits(torch.stack(rows))


@pytest.mark.parametrize("batch_tokens", [1, 40, 256, 4096])
def test_from_left_to_right_one_pass_scores_every_position_after_its_whole_left_context(
    left_to_right: ConditionalMaskedLM, pairs: tuple[Ragged, Ragged, np.ndarray], batch_tokens: int
) -> None:
    src, tgt, ids = pairs
    expected = plain_left_to_right(left_to_right, src, tgt)
    labels = scorer(left_to_right, batch_tokens=batch_tokens, passes=7).score(src, tgt, ids)
    assert labels.offsets.tolist() == [0, 6, 23, 25, 34, 35, 39, 42]
    assert np.array_equal(labels.topk_ids, expected.topk(4).indices.numpy())
    np.testing.assert_allclose(labels.topk_logits, expected.topk(4).values.numpy(), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(labels.logsumexp, expected.logsumexp(1).numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("as_on_gpus", [False, True])
def test_from_left_to_right_bf16_agrees_within_its_rounding(
    left_to_right: ConditionalMaskedLM, pairs: tuple[Ragged, Ragged, np.ndarray], as_on_gpus: bool
) -> None:
    src, tgt, ids = pairs
    fast = scorer(left_to_right, precision="bf16")
    if as_on_gpus:
        fast.encoder = GpuEncoder(left_to_right)
    exact = plain_left_to_right(left_to_right, src, tgt)
    tolerance = 16 * 2.0**-8 * float(exact.abs().max())
    np.testing.assert_allclose(fast.score(src, tgt, ids).logsumexp, exact.logsumexp(1).numpy(), rtol=0, atol=tolerance)


def test_from_left_to_right_a_pair_fills_the_positions_with_two_special_tokens(
    left_to_right: ConditionalMaskedLM,
) -> None:
    src, tgt, ids = Ragged.from_lists([[5] * 14]), Ragged.from_lists([[6] * 16]), np.asarray([8])
    assert len(scorer(left_to_right).score(src, tgt, ids).logsumexp) == 17
    with pytest.raises(UserError, match="pair 8 takes 33 tokens with its 2 special ones"):
        scorer(left_to_right).score(src, Ragged.from_lists([[6] * 17]), ids)


def test_row_order_does_not_matter(model: ConditionalMaskedLM, pairs: tuple[Ragged, Ragged, np.ndarray]) -> None:
    src, tgt, ids = pairs
    labels = scorer(model).score(src, tgt, ids)
    order = np.asarray([3, 0, 6, 5, 1, 2, 4])
    moved = scorer(model).score(src.take(order), tgt.take(order), ids[order])
    positions = Ragged(np.arange(len(labels.logsumexp)), labels.offsets).take(order).values
    assert np.array_equal(moved.topk_ids, labels.topk_ids[positions])
    np.testing.assert_allclose(moved.logsumexp, labels.logsumexp[positions], rtol=1e-5)


@pytest.mark.parametrize("as_on_gpus", [False, True])
def test_bf16_agrees_within_its_rounding(
    model: ConditionalMaskedLM, pairs: tuple[Ragged, Ragged, np.ndarray], as_on_gpus: bool
) -> None:
    """The top-k sets are equal but for ties within the tolerance: 2^-8 of the largest logit for each rounding.

    Sixteen roundings: six products and the residual in each of two layers, the transform, and the vocabulary.
    """
    src, tgt, ids = pairs
    scoring_fast = scorer(model, precision="bf16")
    if as_on_gpus:
        scoring_fast.encoder = GpuEncoder(model)
    fast = scoring_fast.score(src, tgt, ids)
    exact = plain_logits(model, src, tgt, BERT_IDS, SPECIALS)
    tolerance = 16 * 2.0**-8 * float(exact.abs().max())
    chosen = exact.gather(1, torch.from_numpy(fast.topk_ids.astype(np.int64))).numpy()
    np.testing.assert_allclose(fast.topk_logits, chosen, rtol=0, atol=tolerance)
    assert (chosen >= exact.topk(4).values.numpy()[:, -1:] - 2 * tolerance).all()
    np.testing.assert_allclose(fast.logsumexp, exact.logsumexp(1).numpy(), rtol=0, atol=tolerance)
    assert not np.array_equal(fast.logsumexp, scorer(model).score(src, tgt, ids).logsumexp)


def test_no_pairs(model: ConditionalMaskedLM) -> None:
    nothing = Ragged.from_lists([])
    labels = scorer(model).score(nothing, nothing, np.zeros(0, np.int64))
    assert (labels.topk_ids.shape, labels.logsumexp.shape, labels.offsets.tolist()) == ((0, 4), (0,), [0])


def test_pair_longer_than_the_bert_is_named(model: ConditionalMaskedLM) -> None:
    fits, too_long = [5] * 15, [5] * 16
    accepted = scorer(model).score(Ragged.from_lists([[5] * 14]), Ragged.from_lists([fits]), np.asarray([1]))
    assert len(accepted.logsumexp) == 16  # 14 + 15 + 3 places are the 32 positions
    with pytest.raises(UserError, match=r"pair 41 takes 33 tokens .* the teacher has 32 positions"):
        scorer(model).score(
            Ragged.from_lists([[5], [5] * 14]), Ragged.from_lists([fits, too_long]), np.asarray([40, 41])
        )


@pytest.mark.parametrize("value", [1e6, float("nan")])
def test_logits_beyond_float16_are_an_error(tmp_path: Path, value: float) -> None:
    teacher = build_teacher(write_bert(tmp_path), BERT_IDS, TeacherConfig()).eval()
    with torch.no_grad():
        teacher.output.bias[5] = value
    with pytest.raises(OverflowError, match=r"pair 9, target position 0: .* do not fit float16"):
        scorer(teacher).score(Ragged.from_lists([[5]]), Ragged.from_lists([[6]]), np.asarray([9]))


def test_wrong_corpus_and_wrong_topk_are_refused(model: ConditionalMaskedLM) -> None:
    with pytest.raises(UserError, match="predicts 28 tokens, the corpus has 20"):
        Scorer(model, BERT_IDS[:20], SPECIALS, topk=4, batch_tokens=64, precision="float32", device=torch.device("cpu"))
    for topk in (0, 29):
        with pytest.raises(UserError, match=r"kd\.topk must be from 1 to the vocabulary's 28"):
            scorer(model, topk=topk)


@pytest.fixture(scope="module")
def original() -> dict[str, Any]:
    """The original's checkpoint, pairs and token ids; a token enters as its piece without `@@`, and `@-@` as `-`."""
    record = json.loads(golden_path("topk.json").read_text())
    directory = golden_path("tiny_bert")
    pieces = {line: index for index, line in enumerate((directory / "vocab.txt").read_text().split("\n"))}
    ids = {token: index for index, token in enumerate(record["seq2seq_vocab"])}
    inputs = [token.replace("@-@", "-").replace("@@", "") for token in ids]
    bert_ids = np.asarray([pieces.get(piece, pieces["[UNK]"]) for piece in inputs], np.int32)
    vectors = np.load(golden_path("topk.npz"), allow_pickle=False)
    teacher = build_teacher(directory, bert_ids, TeacherConfig()).eval()
    with torch.no_grad():
        teacher.output.weight.copy_(torch.from_numpy(vectors["output_weight"]))
        teacher.output.bias.copy_(torch.from_numpy(vectors["output_bias"]))
    src, tgt = (
        Ragged.from_lists([[ids[token] for token in pair[side]] for pair in record["pairs"]]) for side in ("src", "tgt")
    )
    specials = bert_specials(directory)
    return {
        "record": record,
        "vectors": vectors,
        "model": teacher,
        "src": src,
        "tgt": tgt,
        "bert_ids": bert_ids,
        "specials": specials,
    }


def assert_same_topk(ids: np.ndarray, logits: np.ndarray, vectors: Any) -> None:
    """Logits within 1e-4; ids agree but where two logits are closer than that."""
    np.testing.assert_allclose(logits, vectors["topk_logits"], rtol=0, atol=1e-4)
    gaps = np.diff(vectors["topk_logits"], axis=1, append=-np.inf)
    close = (np.abs(gaps) < 1e-4) | (np.abs(np.roll(gaps, 1, axis=1)) < 1e-4)
    differing = (ids != vectors["topk_indices"]) & ~close
    differing[:, -1] = False  # the k-th may tie with the one left out
    assert not differing.any()
    assert np.mean(ids == vectors["topk_indices"]) > 0.99


@pytest.mark.golden
def test_hidden_states_and_topk_are_the_originals(original: dict[str, Any]) -> None:
    record, vectors, src, tgt = (original[name] for name in ("record", "vectors", "src", "tgt"))
    row_of_pass, mask = expand_passes(tgt.lengths + 1, record["num_samples"])
    batch = cmlm_batch(src.take(row_of_pass), tgt.take(row_of_pass), mask, original["bert_ids"], original["specials"])
    tensors = (batch.input_ids, batch.token_type_ids, batch.attention_mask, batch.masked_index)
    with torch.no_grad():
        hidden = original["model"](*map(torch.from_numpy, tensors))
        output = original["model"].output
        ids, logits, logsumexp = topk_scores(hidden, output.weight, output.bias, record["k"])
    # Passes of a pair come one after another; a stable sort by (pair, position) puts positions in target order.
    lengths = (tgt.lengths + 1)[row_of_pass]
    position = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    order = np.lexsort((position[mask], np.repeat(row_of_pass, lengths)[mask]))
    np.testing.assert_allclose(hidden.numpy()[order], vectors["hidden"], rtol=0, atol=1e-4)
    assert_same_topk(ids.numpy()[order], logits.numpy()[order], vectors)
    for pair in (0, 9, 22):
        dense = torch.from_numpy(vectors[f"dense_logits_{pair}"])
        rows = order[vectors["offsets"][pair] : vectors["offsets"][pair + 1]]
        torch.testing.assert_close(logsumexp[rows], dense.logsumexp(1), rtol=0, atol=1e-4)


@pytest.mark.golden
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_scorer_gives_the_originals_topk(original: dict[str, Any], attention: str) -> None:
    """As stored: float16 rounds the logits, by at most 2^-11 of their size; the ids come from before the rounding."""
    original["model"].set_attn_implementation(attention)
    passes = original["record"]["num_samples"]
    for_original = Scorer(
        original["model"],
        original["bert_ids"],
        original["specials"],
        topk=original["record"]["k"],
        passes=passes,
        batch_tokens=1024,
        precision="float32",
        device=torch.device("cpu"),
    )
    labels = for_original.score(original["src"], original["tgt"], np.arange(24))
    vectors = original["vectors"]
    assert np.array_equal(labels.offsets, vectors["offsets"])
    np.testing.assert_allclose(labels.topk_logits, vectors["topk_logits"], rtol=2.0**-11, atol=1e-4)
    exact = np.take_along_axis(
        vectors["hidden"] @ vectors["output_weight"].T + vectors["output_bias"],
        labels.topk_ids.astype(np.int64),
        axis=1,
    )
    assert_same_topk(labels.topk_ids, exact, vectors)
