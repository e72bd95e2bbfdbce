"""What the training loop is told about the student: batches, soft labels, validation and schedule."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from bertkd_ray.config.sections import KdConfig, StudentConfig
from bertkd_ray.core.ragged import Ragged, offsets_of
from bertkd_ray.corpus.cleaning import ID_MONOLINGUAL_BIT
from bertkd_ray.corpus.text_form import TextForm
from bertkd_ray.corpus.tokenizer import BOS_ID, EOS_ID
from bertkd_ray.decoding.batches import Translation, translation_batches
from bertkd_ray.softlabels.shards import SoftLabels, decode_labels
from bertkd_ray.student import task as task_module
from bertkd_ray.student.loss import kd_loss
from bertkd_ray.student.model import build_student, decoder_hidden
from bertkd_ray.student.task import StudentTask, Validation, greedy_tokens
from bertkd_ray.training.batch_plan import MicroBatch, StreamPosition
from bertkd_ray.training.context import World
from tests.helpers.thread_world import run_workers

V, PAIRS = 24, 15
SIZES = {"width": 16, "ffn": 24, "heads": 2}
LISTS = pa.list_(pa.int32())


def random_rows(pairs: int, seed: int) -> list[list[int]]:
    """5 to 10 tokens a row: BLEU needs four."""
    random = np.random.default_rng(seed)
    return [random.integers(4, V, random.integers(5, 11)).tolist() for _ in range(pairs)]


SRC, TGT = random_rows(PAIRS, 0), random_rows(PAIRS, 1)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """A word a token, so that text and ids say the same."""
    vocabulary = {"<pad>": 0, "<unk>": 1, "<s>": 2, "</s>": 3, **{f"w{index}": index for index in range(4, V)}}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return made


@pytest.fixture
def make(tokenizer):
    def call(kd: dict[str, Any] | None = None, labels: SoftLabels | None = None, **changes: Any) -> StudentTask:
        config = StudentConfig(**{**SIZES, "batch_tokens": 64, "encoder_layers": 1, "decoder_layers": 1, **changes})
        model = build_student(
            config.model_copy(
                update={
                    **{"encoder_layers": 1, "decoder_layers": 1},
                    **dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), 0.1),
                }
            ),
            vocab_size=V,
            max_positions=64,
            seed=3,
        )
        references = tokenizer.decode_batch(TGT)
        pairs = Ragged.from_lists(SRC), Ragged.from_lists(TGT)
        validation = Validation(*pairs, references, tokenizer, labels=labels)
        return StudentTask(model, config, KdConfig(**(kd or {})), validation, "float32")

    return call


def evaluated(task: StudentTask, workers: World = World()) -> dict[str, float]:  # noqa: B008
    task.objective.eval()
    return task.evaluate(workers)


def table(stored: int | None = None) -> pa.Table:
    """The pairs as the corpus has them, or with so many soft labels a position."""
    columns = {"src_ids": pa.array(SRC, LISTS), "tgt_ids": pa.array(TGT, LISTS)}
    if stored is None:
        return pa.table(columns)
    random = np.random.default_rng(2)
    positions = [len(row) + 1 for row in TGT]
    logits = [(-np.sort(-random.normal(size=(count, stored)), axis=1)).astype(np.float16) for count in positions]
    ids = [np.argsort(random.random((count, V)), axis=1)[:, :stored].astype(np.uint16) for count in positions]
    columns["topk_ids"] = pa.array([row.flatten() for row in ids], pa.list_(pa.uint16()))
    columns["topk_logits"] = pa.array([row.flatten() for row in logits], pa.list_(pa.float16()))
    columns["logsumexp"] = pa.array([np.full(count, 5.0, np.float32) for count in positions], pa.list_(pa.float32()))
    return pa.table(columns)


def micro(rows: pa.Table) -> MicroBatch:
    return MicroBatch(stream=0, epoch=0, rows=rows, after=StreamPosition(0, 1))


def perfect(model: Any, src: Ragged, **_: Any) -> list[list[Translation]]:
    """Translates every source of the valid split into its reference."""
    known = {tuple(source): target for source, target in zip(SRC, TGT, strict=True)}
    return [[Translation(known[tuple(src.row(index).tolist())], 0.0)] for index in range(len(src))]


@pytest.mark.parametrize("vocabulary", [8_000, 40_000, 120_000, 250_000])
def test_greedy_validation_on_a_gpu_is_bounded_by_memory(vocabulary):
    src = Ragged.from_lists([[4] * length for length in (*[3] * 20_000, *[60] * 2_000)])
    tokens = greedy_tokens(torch.device("cuda"), vocabulary)
    batches = translation_batches(src, beam=1, batch_tokens=tokens)
    assert tokens <= 65_536
    # Scores as the decoder gives them, in float32, and their logarithms.
    assert max(map(len, batches)) * vocabulary * (2 + 4 + 4) <= 4 * 2**30
    assert tokens == 65_536 or max(map(len, batches)) * vocabulary * 10 > 3 * 2**30
    assert greedy_tokens(torch.device("cpu"), vocabulary) == 4096


def test_rows_are_counted_on_the_longer_side_with_its_end(make):
    rows = pa.table({"src_ids": pa.array([[4, 5], [4]], LISTS), "tgt_ids": pa.array([[6], []], LISTS)})
    counted = make().lengths(rows)
    assert counted.sort.tolist() == [3, 1]
    assert counted.tokens.tolist() == [3, 2]


def test_soft_labels_are_the_first_k_of_every_position(make):
    rows = table(stored=6)
    batch = make({"alpha": 0.5, "topk": 4}).collate(micro(rows))
    ids, logits, logsumexp = batch.topk_ids_Pk, batch.topk_logits_Pk, batch.logsumexp_P
    positions = sum(len(row) + 1 for row in TGT)
    assert ids.shape == logits.shape == (positions, 4)
    first = len(TGT[0]) + 1
    np.testing.assert_array_equal(ids[:first].tolist(), np.reshape(rows["topk_ids"][0].as_py(), (first, 6))[:, :4])
    np.testing.assert_array_equal(logits[:first], np.reshape(rows["topk_logits"][0].as_py(), (first, 6))[:, :4])
    assert logsumexp.tolist() == [5.0] * positions
    assert make({"alpha": 0.0}).collate(micro(table())).topk_ids_Pk is None


@pytest.mark.parametrize(("alpha", "columns"), [(0.5, 3), (0.0, None)])
def test_a_collated_batch_has_soft_labels_where_the_loss_uses_them(make, alpha, columns):
    batch = make({"alpha": alpha, "topk": 3}).collate(micro(table(stored=6)))
    positions = sum(len(row) + 1 for row in TGT)
    assert batch.count == positions
    assert batch.src_ids_NS.shape == (PAIRS, 11)  # 10 tokens and </s>; on a CPU nothing is rounded up
    assert batch.decoder_input_ids_NT.shape == (PAIRS, 11)
    shapes = [
        None if t is None else tuple(t.shape) for t in (batch.topk_ids_Pk, batch.topk_logits_Pk, batch.logsumexp_P)
    ]
    assert shapes == ([None] * 3 if columns is None else [(positions, 3), (positions, 3), (positions,)])


def test_the_control_sees_the_batches_of_the_distilled_arm(make):
    """The same rows with and without soft labels: the inputs and the counted positions are one and the same."""
    distilled = make({"alpha": 0.5, "topk": 3}).collate(micro(table(stored=6)))
    control = make({"alpha": 0.0}).collate(micro(table()))
    for name in ("src_ids_NS", "src_mask_NS", "decoder_input_ids_NT", "target_index_P", "targets_P"):
        assert torch.equal(getattr(distilled, name), getattr(control, name))


def test_the_objective_sums_over_positions(make):
    task = make({"alpha": 0.0}, label_smoothing=0.0)
    task.objective.eval()
    batch = task.collate(micro(table()))
    with torch.no_grad():
        loss, stats = task.objective(batch)
    figures = evaluated(task)
    assert float(loss) / batch.count == pytest.approx(figures["valid/nll"], rel=1e-5)
    assert stats.tolist() == pytest.approx([float(loss), figures["valid/accuracy"] * batch.count], rel=1e-5)
    assert len(stats) == len(task.stat_keys)


def plain_loss(task: StudentTask, batch: Any, alpha: torch.Tensor, **options: Any) -> float:
    """By the plain formula, through transformers' own forward, which projects padding too."""
    with torch.no_grad():
        logits = task.model(
            input_ids=batch.src_ids_NS,
            attention_mask=batch.src_mask_NS.long(),
            decoder_input_ids=batch.decoder_input_ids_NT,
        ).logits
    scores_PV = logits.flatten(0, 1)[batch.target_index_P]
    soft = batch.topk_ids_Pk, batch.topk_logits_Pk, batch.logsumexp_P
    return float(kd_loss(scores_PV, batch.targets_P, *soft, alpha=alpha, label_smoothing=0.1, **options))


def test_at_the_end_of_a_sentence_the_reference_counts_alone(make):
    task = make({"alpha": 0.5, "topk": 4, "at_end": False})
    task.objective.eval()
    batch = task.collate(micro(table(stored=6)))
    alpha = torch.full((batch.count,), 0.5)
    alpha[np.cumsum([len(row) + 1 for row in TGT]) - 1] = 0.0
    with torch.no_grad():
        loss, stats = task.objective(batch)
    assert float(loss) == pytest.approx(plain_loss(task, batch, alpha, temperature=10.0), rel=1e-5)
    assert len(stats) == len(task.stat_keys) == 2


def test_alpha_follows_its_schedule(make):
    task = make({"alpha": [0.9, 0.3], "topk": 4, "at_end": True}, steps=7)
    task.objective.eval()
    batch = task.collate(micro(table(stored=6)))
    # 0.6 in six equal falls.
    for step, expected in ((1, 0.9), (2, 0.8), (4, 0.6), (7, 0.3), (3, 0.7)):
        task.start_update(step)
        with torch.no_grad():
            loss, stats = task.objective(batch)
        alpha = torch.full((batch.count,), expected)
        assert float(loss) == pytest.approx(plain_loss(task, batch, alpha, temperature=10.0), rel=1e-5)
        assert dict(zip(task.stat_keys, stats.tolist(), strict=True))["train/alpha"] == pytest.approx(
            expected * batch.count
        )


def test_a_schedule_may_begin_or_end_without_the_teacher(make):
    task = make({"alpha": [0, 1], "topk": 4}, steps=1)
    task.objective.eval()
    batch = task.collate(micro(table(stored=6)))
    for alpha in (0.0, 1.0):
        task.objective.alpha = alpha
        with torch.no_grad():
            loss, _ = task.objective(batch)
        expected = plain_loss(task, batch, torch.full((batch.count,), alpha), temperature=10.0)
        assert float(loss) == pytest.approx(expected, rel=1e-5)
    task.start_update(1)
    assert task.objective.alpha == 0.0  # a training of one step is at the beginning of its schedule


@pytest.mark.parametrize("alpha", [0.5, 0.0])
def test_monolingual_pairs_count_with_their_weight(make, alpha):
    """The sum over the others and so many times the sum over these, and so the gradient."""
    task = make({"alpha": alpha, "topk": 4, "monolingual_weight": 0.25, "at_end": False})
    task.objective.eval()
    rows = table(stored=6)
    ids = np.arange(PAIRS, dtype=np.int64) + ((np.arange(PAIRS, dtype=np.int64) % 3 == 1) << ID_MONOLINGUAL_BIT)
    if "id" in rows.column_names:
        rows = rows.drop_columns("id")
    rows = rows.append_column("id", pa.array(ids))
    batch = task.collate(micro(rows))
    repeated = np.repeat(np.arange(PAIRS) % 3 == 1, [len(row) + 1 for row in TGT])
    assert batch.monolingual_index.tolist() == np.flatnonzero(repeated).tolist()
    assert batch.parallel_index.tolist() == np.flatnonzero(~repeated).tolist()
    loss, stats = task.objective(batch)
    weight = task.model.get_output_embeddings().weight
    (gradient,) = torch.autograd.grad(loss, weight)
    # By automatic differentiation, position by position.
    scores_PV = decoder_hidden(task.model, batch) @ weight.t()
    ends = np.cumsum([len(row) + 1 for row in TGT]) - 1
    expected = scores_PV.new_zeros(())
    for position in range(batch.count):
        here = slice(position, position + 1)
        soft = (batch.topk_ids_Pk, batch.topk_logits_Pk, batch.logsumexp_P) if alpha else ()
        of_position = kd_loss(
            scores_PV[here],
            batch.targets_P[here],
            *(each[here] for each in soft),
            alpha=0.0 if position in ends else alpha,
            temperature=10.0,
            label_smoothing=0.1,
        )
        expected = expected + (0.25 if repeated[position] else 1.0) * of_position
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    (plain_gradient,) = torch.autograd.grad(expected, weight)
    assert torch.allclose(gradient, plain_gradient, atol=1e-5)
    whole = make({"alpha": alpha, "topk": 4, "at_end": False}).collate(micro(rows))
    assert whole.monolingual_index is None, "with weight 1 they count as all others"
    # Likelihood and accuracy are of all targets alike.
    assert float(stats[0]) == pytest.approx(float(kd_loss(scores_PV, batch.targets_P, alpha=0.0)), rel=1e-5)


def test_a_batch_of_monolingual_pairs_alone(make):
    task = make({"alpha": 0.5, "topk": 4, "monolingual_weight": 3.0})
    task.objective.eval()
    rows = table(stored=6)
    rows = rows.drop_columns("id") if "id" in rows.column_names else rows
    alone = rows.append_column("id", pa.array(np.full(PAIRS, 1 << ID_MONOLINGUAL_BIT)))
    batch = task.collate(micro(alone))
    with torch.no_grad():
        loss, _ = task.objective(batch)
    expected = 3 * plain_loss(task, batch, torch.full((batch.count,), 0.5), temperature=10.0)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_figures_of_a_student_that_knows_nothing(make):
    """Zero embeddings give every token 1 / V."""
    task = make()
    with torch.no_grad():
        task.model.get_output_embeddings().weight.zero_()
    figures = evaluated(task)
    assert set(figures) == {"valid/nll", "valid/perplexity", "valid/accuracy", "valid/bleu"}
    assert figures["valid/nll"] == pytest.approx(math.log(V), rel=1e-6)
    assert figures["valid/perplexity"] == pytest.approx(V, rel=1e-5)


def test_the_figures_are_those_of_the_whole_model_on_every_pair(make):
    """Pair by pair, without padding, through transformers' own forward."""
    task = make()
    figures = evaluated(task)
    nll = correct = count = 0.0
    for source, target in zip(SRC, TGT, strict=True):
        labels = torch.tensor([[*target, EOS_ID]])
        with torch.no_grad():
            logits = task.model(
                input_ids=torch.tensor([[*source, EOS_ID]]), decoder_input_ids=torch.tensor([[BOS_ID, *target]])
            ).logits
        nll += float(torch.nn.functional.cross_entropy(logits[0], labels[0], reduction="sum"))
        correct += float((logits.argmax(-1) == labels).sum())
        count += labels.numel()
    assert figures["valid/nll"] == pytest.approx(nll / count, rel=1e-5)
    assert figures["valid/accuracy"] == pytest.approx(correct / count)


@pytest.mark.parametrize(
    "kd",
    [
        {"temperature": 10.0, "topk": 4},
        {"temperature": 1.0, "topk": 6, "tail": "exact"},
        {"temperature": 3.0, "topk": 4, "symmetric": True},
        {"temperature": 1.0, "topk": 4, "at_end": False},
    ],
    ids=["paper", "exact tail", "symmetric", "nothing at the end"],
)
def test_the_divergence_is_that_of_whole_distributions(make, kd):
    """Pair by pair, with torch's own KL of whole probability vectors."""
    soft = decode_labels(table(stored=6))
    task = make(kd, labels=soft)
    figures = evaluated(task)
    k, temperature, total, count = kd["topk"], kd["temperature"], 0.0, 0
    for row, (source, target) in enumerate(zip(SRC, TGT, strict=True)):
        with torch.no_grad():
            scores = task.model(
                input_ids=torch.tensor([[*source, EOS_ID]]), decoder_input_ids=torch.tensor([[BOS_ID, *target]])
            ).logits[0]
        labels = soft.take(np.array([row]))
        for position, score in enumerate(scores.double()):
            kept = torch.tensor(labels.topk_ids[position, :k].astype(np.int64))
            logits = torch.tensor(labels.topk_logits[position, :k].astype(np.float64))
            log_p = torch.log_softmax(score / (temperature if kd.get("symmetric") else 1), dim=0)
            if kd.get("tail") == "exact":
                q = torch.exp(logits - float(labels.logsumexp[position]))
                rest = torch.ones(V, dtype=torch.bool)
                rest[kept] = False
                q, log_p = torch.cat([q, 1 - q.sum()[None]]), torch.cat([log_p[kept], log_p[rest].logsumexp(0)[None]])
            else:
                q, log_p = torch.softmax(logits / temperature, dim=0), log_p[kept]
            total += float(torch.nn.functional.kl_div(log_p, q, reduction="sum"))
            count += 1
    assert figures["valid/kl"] == pytest.approx(total / count, rel=1e-4)
    assert figures["valid/kl"] > 0
    without = evaluated(make(kd))
    assert "valid/kl" not in without
    assert without == pytest.approx({name: value for name, value in figures.items() if name != "valid/kl"})


def test_a_student_that_is_its_teacher_does_not_diverge(make):
    """Zero embeddings give every token 1 / V, and so do labels of equal logits with an exact tail."""
    positions = [len(row) + 1 for row in TGT]
    ids = np.tile(np.arange(4, dtype=np.uint8), (sum(positions), 1))
    uniform = np.full(len(ids), math.log(V), np.float32)
    soft = SoftLabels(ids, np.zeros(ids.shape, np.float16), uniform, offsets_of(np.array(positions)))
    task = make({"temperature": 1.0, "topk": 4, "tail": "exact"}, labels=soft)
    with torch.no_grad():
        task.model.get_output_embeddings().weight.zero_()
    assert evaluated(task)["valid/kl"] == pytest.approx(0.0, abs=1e-5)


def test_bleu_of_a_perfect_translator_is_100(make, monkeypatch):
    monkeypatch.setattr(task_module, "translate_ids", perfect)
    assert evaluated(make())["valid/bleu"] == pytest.approx(100.0)
    for figures in run_workers([partial(evaluated, make()) for _ in range(3)]):
        assert figures["valid/bleu"] == pytest.approx(100.0)


def test_bleu_of_translations_of_the_wrong_lines_is_not(make, monkeypatch):
    monkeypatch.setattr(task_module, "translate_ids", lambda model, src, **_: perfect(model, src)[::-1])
    assert evaluated(make())["valid/bleu"] < 50


def test_bleu_is_of_the_words_that_the_tokenizer_cuts(make, monkeypatch):
    monkeypatch.setattr(task_module, "translate_ids", lambda model, src, **_: perfect(model, src)[::-1])
    task = make()
    words = evaluated(task)["valid/bleu"]
    monkeypatch.setattr(task_module, "validation_tokenizer", lambda language: "char")
    assert evaluated(task)["valid/bleu"] > words + 5


def test_bleu_of_moses_text_is_of_raw_text(make, monkeypatch):
    monkeypatch.setattr(task_module, "translate_ids", lambda model, src, **_: perfect(model, src))
    monkeypatch.setattr(task_module, "decode", lambda tokenizer, rows: ["It 's me , you know ."] * len(rows))
    task = make()
    task._validation = replace(task._validation, references=["It's me, you know."] * len(SRC))
    assert evaluated(task)["valid/bleu"] < 90
    for form in ("moses", "paper"):
        task._validation = replace(task._validation, form=TextForm(form))
        assert evaluated(task)["valid/bleu"] == pytest.approx(100)
    task._validation = replace(
        task._validation, form=replace(task._validation.form, tgt_lang="de")
    )  # where 's stands alone
    assert evaluated(task)["valid/bleu"] < 90


def test_validation_translates_greedily_in_the_given_precision(make, monkeypatch):
    seen: dict[str, Any] = {}
    monkeypatch.setattr(task_module, "translate_ids", lambda model, src, **o: seen.update(o) or perfect(model, src))
    evaluated(make())
    assert seen == {"beam": 1, "batch_tokens": 4096, "precision": "float32"}


@pytest.mark.parametrize("changes", [{"batch_tokens": 11}, {"batch_tokens": 4096}, {"micro_batches": 4}])
def test_validation_does_not_depend_on_the_budget(make, changes):
    assert evaluated(make(**changes)) == pytest.approx(evaluated(make()), rel=1e-5)


def test_validation_repeats_and_leaves_the_gradients_alone(make):
    task = make()
    first = evaluated(task)
    assert evaluated(task) == first
    assert all(parameter.grad is None for parameter in task.model.parameters())
    assert not task.model.training


@pytest.mark.parametrize("size", [2, 3])
def test_workers_share_the_validation_and_agree(make, size):
    one = evaluated(make())
    several = run_workers([partial(evaluated, make()) for _ in range(size)])
    assert several == [several[0]] * size
    assert several[0] == pytest.approx(one, rel=1e-5)


def test_a_worker_without_a_batch_takes_part(make):
    tasks = [make(batch_tokens=100_000) for _ in range(2)]
    one = evaluated(tasks[0])
    assert run_workers([partial(evaluated, task) for task in tasks]) == [pytest.approx(one, rel=1e-5)] * 2


def test_the_highest_bleu_is_best(make):
    task = make()
    found = max([1.0, 3.0, 2.0], key=lambda bleu: task.rank_of({"valid/bleu": bleu, "valid/nll": bleu}))
    assert found == 3.0


def test_among_equal_bleu_the_likelier_references_are_best(make):
    task = make()
    found = max([4.0, 2.0, 3.0], key=lambda nll: task.rank_of({"valid/bleu": 0.0, "valid/nll": nll}))
    assert found == 2.0


def test_the_rate_is_the_transformers(make):
    task = make(warmup_steps=4)
    # 2 · 16^-0.5 = 0.5; at the top, step 4, times 4^-0.5.
    assert [task.learning_rate(step) for step in (1, 4, 16)] == pytest.approx([0.5 / 8, 0.25, 0.125])
    scaled = make(peak_lr=0.5, warmup_steps=4)
    assert [scaled.learning_rate(step) for step in (1, 4, 16)] == pytest.approx([0.125, 0.5, 0.25])


def test_a_linear_schedule_falls_from_the_same_peak_to_nothing(make):
    task = make(peak_lr=0.25, warmup_steps=4, steps=8, schedule="linear")
    # The peak of the schedule above, then five equal falls, the last of which would be step 9's.
    assert [task.learning_rate(step) for step in (1, 4, 5, 8, 9)] == pytest.approx([0.0625, 0.25, 0.2, 0.05, 0.0])
    # A training that ends within its warm-up has the rates of the other schedule.
    assert make(peak_lr=0.25, warmup_steps=4, steps=4, schedule="linear").learning_rate(2) == pytest.approx(0.125)


@pytest.mark.parametrize(("clip", "norm_after"), [(None, 5.0), (1.0, 1.0)])
def test_gradients_are_clipped_on_request(make, clip, norm_after):
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([3.0, 4.0])
    assert float(torch.nn.utils.clip_grad_norm_([parameter], make(clip=clip).max_norm)) == pytest.approx(5.0)
    assert float(parameter.grad.norm()) == pytest.approx(norm_after, rel=1e-5)


def test_adam_is_the_papers_and_decays_nothing(make):
    for group in make().optimizer.param_groups:
        assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.9, 0.98), 1e-9, 0.0)
