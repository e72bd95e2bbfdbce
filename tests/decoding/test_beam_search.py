from __future__ import annotations

import itertools
import json
import math

import pytest
import torch
from torch import Tensor

from bertkd_ray.decoding.beam_search import Hypothesis, beam_search, length_penalty
from tests.helpers.shared_files import golden_path

BOS, EOS, PAD = 2, 3, 1


class Bigrams:
    """A toy model whose next token depends on the newest token; it checks that rows move within their sentence."""

    def __init__(self, logits_NVV: Tensor) -> None:
        self.table_NVV = torch.log_softmax(logits_NVV.float(), dim=-1)
        self.sentence_R = torch.arange(len(logits_NVV))
        self.past_RL = torch.empty((len(logits_NVV), 0), dtype=torch.long)
        self.rows_per_call: list[int] = []

    def log_probs(self, tokens_R: Tensor) -> Tensor:
        self.rows_per_call.append(len(tokens_R))
        self.past_RL = torch.cat([self.past_RL, tokens_R[:, None]], dim=1)
        return self.table_NVV[self.sentence_R, tokens_R].clone()

    def reorder(self, rows_R: Tensor) -> None:
        assert torch.equal(self.sentence_R[rows_R], self.sentence_R)
        self.past_RL = self.past_RL[rows_R]

    def keep(self, rows_NB: Tensor) -> None:
        sentence_NB = self.sentence_R[rows_NB]
        assert bool((sentence_NB == sentence_NB[:, :1]).all())
        assert bool((sentence_NB[1:, 0] > sentence_NB[:-1, 0]).all())
        self.sentence_R, self.past_RL = sentence_NB.flatten(), self.past_RL[rows_NB.flatten()]


class Trigrams(Bigrams):
    """The next token depends on the position and the two newest tokens; only the model's state knows the older one."""

    def __init__(self, logits_NLVVV: Tensor) -> None:
        super().__init__(logits_NLVVV)
        self.table_NLVVV = torch.log_softmax(logits_NLVVV, dim=-1)

    def log_probs(self, tokens_R: Tensor) -> Tensor:
        position = self.past_RL.shape[1]
        older_R = self.past_RL[:, -1] if position else tokens_R
        self.past_RL = torch.cat([self.past_RL, tokens_R[:, None]], dim=1)
        return self.table_NLVVV[self.sentence_R, position, older_R, tokens_R]


def trigram_row(model: Trigrams, sentence: int, prefix: tuple[int, ...]) -> list[float]:
    """The log-probabilities after a prefix, straight from the table."""
    older, newest = (BOS, BOS, *prefix)[-2:]
    return model.table_NLVVV[sentence, len(prefix), older, newest].tolist()


def random_trigrams(sentences: int, vocabulary: int, seed: int, spread: float = 2.0, longest: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((sentences, longest, *(vocabulary,) * 3), generator=generator) * spread


def plain(found: list[list[Hypothesis]]) -> list[list[tuple[list[int], float]]]:
    return [[(h.tokens.tolist(), h.score) for h in hypotheses] for hypotheses in found]


def probabilities(rows: dict[int, dict[int, float]], vocabulary: int = 6) -> Tensor:
    """A one-sentence bigram table [1, V, V] of the given probabilities; the rest of each row is nearly impossible."""
    table = torch.full((1, vocabulary, vocabulary), 1e-9)
    for token, row in rows.items():
        for following, probability in row.items():
            table[0, token, following] = probability
    return table.log()


@pytest.mark.golden
def test_length_penalty_is_the_original() -> None:
    for case in json.loads(golden_path("gnmt_length_penalty.json").read_text()):
        computed = [length_penalty(float(length), case["alpha"]) for length in case["length"]]
        assert computed == pytest.approx(case["penalty"], rel=1e-12)


def test_length_penalty_by_hand() -> None:
    assert length_penalty(7.0, 1.0) == 2.0
    assert length_penalty(7.0, 0.0) == 1.0
    assert length_penalty(torch.tensor([1, 19]), 0.5).tolist() == [1.0, 2.0]


@pytest.mark.golden
def test_beam_search_is_the_original() -> None:
    problems = json.loads(golden_path("beam_search.json").read_text())
    assert problems
    for problem in problems:
        table = torch.tensor(problem["logits"])
        found = beam_search(
            Bigrams(table),
            batch=len(table),
            beam=problem["beam_size"],
            bos=problem["bos"],
            eos=problem["eos"],
            pad=problem["pad"],
            max_length=problem["max_length"],
            min_length=problem["min_length"],
            alpha=problem["alpha"] if problem["length_penalty"] == "wu" else 0.0,
        )
        assert [h[0].tokens.tolist() for h in found] == problem["predictions"]
        assert [h[0].score for h in found] == pytest.approx(problem["scores"], abs=1e-4)


def test_beam_finds_what_greedy_misses() -> None:
    # Greedy takes 4 (0.6) and then can only reach </s> at 0.3; by way of 5 the same length has 0.4 * 0.9.
    table = probabilities({BOS: {4: 0.6, 5: 0.4}, 4: {EOS: 0.3, 0: 0.25, 1: 0.25, 4: 0.2}, 5: {EOS: 0.9, 0: 0.1}})
    greedy = plain(beam_search(Bigrams(table), batch=1, beam=1, bos=BOS, eos=EOS, pad=PAD, max_length=5, alpha=0.6))
    found = plain(beam_search(Bigrams(table), batch=1, beam=2, bos=BOS, eos=EOS, pad=PAD, max_length=5, alpha=0.6))
    penalty = (8 / 6) ** 0.6  # two tokens and the start symbol
    assert greedy == [[([4, EOS], pytest.approx(math.log(0.6 * 0.3) / penalty, abs=1e-5))]]
    assert found == [[([5, EOS], pytest.approx(math.log(0.4 * 0.9) / penalty, abs=1e-5))]]


def test_n_best_waits_for_as_many_hypotheses_and_sorts_by_normalised_score() -> None:
    table = probabilities({BOS: {EOS: 0.5, 4: 0.3, 5: 0.2}, 4: {EOS: 1.0}, 5: {EOS: 1.0}})
    found = plain(
        beam_search(Bigrams(table), batch=1, beam=3, bos=BOS, eos=EOS, pad=PAD, max_length=5, alpha=0.0, n_best=3)
    )
    assert found == [
        [
            ([EOS], pytest.approx(math.log(0.5), abs=1e-5)),
            ([4, EOS], pytest.approx(math.log(0.3), abs=1e-5)),
            ([5, EOS], pytest.approx(math.log(0.2), abs=1e-5)),
        ]
    ]


def test_a_finished_top_ends_the_search_once_there_are_enough_hypotheses() -> None:
    # After [</s>], the best of all, and [4, </s>], the second to end, [4, 5, </s>] (0.24) is not waited for.
    table = probabilities({BOS: {EOS: 0.5, 4: 0.4, 5: 0.1}, 4: {5: 0.6, EOS: 0.4}, 5: {EOS: 1.0}})
    found = plain(
        beam_search(Bigrams(table), batch=1, beam=2, bos=BOS, eos=EOS, pad=PAD, max_length=5, alpha=0.0, n_best=2)
    )
    expected = [([EOS], math.log(0.5)), ([4, EOS], math.log(0.16))]
    assert found == [[(tokens, pytest.approx(value, abs=1e-5)) for tokens, value in expected]]


def test_maximal_length_a_sentence_cuts_without_end() -> None:
    table = probabilities({BOS: {4: 1.0}, 4: {4: 0.9, EOS: 0.1}}).expand(3, -1, -1)
    limits = torch.tensor([3, 1, 2])
    for beam in (1, 4):
        found = beam_search(Bigrams(table), batch=3, beam=beam, bos=BOS, eos=EOS, pad=PAD, max_length=limits)
        assert [h[0].tokens.tolist() for h in found] == [[4, 4, 4], [4], [4, 4]]


def test_minimal_length_forbids_the_end() -> None:
    table = probabilities({BOS: {EOS: 0.9, 4: 0.1}, 4: {EOS: 0.9, 5: 0.1}, 5: {EOS: 1.0}})
    for beam in (1, 3):
        found = beam_search(
            Bigrams(table), batch=1, beam=beam, bos=BOS, eos=EOS, pad=PAD, max_length=9, min_length=2, alpha=0.0
        )
        assert plain(found) == [[([4, 5, EOS], pytest.approx(math.log(0.1 * 0.1), abs=1e-4))]]


def all_sequences(model: Trigrams, longest: int) -> dict[tuple[int, ...], float]:
    """Log-probability of every sequence of the first sentence up to `longest` tokens, by enumeration."""
    log_probs: dict[tuple[int, ...], float] = {(): 0.0}
    for length in range(longest):
        for prefix in [p for p in log_probs if len(p) == length and EOS not in p]:
            for token, log_prob in enumerate(trigram_row(model, 0, prefix)):
                log_probs[(*prefix, token)] = log_probs[prefix] + log_prob
    return log_probs


@pytest.mark.parametrize("seed", range(12))
def test_an_unbounded_beam_is_exhaustive_search(seed: int) -> None:
    vocabulary, longest = 4, 4
    model = Trigrams(random_trigrams(1, vocabulary, seed))
    everything = all_sequences(model, longest)
    found = beam_search(
        model, batch=1, beam=vocabulary**longest, bos=BOS, eos=EOS, pad=PAD, max_length=longest, alpha=0.0
    )
    complete = {s: p for s, p in everything.items() if s and (s[-1] == EOS or len(s) == longest)}
    best = max(complete, key=complete.__getitem__)
    assert tuple(found[0][0].tokens.tolist()) == best
    assert found[0][0].score == pytest.approx(complete[best], abs=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_a_narrow_beam_against_a_plain_loop(seed: int) -> None:
    """The same search written out with Python lists, for a model with state, several sentences and all options."""
    sentences, vocabulary, beam, longest, alpha, n_best, shortest = 5, 7, 3, 8, 0.7, 2, 1
    model = Trigrams(random_trigrams(sentences, vocabulary, 100 + seed, spread=1.0))
    expected = []
    for sentence in range(sentences):
        beams: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
        stored: list[tuple[list[int], float]] = []
        top_ended = False
        for length in range(1, longest + 1):
            candidates = []
            for prefix, total in beams:
                candidates += [
                    ((*prefix, token), total + log_prob)
                    for token, log_prob in enumerate(trigram_row(model, sentence, prefix))
                    if token != EOS or length > shortest
                ]
            candidates = sorted(candidates, key=lambda c: -c[1])[:beam]
            ended = [c for c in candidates if c[0][-1] == EOS or length == longest]
            stored += [(list(prefix), total / ((5 + length + 1) / 6) ** alpha) for prefix, total in ended]
            top_ended |= candidates[0] in ended
            beams = [c for c in candidates if c not in ended]
            if (top_ended and len(stored) >= n_best) or not beams:
                break
        expected.append(sorted(stored, key=lambda h: -h[1])[:n_best])
    found = beam_search(
        model, batch=sentences, beam=beam, bos=BOS, eos=EOS, pad=PAD, max_length=longest, min_length=shortest,
        alpha=alpha, n_best=n_best,
    )  # fmt: skip
    assert plain(found) == [[(tokens, pytest.approx(total, abs=1e-4)) for tokens, total in best] for best in expected]


@pytest.mark.parametrize("seed", range(4))
def test_greedy_is_a_beam_of_one(seed: int) -> None:
    table = random_trigrams(20, 9, seed, spread=1.5)
    limits = torch.arange(20) % 7 + 1
    arguments = {"batch": 20, "bos": BOS, "eos": EOS, "pad": PAD, "max_length": limits, "min_length": 1, "alpha": 0.6}
    model = Trigrams(table)
    for sentence, ((tokens, score),) in enumerate(plain(beam_search(model, beam=1, **arguments))):
        greedy: list[int] = []
        total = 0.0
        while len(greedy) < limits[sentence] and EOS not in greedy:
            log_probs = trigram_row(model, sentence, tuple(greedy))
            token = max(range(9), key=lambda t: -math.inf if t == EOS and not greedy else log_probs[t])
            total += log_probs[token]
            greedy.append(token)
        assert tokens == greedy
        assert score == pytest.approx(total / length_penalty(len(greedy) + 1, 0.6), abs=1e-5)


@pytest.mark.parametrize("beam", [1, 4])
def test_a_sentence_does_not_depend_on_its_neighbours(beam: int) -> None:
    table = random_trigrams(12, 9, 7, spread=1.0)
    limits = torch.arange(12) + 2
    common = {"beam": beam, "bos": BOS, "eos": EOS, "pad": PAD}
    together = plain(beam_search(Trigrams(table), batch=12, max_length=limits, **common))
    alone = [
        plain(beam_search(Trigrams(table[i : i + 1]), batch=1, max_length=limits[i : i + 1], **common))[0]
        for i in range(12)
    ]
    assert together == alone


@pytest.mark.parametrize("beam", [1, 2])
def test_finished_sentences_leave_the_batch(beam: int) -> None:
    table = probabilities({BOS: {4: 1.0}, 4: {4: 1.0}}).expand(8, -1, -1)
    limits = torch.tensor([1, 1, 1, 1, 2, 2, 3, 9])
    model = Bigrams(table)
    beam_search(model, batch=8, beam=beam, bos=BOS, eos=EOS, pad=PAD, max_length=limits)
    live = [8, 4, 2, 1, 1, 1, 1, 1, 1]
    assert model.rows_per_call == [8] + [beam * n for n in live[1:]]


def test_equal_scores_go_to_the_hypothesis_that_ended_first() -> None:
    log_half = math.log(0.5)
    table = probabilities({BOS: {EOS: 0.5, 4: 0.5}, 4: {EOS: 0.5, 5: 0.5}, 5: {EOS: 1.0}})
    found = plain(
        beam_search(Bigrams(table), batch=1, beam=3, bos=BOS, eos=EOS, pad=PAD, max_length=3, alpha=0.0, n_best=3)
    )
    by_order = [([EOS], log_half), ([4, EOS], 2 * log_half), ([4, 5, EOS], 2 * log_half)]
    assert found == [[(tokens, pytest.approx(value, abs=1e-6)) for tokens, value in by_order]]


@pytest.mark.parametrize(("beam", "n_best"), [(2, 3), (2, 0), (0, 1)])
def test_impossible_widths_are_refused(beam: int, n_best: int) -> None:
    with pytest.raises(ValueError, match=f"beam width {beam}, got {n_best}"):
        beam_search(
            Trigrams(random_trigrams(1, 5, 0)),
            batch=1,
            beam=beam,
            n_best=n_best,
            bos=BOS,
            eos=EOS,
            pad=PAD,
            max_length=3,
        )


def test_a_maximal_length_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        beam_search(
            Trigrams(random_trigrams(2, 5, 0)),
            batch=2,
            beam=1,
            bos=BOS,
            eos=EOS,
            pad=PAD,
            max_length=torch.tensor([3, 0]),
        )


def test_an_empty_batch_has_no_results() -> None:
    model = Bigrams(torch.empty((0, 5, 5)))
    assert beam_search(model, batch=0, beam=2, bos=BOS, eos=EOS, pad=PAD, max_length=3) == []


def test_every_prefix_of_a_tiny_vocabulary_is_kept_while_the_beam_has_room() -> None:
    """The beam grows 1, V, V², … and is never filled up with repetitions."""
    model = Trigrams(random_trigrams(1, 3, 5))
    found = beam_search(model, batch=1, beam=100, bos=2, eos=0, pad=1, max_length=3, n_best=10, alpha=0.0)
    sequences = [tuple(h.tokens.tolist()) for h in found[0]]
    possible = {s for n in (1, 2, 3) for s in itertools.product(range(3), repeat=n)}
    assert len(set(sequences)) == len(sequences)
    assert set(sequences) <= possible
