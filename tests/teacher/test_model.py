"""The conditional masked language model: its numbers by hand, and what it takes from a checkpoint."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import BertForMaskedLM

from bertkd_ray.config.sections import TeacherConfig
from bertkd_ray.core.errors import UserError
from bertkd_ray.teacher.model import ConditionalMaskedLM, build_teacher, load_teacher
from bertkd_ray.teacher.task import MaskedLoss, TeacherBatch
from tests.teacher.tiny import write_bert

BERT_IDS = np.asarray([0, 1, 2, 3, 9, 9, 7, 30], np.int32)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def sentence_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("sentence_bert"), mlm=False)


@pytest.fixture
def inputs() -> tuple[torch.Tensor, ...]:
    """Two rows, the second with two places of padding; masked are places 3 and 4 of the first, 2 of the second."""
    input_ids = torch.tensor([[2, 10, 3, 4, 4, 3], [2, 3, 4, 3, 0, 0]])
    token_types = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 0, 0]])
    return input_ids, token_types, input_ids != 0, torch.tensor([3, 4, 8])


def plain_hidden(directory: Path, inputs: tuple[torch.Tensor, ...], layers: int = 2) -> torch.Tensor:
    """What transformers' own masked language model has after its transform, at the masked positions."""
    model = BertForMaskedLM.from_pretrained(directory, num_hidden_layers=layers, attn_implementation="eager").eval()
    input_ids, token_types, attention, masked = inputs
    encoded = model.bert(input_ids, attention_mask=attention, token_type_ids=token_types).last_hidden_state
    return model.cls.predictions.transform(encoded).flatten(0, 1)[masked]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("layers", [None, 1])
def test_hidden_states_are_those_of_berts_own_head(
    bert: Path, inputs: tuple[torch.Tensor, ...], attention: str, layers: int | None
) -> None:
    model = build_teacher(bert, BERT_IDS, TeacherConfig(layers=layers), attention=attention).eval()
    assert model.config._attn_implementation == attention
    torch.testing.assert_close(model(*inputs), plain_hidden(bert, inputs, layers or 2), rtol=1e-5, atol=1e-5)


def test_the_direction_is_saved_and_that_of_earlier_versions_is_refused(bert: Path, tmp_path: Path) -> None:
    build_teacher(bert, BERT_IDS, TeacherConfig(direction="left_to_right")).save_pretrained(tmp_path)
    assert load_teacher(tmp_path).config.direction == "left_to_right"
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config.pop("direction"), config.pop("layout")) == ("left_to_right", "prefix_lm")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_teacher(tmp_path).config.direction == "both"
    for earlier in ({"left_to_right": True}, {"direction": "left_to_right"}):
        (tmp_path / "config.json").write_text(json.dumps({**config, **earlier}))
        with pytest.raises(UserError, match="from left to right as earlier versions did; run finetune again"):
            load_teacher(tmp_path)


def test_a_bidirectional_teachers_configuration_names_no_layout(bert: Path, tmp_path: Path) -> None:
    build_teacher(bert, BERT_IDS, TeacherConfig()).save_pretrained(tmp_path)
    assert "layout" not in json.loads((tmp_path / "config.json").read_text())


def test_output_layer_starts_from_the_input_embedding(bert: Path, inputs: tuple[torch.Tensor, ...]) -> None:
    model = build_teacher(bert, BERT_IDS, TeacherConfig()).eval()
    embedding = load_file(bert / "model.safetensors")["bert.embeddings.word_embeddings.weight"]
    hidden = model(*inputs)
    torch.testing.assert_close(model.logits(hidden), hidden @ embedding[BERT_IDS.astype(np.int64)].T)
    assert model.logits(hidden).shape == (3, 8)


def test_output_layer_is_tied_to_nothing(bert: Path) -> None:
    model = build_teacher(bert, BERT_IDS, TeacherConfig())
    before = model.bert.get_input_embeddings().weight.clone()
    model.tie_weights()
    with torch.no_grad():
        model.output.weight.add_(1.0)
    assert torch.equal(model.bert.get_input_embeddings().weight, before)


def test_loss_by_hand(bert: Path, inputs: tuple[torch.Tensor, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_teacher(bert, BERT_IDS, TeacherConfig()).eval()
    logits = torch.zeros(3, 8)
    logits[0, 5] = np.log(3.0)  # probabilities 3/10 and 1/10 seven times
    logits[2, 0] = np.log(9.0)  # 9/16 and 1/16
    monkeypatch.setattr(model, "logits", lambda hidden_MH: logits)
    loss, correct = MaskedLoss(model)(TeacherBatch(*inputs, torch.tensor([5, 7, 3])))
    assert loss.item() == pytest.approx(np.log(10 / 3) + np.log(8) + np.log(16))
    assert int(correct) == 1
    assert loss.dtype == torch.float32


def test_loss_sums_over_masked_positions_alone_and_trains_every_parameter(
    bert: Path, inputs: tuple[torch.Tensor, ...]
) -> None:
    model = build_teacher(bert, BERT_IDS, TeacherConfig(dropout=0.0, attention_dropout=0.0))
    labels = torch.tensor([5, 7, 3])
    loss, _ = MaskedLoss(model)(TeacherBatch(*inputs, labels))
    expected = -functional.log_softmax(model.logits(plain_hidden(bert, inputs)), -1)[torch.arange(3), labels].sum()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_the_transforms_layer_norm_is_float32_under_bf16_autocast(bert: Path) -> None:
    transform = build_teacher(bert, BERT_IDS, TeacherConfig()).transform
    hidden = torch.randn(300, transform.dense.in_features, generator=torch.Generator().manual_seed(1))
    gradient = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(2))
    with torch.autocast("cpu", torch.bfloat16):
        found = transform(hidden)
        activated = functional.gelu(functional.linear(hidden, transform.dense.weight, transform.dense.bias)).float()
    found.backward(gradient)
    centred = activated - activated.mean(1, keepdim=True)
    standard = centred / (centred.square().mean(1, keepdim=True) + transform.LayerNorm.eps).sqrt()
    weight, bias = transform.LayerNorm.weight, transform.LayerNorm.bias
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, standard * weight + bias)
    torch.testing.assert_close(weight.grad, (gradient * standard).sum(0))


def test_loss_under_bf16_autocast_is_float32(bert: Path, inputs: tuple[torch.Tensor, ...]) -> None:
    model = build_teacher(bert, BERT_IDS, TeacherConfig()).eval()
    labels = torch.tensor([5, 7, 3])
    with torch.no_grad():
        exact, _ = MaskedLoss(model)(TeacherBatch(*inputs, labels))
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = MaskedLoss(model)(TeacherBatch(*inputs, labels))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(exact), rel=0.05)
    assert float(loss) != float(exact)


def test_padding_changes_nothing(bert: Path, inputs: tuple[torch.Tensor, ...]) -> None:
    model = build_teacher(bert, BERT_IDS, TeacherConfig()).eval()
    alone = [tensor[1:, :4] for tensor in inputs[:3]]
    torch.testing.assert_close(model(*inputs)[2:], model(*alone, torch.tensor([2])), rtol=1e-5, atol=1e-5)


def test_dropout_settings(bert: Path) -> None:
    model = build_teacher(bert, BERT_IDS, TeacherConfig(attention_dropout=0.25))
    assert model.training
    assert (model.config.hidden_dropout_prob, model.config.attention_probs_dropout_prob) == (0.1, 0.25)
    model = build_teacher(bert, BERT_IDS, TeacherConfig(dropout=0.0, attention_dropout=0.0))
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {0.0}


def test_checkpoint_without_mlm_head_starts_with_an_identity_transform(
    sentence_bert: Path, inputs: tuple[torch.Tensor, ...]
) -> None:
    model = build_teacher(sentence_bert, BERT_IDS, TeacherConfig()).eval()
    input_ids, token_types, attention, masked = inputs
    encoded = model.bert(input_ids, attention_mask=attention, token_type_ids=token_types).last_hidden_state
    expected = functional.layer_norm(functional.gelu(encoded.flatten(0, 1)[masked]), (16,), eps=1e-12)
    torch.testing.assert_close(model(*inputs), expected)


def test_random_start_is_keyed_by_the_seed_and_leaves_the_global_generator(bert: Path) -> None:
    state = torch.random.get_rng_state()
    first, again, other = (
        build_teacher(bert, BERT_IDS, TeacherConfig(pretrained=False), seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    assert torch.equal(first.state_dict()[name], again.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], load_file(bert / "model.safetensors")[name])
    embedding = first.bert.get_input_embeddings().weight
    assert torch.equal(first.output.weight, embedding[BERT_IDS.astype(np.int64)])


def test_random_start_needs_the_configuration_alone(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((bert / "config.json").read_bytes())
    assert build_teacher(tmp_path, BERT_IDS, TeacherConfig(pretrained=False)).config.target_vocab_size == 8
    with pytest.raises(UserError, match=r"has no model\.safetensors"):
        build_teacher(tmp_path, BERT_IDS, TeacherConfig())


def test_half_precision_and_old_names_load_as_float32(bert: Path, tmp_path: Path) -> None:
    """The first BERT checkpoints call LayerNorm's weight and bias gamma and beta."""
    old = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value.half()
        for key, value in load_file(bert / "model.safetensors").items()
    }
    save_file(old, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes((bert / "config.json").read_bytes())
    model, new = (build_teacher(path, BERT_IDS, TeacherConfig()) for path in (tmp_path, bert))
    for (name, mine), theirs in zip(model.state_dict().items(), new.state_dict().values(), strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3, msg=name)


def test_saved_teacher_comes_back(bert: Path, inputs: tuple[torch.Tensor, ...], tmp_path: Path) -> None:
    model = build_teacher(bert, BERT_IDS, TeacherConfig()).eval()
    with torch.no_grad():
        model.output.bias.normal_()
    model.save_pretrained(tmp_path)
    loaded = load_teacher(tmp_path, attention="sdpa")
    assert isinstance(loaded, ConditionalMaskedLM)
    assert not loaded.training
    for name, parameter in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], parameter), name
    torch.testing.assert_close(loaded.logits(loaded(*inputs)), model.logits(model(*inputs)), rtol=1e-5, atol=1e-5)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".safetensors"]
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "bert"


def test_auto_model_loads_the_encoder_in_a_plain_process(bert: Path, tmp_path: Path) -> None:
    build_teacher(bert, BERT_IDS, TeacherConfig()).save_pretrained(tmp_path)
    script = (
        "import sys; from transformers import AutoModel\n"
        "model = AutoModel.from_pretrained(sys.argv[1])\n"
        "total = float(model.get_input_embeddings().weight.double().sum())\n"
        "print(type(model).__name__, total, 'bertkd_ray' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={"HF_HUB_OFFLINE": "1"},
    )
    total = float(load_file(bert / "model.safetensors")["bert.embeddings.word_embeddings.weight"].double().sum())
    name, loaded, imported = ran.stdout.split()
    assert (name, float(loaded), imported) == ("BertModel", pytest.approx(total), "False")


def test_loading_is_quiet(sentence_bert: Path, capfd: pytest.CaptureFixture[str]) -> None:
    build_teacher(sentence_bert, BERT_IDS, TeacherConfig())
    assert capfd.readouterr() == ("", "")


def test_a_trained_teacher_may_be_the_start_for_another_vocabulary(bert: Path, tmp_path: Path) -> None:
    build_teacher(bert, BERT_IDS, TeacherConfig()).save_pretrained(tmp_path)
    model = build_teacher(tmp_path, BERT_IDS[:4], TeacherConfig())
    assert model.output.weight.shape == (4, 16)
    with pytest.raises(UserError, match="prepare the corpus again"):
        build_teacher(tmp_path, np.asarray([99]), TeacherConfig())


def test_a_bert_is_not_a_trained_teacher(bert: Path) -> None:
    with pytest.raises(UserError, match="not a trained teacher"):
        load_teacher(bert)


def test_incomplete_weights_are_named(bert: Path, tmp_path: Path) -> None:
    build_teacher(bert, BERT_IDS, TeacherConfig()).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["output.bias"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"output\.bias is missing or misshapen"):
        load_teacher(tmp_path)
    del weights["bert.encoder.layer.1.output.dense.bias"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks a bert\.encoder\.layer\.1\.output\.dense\.bias"):
        build_teacher(tmp_path, BERT_IDS, TeacherConfig())


@pytest.mark.parametrize("change", ["absent", "misshapen"])
def test_an_mlm_head_that_is_there_in_part_is_refused(bert: Path, tmp_path: Path, change: str) -> None:
    """It is not taken for a checkpoint without a head, which starts with the identity."""
    shutil.copytree(bert, tmp_path, dirs_exist_ok=True)
    weights, name = load_file(bert / "model.safetensors"), "cls.predictions.transform.dense.bias"
    weights |= {name: torch.zeros(3)}
    if change == "absent":
        del weights[name]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks a .*transform\.dense\.bias of the configured shape"):
        build_teacher(tmp_path, BERT_IDS, TeacherConfig())


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused(bert: Path, tmp_path: Path, value: float) -> None:
    shutil.copytree(bert, tmp_path, dirs_exist_ok=True)
    weights, name = load_file(bert / "model.safetensors"), "bert.encoder.layer.0.intermediate.dense.weight"
    weights[name][1, 2] = value
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError) as caught:
        build_teacher(tmp_path, BERT_IDS, TeacherConfig())
    said = f"teacher.model: {tmp_path}/model.safetensors holds NaN or infinity in {name}; fetch or save the model again"
    assert str(caught.value) == said


@pytest.mark.parametrize("kind", [torch.int8, torch.float8_e4m3fn])
def test_quantised_weights_are_refused(bert: Path, tmp_path: Path, kind: torch.dtype) -> None:
    shutil.copytree(bert, tmp_path, dirs_exist_ok=True)
    weights, name = load_file(bert / "model.safetensors"), "bert.encoder.layer.0.intermediate.dense.weight"
    save_file(weights | {name: weights[name].to(kind)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=rf"holds {name} as {str(kind).removeprefix('torch.')}, quantised"):
        build_teacher(tmp_path, BERT_IDS, TeacherConfig())


def test_impossible_number_of_layers(bert: Path) -> None:
    with pytest.raises(UserError, match=r"teacher\.layers: .* has 2 layers"):
        build_teacher(bert, BERT_IDS, TeacherConfig(layers=3))
    for layers in (0, -1):
        with pytest.raises(ValidationError, match="layers"):
            TeacherConfig(layers=layers)


@pytest.mark.parametrize("bert_ids", [[40], [-1, 3], []])
def test_ids_of_another_bert_are_refused(bert: Path, bert_ids: list[int]) -> None:
    with pytest.raises(UserError, match="prepare the corpus again"):
        build_teacher(bert, np.asarray(bert_ids, np.int32), TeacherConfig())
