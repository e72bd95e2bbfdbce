"""`bertkd plan`: what it says against what the stages then do, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.artifacts.row_groups import RowGroups
from bertkd_ray.cli import main
from bertkd_ray.config import config_of, dotted, load_config
from bertkd_ray.config.sections import StudentConfig, TeacherConfig
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.corpus.sampling import shape_as_given
from bertkd_ray.pipeline.pipeline import Pipeline
from bertkd_ray.plan.batches import BatchLengths, SampledBatches, full_groups
from bertkd_ray.plan.costs import PipelinePlan, plan_pipeline, student_size, teacher_size
from bertkd_ray.plan.operations import TRAINING, beam_search
from bertkd_ray.plan.warnings import epoch_warnings, time_warnings
from bertkd_ray.student.collate import collate
from bertkd_ray.student.model import build_student, decoder_hidden
from bertkd_ray.student.task import StudentTask
from bertkd_ray.teacher.model import build_teacher
from bertkd_ray.teacher.task import MaskedLoss, TeacherBatch, TeacherTask
from bertkd_ray.training.batch_plan import BatchPlan, Streams
from tests.helpers.small_config import write_config

TED = shape_as_given(160_239, 27, 25, 40_000, 5_000)
"""As many pairs as IWSLT14 German-English has."""


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return write_config(tmp_path_factory.mktemp("project"), runtime="local", device="cpu", tracking="none")


@pytest.fixture(scope="module")
def made(path) -> tuple[PipelinePlan, dict[str, Artifact]]:
    """The plan before anything is made, and the artifacts that are made then."""
    config = load_config(path)
    estimate = plan_pipeline(config, tflops=1.0)
    with Pipeline(config) as pipeline:
        pipeline.make("extract")
        pipeline.make("distill", "distilled")
        pipeline.make("translate", "distilled")
    return estimate, {name: stage.artifact for name, stage in pipeline.outcome.stages.items()}


def planned(found: PipelinePlan) -> dict:
    return found.as_json()["stages"]


@pytest.mark.slow
def test_the_text_tells_what_prepare_will_make_of_it(made):
    estimate, artifacts = made
    corpus = artifacts["prepare"]
    assert estimate.corpus.is_estimate
    # The whole of this text is looked at, so only what is written can differ.
    assert estimate.corpus.vocabulary == corpus.info["vocabulary"]
    for split, counts in corpus.info["splits"].items():
        shape = estimate.corpus.splits[split]
        assert shape.pairs == counts["pairs"]
        assert shape.src_tokens == pytest.approx(counts["src_tokens"])
        assert shape.tgt_tokens == pytest.approx(counts["tgt_tokens"])


@pytest.mark.slow
def test_a_finished_corpus_is_taken_as_it_is(made, path):
    estimate, artifacts = made
    again = plan_pipeline(load_config(path), tflops=1.0)
    corpus = artifacts["prepare"]
    assert not again.corpus.is_estimate
    assert again.corpus.basis == f"{corpus.directory} is finished"
    assert again.corpus.bytes == sum(entry.bytes for entry in corpus.files)
    assert again.corpus.vocabulary == estimate.corpus.vocabulary
    for name, stage in planned(again).items():
        if name != "prepare":
            before = {key: value for key, value in dotted(planned(estimate)[name]) if value is not None}
            now = dict(dotted(stage))
            assert {key: now[key] for key in before} == pytest.approx(before, rel=0.02), name


@pytest.mark.slow
def test_another_text_is_not_the_finished_one(made, path):
    assert plan_pipeline(load_config(path, ["corpus.lowercase=true"]), tflops=1.0).corpus.is_estimate


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["finetune", "extract", "distill/distilled", "translate/distilled"])
def test_the_sizes_of_artifacts(made, stage):
    estimate, artifacts = made
    size = sum(entry.bytes for entry in artifacts[stage].files)
    # Beside weights there are tokenizer and curves, beside columns footers; they count in artifacts as small as these.
    assert planned(estimate)[stage]["bytes"] == pytest.approx(size, rel=0.5)


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "kind"), [("finetune", TeacherTask), ("distill/distilled", StudentTask)])
def test_epochs_and_tokens_are_those_of_the_streams(made, path, stage, kind):
    estimate, artifacts = made
    config = load_config(path)
    settings = config.teacher if stage == "finetune" else config.student
    task = object.__new__(kind)
    task._config = settings
    groups = RowGroups(artifacts["prepare"], "train/", ["id", "src_ids", "tgt_ids"])
    batches = BatchPlan(groups.rows, settings.micro_batches, config.seed)
    streams = Streams(
        batches, budget=settings.batch_tokens // settings.micro_batches, read=groups.read, lengths=task.lengths
    )
    pairs = tokens = 0
    for _ in range(settings.steps):
        for micro in streams.step():
            pairs += len(micro.rows)
            sides = [sum(map(len, micro.rows[side].to_pylist())) for side in ("src_ids", "tgt_ids")]
            tokens += sum(sides) + len(micro.rows) * (3 if stage == "finetune" else 2)
    streams.close()
    told = planned(estimate)[stage]
    assert told["steps"] == settings.steps
    # The last batch of a window is not full, and which windows come is chance.
    assert told["epochs"] == pytest.approx(pairs / groups.rows.sum(), rel=0.1)
    assert told["tokens"] == pytest.approx(tokens, rel=0.1)


def test_nothing_is_written(tmp_path):
    config = load_config(write_config(tmp_path))
    before = sorted(tmp_path.rglob("*"))
    plan_pipeline(config, tflops=1.0)
    assert sorted(tmp_path.rglob("*")) == before


def test_parameters_are_those_of_the_models(path):
    config = load_config(path)
    student = build_student(
        StudentConfig(
            encoder_layers=1,
            decoder_layers=1,
            width=32,
            ffn=64,
            heads=2,
            dropout=0.0,
            attention_dropout=0.0,
            activation_dropout=0.0,
        ),
        vocab_size=408,
        max_positions=64,
        seed=1,
    )
    teacher = build_teacher(config.teacher.model, np.zeros(408, np.int64), TeacherConfig(pretrained=False))
    assert student_size(config.student, 408).parameters == sum(p.numel() for p in student.parameters())
    assert teacher_size(config.teacher, 408).parameters == sum(p.numel() for p in teacher.parameters())


def test_more_steps_devices_and_operations_scale_as_they_should(path):
    def of(*overrides: str, tflops: float = 1.0, devices: int | None = None) -> PipelinePlan:
        # Checkpoints after a number of steps keep all devices waiting, however fast and many they are.
        config = load_config(path, [*overrides, "checkpoint_every=100000"])
        return plan_pipeline(config, TED, tflops=tflops, devices=devices)

    once, twice = of("teacher.steps=200"), of("teacher.steps=400")
    assert planned(twice)["finetune"]["tokens"] == pytest.approx(2 * planned(once)["finetune"]["tokens"])
    assert planned(twice)["finetune"]["flops"] == pytest.approx(2 * planned(once)["finetune"]["flops"])
    assert planned(twice)["extract"] == planned(once)["extract"]
    assert planned(once)["distill/control"] == planned(once)["distill/distilled"]
    fast = of("teacher.steps=200", tflops=2.0)
    assert fast.total.device_hours == pytest.approx(once.total.device_hours / 2)
    many = of("teacher.steps=200", devices=8)
    assert many.wall_seconds == pytest.approx(once.wall_seconds / 8)
    assert many.total.device_hours == once.total.device_hours
    total = sum(stage["device_hours"] for stage in planned(once).values())
    assert once.total.device_hours == pytest.approx(total)


def test_days_and_hundreds_of_epochs_are_warned_of(path):
    def of(*overrides: str, tflops: float = 1.0, devices: int = 1) -> PipelinePlan:
        return plan_pipeline(load_config(path, list(overrides)), TED, tflops=tflops, devices=devices)

    plan = of("teacher.steps=10", "student.steps=10")
    assert (time_warnings(plan), epoch_warnings(plan)) == ([], [])
    # The rate at which all takes a day and an hour.
    tflops = of(tflops=1.0).wall_seconds / (25 * 3600)
    (line,) = time_warnings(of(tflops=tflops))
    assert line.startswith("this takes 1d01h on 1 × CPU, ")
    assert "teacher.steps, student.steps" in line
    assert time_warnings(of(tflops=tflops, devices=2)) == []
    epochs = planned(of("student.steps=1000"))["distill/control"]["epochs"]
    steps = round(201 * 1000 / epochs)
    assert epoch_warnings(of(f"student.steps={round(199 * 1000 / epochs)}", "teacher.steps=10")) == []
    (line,) = epoch_warnings(of(f"student.steps={steps}", "teacher.steps=10"))
    assert line.startswith(f"distill/distilled, distill/control: {steps:,} steps see the training text 201 times; ")
    assert "student.patience" in line


def test_warnings_name_the_keys_of_named_teachers(path):
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    tree["teachers"] = {"forward": {**tree.pop("teacher"), "steps": 10**8}}
    tree["arms"] = {"distilled": {"kd.teachers": "forward"}}
    plan = plan_pipeline(config_of(tree, "test"), TED, tflops=0.001, devices=1)
    assert "(teachers.forward.steps, student.steps)" in time_warnings(plan)[0]
    assert "lower teachers.forward.steps, unless teachers.forward.patience" in epoch_warnings(plan)[0]


def test_without_a_teacher_none_is_planned(path):
    found = plan_pipeline(load_config(path, ["arms={control: {kd.alpha: 0}}"]), TED, tflops=1.0)
    assert set(planned(found)) == {"prepare", "distill/control", "translate/control"}


def test_extraction_sees_each_pair_as_often_as_it_has_positions_at_the_most(path):
    # Of the seven passes a pair takes part in as many as its target has positions, the end of the sentence included.
    short = plan_pipeline(load_config(path), shape_as_given(10_000, 5, 3, 40_000, 5_000), tflops=1.0)
    train = short.corpus.splits["train"]
    seen = np.minimum(7, train.tgt + 1)
    assert 2 < seen.mean() < 5
    tokens = 10_000 * np.mean(seen * (train.src + train.tgt + 3))
    assert planned(short)["extract"]["tokens"] == pytest.approx(tokens, rel=0.01)


@pytest.mark.parametrize(
    ("pairs", "rows"),
    [(0, []), (1, [1]), (7, [3, 3, 1]), (8, [3, 3, 2]), (9, [3, 3, 2, 1]), (20, [3, 3, 2, 3, 3, 2, 3, 1])],
)
def test_row_groups_as_prepare_cuts_them(pairs, rows):
    assert full_groups(pairs, 8, 3).tolist() == rows


@pytest.fixture
def bertkd(capsys):
    def call(*words: str) -> tuple[int, str, str]:
        return main(list(words)), *capsys.readouterr()

    return call


def test_the_command_prints_a_table_or_json(bertkd, path):
    given = ["--pairs", "160239", "--src-tokens", "27", "--tgt-tokens", "25", "--device", "h100"]
    code, out, err = bertkd("plan", str(path), *given)
    assert (code, err) == (0, "")
    assert "as given: 160,239 pairs of 27 and 25 tokens" in out
    assert [line.split()[0] for line in out.split("\n\n")[1].splitlines()[2:]] == [
        *("prepare", "finetune", "extract"),
        *("distill/distilled", "distill/control", "translate/distilled", "translate/control", "all"),
    ]
    assert "core hours of prepare, without Ray's start." in out
    _, out, _ = bertkd("plan", str(path), *given[2:], "--pairs", "20", "teacher.steps=1", "student.steps=1")
    assert "  <0.001" in out
    assert "e-0" not in out
    code, out, err = bertkd("plan", str(path), *given, "--json", "teacher.steps=7")
    found = json.loads(out)
    assert found["stages"]["finetune"]["steps"] == 7
    assert found["device"]["name"] == "H100"
    assert found["warnings"] == []
    _, out, err = bertkd("plan", str(path), *given, "--json", "student.steps=9000000")
    assert [f"plan  warning: {warning}" for warning in json.loads(out)["warnings"]] == err.splitlines() != []
    assert found["total"]["flops"] == pytest.approx(sum(stage["flops"] for stage in found["stages"].values()))


@pytest.mark.parametrize(
    ("rows", "micro_batches", "passes"),
    [
        ([(10, 99)] * 16, 16, 2),  # of 1,000 tokens each
        ([(10, 99)] * 16, 32, 4),
        ([(10, 99)] * 16, 2, 1),
        ([(2, 999), (100, 19)] * 4, 8, 8),  # together 102 rows of 1,000 tokens
        ([(8, 1023)] * 3, 3, 3),
        ([], 4, 0),
    ],
)
def test_a_gpu_joins_micro_batches_to_passes_of_8192_padded_tokens(rows, micro_batches, passes):
    batches = [BatchLengths(np.full(n, length), np.full(n, 5), 8) for n, length in rows]
    assert SampledBatches(batches, 1.0, None).gpu_passes(micro_batches) == passes


def test_updates_of_a_gpu_take_no_less_than_their_launches(bertkd):
    given = ["--pairs", "160239", "--src-tokens", "27", "--tgt-tokens", "25", "--device", "h100", "--json"]

    def hours(*overrides: str) -> dict[str, float]:
        # No validation but the one at the end.
        quiet = ["teacher.eval_every=100000", "student.eval_every=100000", "checkpoint_every=1000000"]
        code, out, _ = bertkd("plan", "configs/iwslt14.yaml", *given, *quiet, *overrides)
        assert code == 0
        found = json.loads(out)
        bound = [name for name, stage in found["stages"].items() if stage["is_launch_bound"]]
        assert bound == ["finetune", "distill/distilled", "distill/control"]
        assert any(
            line.startswith(f"{', '.join(bound)} take as long as their launches") for line in found["assumptions"]
        )
        return {name: stage["device_hours"] for name, stage in found["stages"].items()}

    # In one pass an update: 100,000 of 2,856 and of 1,848 launches, 28 µs each.
    single = hours(
        "student.micro_batches=1", "teacher.micro_batches=1", "student.batch_tokens=1536", "teacher.batch_tokens=4096"
    )
    assert single["distill/control"] == pytest.approx(100_000 * 2856 * 28e-6 / 3600, rel=0.02)
    assert single["finetune"] == pytest.approx(100_000 * 1848 * 28e-6 / 3600, rel=0.02)
    # Micro-batches of other lengths seldom fit into one pass.
    four = hours()
    assert 1.5 < four["distill/control"] / single["distill/control"] < 4
    # Four workers of a pass each are as fast, and take four devices.
    shared = hours("workers=4")
    assert shared["distill/control"] == pytest.approx(4 * single["distill/control"], rel=0.02)


def test_a_cpu_and_large_batches_do_not_wait_for_launches(path):
    stages = planned(plan_pipeline(load_config(path), TED, tflops=100.0))
    assert not any(stage["is_launch_bound"] for stage in stages.values())
    wide = load_config(path, ["student.width=4096", "student.heads=8", "student.batch_tokens=65536"])
    stages = planned(plan_pipeline(wide, TED, device="h100"))
    assert not stages["distill/control"]["is_launch_bound"]
    assert stages["extract"]["is_launch_bound"]


def test_a_well_known_bert_is_not_fetched(bertkd, monkeypatch):
    monkeypatch.setattr("bertkd_ray.plan.costs.resolve_model", lambda source: pytest.fail(f"fetches {source}"))
    given = ["--pairs", "160239", "--src-tokens", "27", "--tgt-tokens", "25", "--device", "h200"]
    code, out, _ = bertkd("plan", "configs/iwslt14.yaml", *given)
    assert code == 0
    assert "vocabulary   40,000 tokens" in out


def test_this_machine_is_measured_where_no_device_is_named(bertkd, path):
    code, out, _ = bertkd("plan", str(path), "--pairs", "1000", "--src-tokens", "9", "--tgt-tokens", "9", "--json")
    device = json.loads(out)["device"]
    assert code == 0
    assert device["rate_source"] == "measured here just now"
    assert all(rate > 1e8 for rate in device["flops"].values())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--pairs", "9"], "a corpus without its text needs --src-tokens and --tgt-tokens too"),
        (["--vocabulary", "9"], "a corpus without its text needs --pairs and --src-tokens and --tgt-tokens too"),
        (["--pairs", "0", "--src-tokens", "1", "--tgt-tokens", "1"], "--pairs 0: give 1 or more"),
        (["--pairs", "1", "--src-tokens", "nan", "--tgt-tokens", "1"], "--src-tokens nan: give 1 or more"),
        (
            ["--pairs", "9" * 20, "--src-tokens", "1", "--tgt-tokens", "1"],
            "--pairs 1e+20: give 1 or more, at most 1e+10",
        ),
        (
            ["--pairs", "1", "--src-tokens", "1e300", "--tgt-tokens", "1"],
            "--src-tokens 1e+300: give 1 or more, at most 100000",
        ),
        (
            ["--pairs", "1", "--src-tokens", "1", "--tgt-tokens", "1", "--held", "9" * 20],
            "--held 1e+20: give 1 or more, at most 1e+10",
        ),
        (["--rate", "inf"], "--rate inf: give TFLOP/s above 0, at most 1e9"),
        (["--devices", "9" * 20], f"--devices {'9' * 20}: give 1 or more, at most 1000000"),
        (["--device", "tpu"], "--device tpu: known are h100, h200; or give --rate TFLOPS"),
        (["--rate", "0"], "--rate 0: give TFLOP/s above 0"),
        (["--devices", "0"], "--devices 0: give 1 or more"),
        (["teacher.layers=9"], "teacher.layers: 9, but "),
    ],
)
def test_a_mistake_is_one_line(bertkd, path, words, said):
    code, out, err = bertkd("plan", str(path), *words)
    assert (code, out) == (2, "")
    assert err.startswith(f"bertkd: error: {said}")
    assert err.count("\n") == 1


def test_text_that_is_not_there(path):
    with pytest.raises(UserError, match=r"nothing\.de: no such file"):
        plan_pipeline(load_config(path, ["corpus.train.src=nothing.de"]), tflops=1.0)


@pytest.fixture(scope="module")
def batch() -> BatchLengths:
    """Three pairs of unequal lengths."""
    return BatchLengths(np.array([5, 9, 3]), np.array([4, 2, 11]), multiple=8)


def test_a_teachers_operations_are_those_that_torch_counts(path, batch):
    config = load_config(path)
    model = build_teacher(
        config.teacher.model, np.zeros(408, np.int64), TeacherConfig(pretrained=False), attention="eager"
    )
    width = 24  # 3 + 11 tokens and three special ones, in eights
    masked = torch.tensor([row * width + place for row in range(3) for place in (2, 3)])
    inputs = [torch.zeros(3, width, dtype=torch.long) for _ in range(2)]
    with FlopCounterMode(display=False) as counted:
        seen, labels = torch.ones(3, width, dtype=torch.bool), torch.zeros(6, dtype=torch.long)
        MaskedLoss(model)(TeacherBatch(*inputs, seen, masked, labels))[0].backward()
    shape = teacher_size(config.teacher, 408)
    # Torch leaves out the gradient of what needs none: the first layer's inputs do.
    assert TRAINING * batch.teacher_flops(shape, "both", 6) == pytest.approx(counted.get_total_flops(), rel=0.01)


def test_a_students_operations_are_those_that_torch_counts(path, batch):
    config = load_config(path)
    student = config.student
    model = build_student(
        student.model_copy(update=dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), 0.0)),
        vocab_size=408,
        max_positions=64,
        seed=1,
    )
    rows = [Ragged.from_lists([[4] * int(length) for length in lengths]) for lengths in (batch.src, batch.tgt)]
    with FlopCounterMode(display=False) as counted:
        logits = decoder_hidden(model, collate(*rows)) @ model.get_output_embeddings().weight.T
        logits.sum().backward()
    shape = student_size(student, 408)
    assert TRAINING * batch.student_flops(shape) == pytest.approx(counted.get_total_flops(), rel=0.01)


def test_a_beam_search_by_hand(path):
    shape = student_size(load_config(path).student, 400)
    d, f, layers = shape.width, shape.ffn, shape.decoder_layers
    pair = np.array([4]), np.array([2])
    # Encoder: four tokens. Decoder: two steps, which see one and two tokens of their own, all four of the source; the
    # first of them is one row, whatever the beam.
    encoder = shape.encoder_layers * 4 * (2 * (4 * d * d + 2 * d * f) + 4 * 4 * d) + layers * 4 * 4 * d * d
    first, second = (layers * (2 * (6 * d * d + 2 * d * f) + 4 * d * (4 + own)) + 2 * d * 400 for own in (1, 2))
    assert beam_search(shape, *pair, 1) == encoder + first + second
    assert beam_search(shape, *pair, 5) == encoder + first + 5 * second
