from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from transformers import M2M100Config, M2M100ForConditionalGeneration

from bertkd_ray.core.ragged import Ragged
from bertkd_ray.decoding import seq2seq
from bertkd_ray.decoding.attention import shared_keys
from bertkd_ray.decoding.batches import Translation, length_limits
from bertkd_ray.decoding.seq2seq import Seq2SeqStep, translate_ids
from bertkd_ray.student.collate import collate

PAD, BOS, EOS, VOCABULARY = 0, 2, 3, 40


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tiny matrices gain nothing from threads and lose much on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> M2M100ForConditionalGeneration:
    """Random weights, drawn so that nearly every source has its own translation, of 0 to 25 tokens and more."""
    config = M2M100Config(
        vocab_size=VOCABULARY, d_model=32, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=64, decoder_ffn_dim=64,
        encoder_attention_heads=4, decoder_attention_heads=4, activation_function="relu", scale_embedding=True,
        max_position_embeddings=64, dropout=0.3, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS,
        decoder_start_token_id=BOS, forced_eos_token_id=None,
    )  # fmt: skip
    built = M2M100ForConditionalGeneration(config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in built.named_parameters():
            if weight.dim() == 2:
                scale = 0.1 if "shared" in name else 0.6
                weight.copy_(torch.randn(weight.shape, generator=generator) * scale)
    return built.eval()


@pytest.fixture(scope="module")
def sources() -> Ragged:
    """Rows of 1 to 19 tokens in no order of length, one of them empty."""
    rng = np.random.default_rng(5)
    rows = [rng.integers(4, VOCABULARY, length).tolist() for length in rng.integers(1, 20, 24)]
    rows[7] = []
    return Ragged.from_lists(rows)


def recomputed_log_probs(model: M2M100ForConditionalGeneration, source: list[int], target: list[int]) -> torch.Tensor:
    """float32[T, V] log-probabilities at every target position, in one pass without a cache; `</s>` ends the source."""
    with torch.no_grad():
        logits = model(
            input_ids=torch.tensor([[*source, EOS]]),
            decoder_input_ids=torch.tensor([[BOS, *target[:-1]]]),
            use_cache=False,
        ).logits[0]
    log_probs = torch.log_softmax(logits, dim=-1)
    log_probs[:, [PAD, BOS]] = -torch.inf
    return log_probs


def recomputed_sum(model: M2M100ForConditionalGeneration, source: list[int], ids: list[int]) -> tuple[float, int]:
    """Sum of the log-probabilities of a translation under the default length limit, and its tokens with </s>."""
    whole = [*ids, EOS] if len(ids) < 2 * len(source) + 10 else ids
    log_probs = recomputed_log_probs(model, source, whole)
    return log_probs[torch.arange(len(whole)), torch.tensor(whole)].sum().item(), len(whole)


def only(results: list[list[Translation]]) -> list[list[int]]:
    return [best.ids for (best,) in results]


def test_greedy_is_generate_of_transformers(model: M2M100ForConditionalGeneration, sources: Ragged) -> None:
    ours = only(translate_ids(model, sources, beam=1, max_length_factor=0, max_length_offset=25))
    lengths = set()
    for row, ids in enumerate(ours):
        if row == 7:
            continue
        source = torch.tensor([[*sources.row(row).tolist(), EOS]])
        generated = model.generate(
            input_ids=source, attention_mask=torch.ones_like(source), num_beams=1, do_sample=False, max_new_tokens=25,
            suppress_tokens=[PAD, BOS],
        )[0, 1:].tolist()  # fmt: skip
        assert ids == (generated[:-1] if generated[-1] == EOS else generated)
        lengths.add(len(ids))
    assert len(lengths) > 5


def test_cached_greedy_is_the_argmax_without_a_cache(model: M2M100ForConditionalGeneration, sources: Ragged) -> None:
    for row, ids in enumerate(only(translate_ids(model, sources, beam=1))):
        if row == 7:
            continue
        source = sources.row(row).tolist()
        whole = [*ids, EOS] if len(ids) < 2 * len(source) + 10 else ids
        assert recomputed_log_probs(model, source, whole).argmax(dim=-1).tolist() == whole


@pytest.mark.parametrize(("beam", "n_best"), [(1, 1), (4, 1), (4, 3)])
def test_scores_are_recomputed_log_probabilities(
    model: M2M100ForConditionalGeneration, sources: Ragged, beam: int, n_best: int
) -> None:
    results = translate_ids(model, sources, beam=beam, n_best=n_best, alpha=0.6)
    for row, translations in enumerate(results):
        if row == 7:
            continue
        assert len(translations) == n_best
        assert [t.score for t in translations] == sorted((t.score for t in translations), reverse=True)
        source = sources.row(row).tolist()
        for ids, score in translations:
            total, length = recomputed_sum(model, source, ids)
            assert score == pytest.approx(total / ((5 + length + 1) / 6) ** 0.6, abs=1e-4)


def test_a_wider_beam_finds_more_probable_translations(model: M2M100ForConditionalGeneration, sources: Ragged) -> None:
    greedy = translate_ids(model, sources, beam=1)
    beams = translate_ids(model, sources, beam=6)
    gains = [b[0].score - g[0].score for g, b in zip(greedy, beams, strict=True)]
    assert np.mean(gains) > 0.05


@pytest.mark.parametrize("beam", [1, 3])
def test_neither_the_batch_nor_the_order_changes_a_translation(
    model: M2M100ForConditionalGeneration, sources: Ragged, beam: int
) -> None:
    expected = translate_ids(model, sources, beam=beam, batch_tokens=1)
    order = np.random.default_rng(1).permutation(len(sources))
    for budget in (100, 10_000):
        shuffled = translate_ids(model, sources.take(order), beam=beam, batch_tokens=budget)
        for row, found in zip(order, shuffled, strict=True):
            assert only([found]) == only([expected[row]])
            assert found[0].score == pytest.approx(expected[row][0].score, abs=1e-4)


def test_an_empty_row_gives_an_empty_translation(model: M2M100ForConditionalGeneration, sources: Ragged) -> None:
    assert translate_ids(model, sources, beam=2)[7] == [Translation([], 0.0)]
    nothing = Ragged.from_lists([[], []])
    assert translate_ids(model, nothing, beam=1) == [[Translation([], 0.0)]] * 2
    assert translate_ids(model, Ragged.from_lists([]), beam=3) == []


@pytest.mark.parametrize("beam", [1, 3])
def test_the_length_limit_follows_the_source(model: M2M100ForConditionalGeneration, sources: Ragged, beam: int) -> None:
    ids = only(translate_ids(model, sources, beam=beam, max_length_factor=0.5, max_length_offset=1))
    lengths = np.array([len(row) for row in ids])
    limits = sources.lengths // 2 + 1
    limits[7] = 0
    assert (lengths <= limits).all()
    assert (lengths == limits).sum() > 5


def test_the_length_limit_is_no_more_than_the_positions(model: M2M100ForConditionalGeneration) -> None:
    source = Ragged.from_lists([[5] * 30])
    with torch.no_grad():
        endless = M2M100ForConditionalGeneration(model.config).eval()
        endless.load_state_dict(model.state_dict())
        endless.lm_head = torch.nn.Linear(32, VOCABULARY)
        endless.lm_head.bias[EOS] = -1e4
    assert len(translate_ids(endless, source, beam=1, max_length_factor=9)[0][0].ids) == 64


def test_neither_pad_nor_start_is_ever_written(model: M2M100ForConditionalGeneration, sources: Ragged) -> None:
    eager = M2M100ForConditionalGeneration(model.config).eval()
    eager.load_state_dict(model.state_dict())
    eager.lm_head = torch.nn.Linear(32, VOCABULARY)
    with torch.no_grad():
        eager.lm_head.bias[[PAD, BOS]] = 1e4
    written = {token for found in translate_ids(eager, sources, beam=3, n_best=3) for t in found for token in t.ids}
    assert written.isdisjoint({PAD, BOS, EOS})
    assert written


def test_the_training_mode_is_left_as_it_was(model: M2M100ForConditionalGeneration, sources: Ragged) -> None:
    expected = translate_ids(model, sources, beam=1)
    model.train()
    try:
        assert translate_ids(model, sources, beam=1) == expected
        assert model.training
    finally:
        model.eval()


def test_the_models_attention_is_left_as_it_was(model: M2M100ForConditionalGeneration, sources: Ragged) -> None:
    before = model.config._attn_implementation
    translate_ids(model, sources, beam=2)
    assert model.config._attn_implementation == before
    with shared_keys(model):
        assert model.config._attn_implementation != before
    assert model.config._attn_implementation == before


def test_bf16_is_close_and_leaves_an_enclosing_autocast_trainable(
    model: M2M100ForConditionalGeneration, sources: Ragged
) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        results = translate_ids(model, sources, beam=1, alpha=0.0, precision="bf16")
        model(input_ids=torch.tensor([[5, 6]]), labels=torch.tensor([[7, EOS]])).loss.backward()
    assert model.model.decoder.layers[0].fc1.weight.grad is not None
    model.zero_grad(set_to_none=True)
    differences = []
    for row, ((ids, score),) in enumerate(results):
        source = sources.row(row).tolist()
        if source:
            total, length = recomputed_sum(model, source, ids)
            differences.append(abs(score - total) / length)
    assert 1e-6 < max(differences) < 0.05


def test_rows_of_a_beam_can_be_moved_and_dropped(model: M2M100ForConditionalGeneration) -> None:
    """Two sentences of two rows each swap their rows, then the first sentence leaves: as if computed alone."""
    source = torch.tensor([[5, 6, 7, EOS], [8, 9, EOS, PAD]])
    with torch.no_grad(), shared_keys(model):
        step = Seq2SeqStep(model, source, source != PAD)
        step.log_probs(torch.tensor([BOS, BOS]))
        step.keep(torch.tensor([[0, 0], [1, 1]]))
        step.log_probs(torch.tensor([10, 11, 12, 13]))
        step.reorder(torch.tensor([1, 0, 3, 3]))
        step.keep(torch.tensor([[2, 3]]))
        found = step.log_probs(torch.tensor([14, 15]))
    for row, last in enumerate((14, 15)):
        expected = recomputed_log_probs(model, [8, 9], [13, last, EOS])[-1]
        torch.testing.assert_close(found[row], expected, atol=1e-4, rtol=1e-4)


def test_bad_arguments_are_refused(model: M2M100ForConditionalGeneration, sources: Ragged) -> None:
    with pytest.raises(ValueError, match="beam width 2, got 3"):
        translate_ids(model, sources, beam=2, n_best=3)
    with pytest.raises(ValueError, match="beam width 1, got 0"):
        translate_ids(model, sources, beam=1, n_best=0)


def test_a_model_without_special_ids_is_refused(
    model: M2M100ForConditionalGeneration, sources: Ragged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.config, "eos_token_id", [3, 4])
    with pytest.raises(ValueError, match=r"one eos_token_id, it has \[3, 4\]"):
        translate_ids(model, sources, beam=1)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The sources and masks that reach the encoder, batch by batch."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    original = seq2seq.Seq2SeqStep

    def recording(
        model: M2M100ForConditionalGeneration, source_NS: torch.Tensor, mask_NS: torch.Tensor
    ) -> seq2seq.Seq2SeqStep:
        seen.append((source_NS, mask_NS))
        return original(model, source_NS, mask_NS)

    monkeypatch.setattr(seq2seq, "Seq2SeqStep", recording)
    return seen


def test_batches_respect_the_budget(
    model: M2M100ForConditionalGeneration, sources: Ragged, encoded: list[tuple[torch.Tensor, torch.Tensor]]
) -> None:
    translate_ids(model, sources, beam=4, batch_tokens=400)
    shapes = [source.shape for source, _ in encoded]
    assert sum(rows for rows, _ in shapes) == 23
    assert all(rows * width * 4 <= 400 for rows, width in shapes)
    assert all(width % 8 == 0 for _, width in shapes)


def test_the_encoder_reads_what_it_was_trained_on(
    model: M2M100ForConditionalGeneration, encoded: list[tuple[torch.Tensor, torch.Tensor]]
) -> None:
    rows = Ragged.from_lists([[5, 6, 7, 8, 9, 10, 11, 12], [13, 14, 15]])  # the first, with </s>, needs 16 columns
    translate_ids(model, rows, beam=1)
    trained = collate(rows, rows)
    ((source, mask),) = encoded
    torch.testing.assert_close(source, trained.src_ids_NS)
    torch.testing.assert_close(mask, trained.src_mask_NS)


def test_limits_of_translations_by_hand():
    assert length_limits(np.array([1, 3, 40]), 64).tolist() == [12, 16, 64]
    assert length_limits(np.array([3]), 64, factor=0.5, offset=-5).tolist() == [1]
