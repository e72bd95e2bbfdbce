"""Models that are a BERT under other names: their hidden states against those of their own class in transformers."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    BertConfig,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ErnieConfig,
    ErnieForMaskedLM,
    PreTrainedModel,
)
from transformers.activations import ACT2FN

from bertkd_ray.config.model_config import ACTIVATIONS
from bertkd_ray.config.sections import TeacherConfig
from bertkd_ray.core.errors import UserError
from bertkd_ray.teacher.families import as_bert_config, own_key
from bertkd_ray.teacher.model import build_teacher, load_teacher
from bertkd_ray.teacher.source import bert_config, weight_files
from bertkd_ray.teacher.task import MaskedLoss, TeacherBatch
from tests.teacher.tiny import VOCABULARY, write_random

BERT_IDS = np.asarray([0, 1, 2, 3, 9, 9, 7, 30], np.int32)
MODELS: dict[str, tuple[type[PreTrainedModel], Any]] = {
    "distilbert": (
        DistilBertForMaskedLM,
        DistilBertConfig(
            vocab_size=40, dim=16, n_layers=3, n_heads=2, hidden_dim=24, max_position_embeddings=32, activation="relu"
        ),
    ),
    "ernie": (
        ErnieForMaskedLM,
        ErnieConfig(
            vocab_size=40,
            hidden_size=16,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=24,
            max_position_embeddings=32,
            layer_norm_eps=1e-5,
            use_task_id=True,
        ),
    ),
}
MODELS["ernie without tasks"] = (
    ErnieForMaskedLM,
    ErnieConfig(**{**MODELS["ernie"][1].to_dict(), "use_task_id": False}),
)


@pytest.fixture(scope="module", params=MODELS)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def write(directory: Path, family: str, *, mlm: bool = True, seed: int = 0) -> Path:
    """A checkpoint of the family; without MLM head it has no prefix before its parameters' names."""
    return write_random(directory, *MODELS[family], mlm=mlm, seed=seed)


@pytest.fixture
def inputs() -> tuple[torch.Tensor, ...]:
    """Three rows of ids, token types, attention and all the places that are not padding."""
    generator = torch.Generator().manual_seed(1)
    input_ids = torch.randint(5, len(VOCABULARY), (3, 20), generator=generator)
    lengths = torch.tensor([20, 13, 4])
    attention = torch.arange(20) < lengths[:, None]
    token_types = ((torch.arange(20) >= 6) & attention).long()
    return input_ids * attention, token_types, attention, attention.flatten().nonzero().flatten()


def own_hidden(directory: Path, family: str, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """The hidden states that the model's own class gives before its MLM head."""
    input_ids, token_types, attention, places = inputs
    model = AutoModel.from_pretrained(directory, attn_implementation="eager").eval()
    types = {} if family == "distilbert" else {"token_type_ids": token_types}
    return model(input_ids=input_ids, attention_mask=attention, **types).last_hidden_state.flatten(0, 1)[places]


def encoder_hidden(model: Any, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    input_ids, token_types, attention, places = inputs
    encoded = model.bert(input_ids=input_ids, token_type_ids=token_types, attention_mask=attention).last_hidden_state
    return encoded.flatten(0, 1)[places]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("mlm", [True, False])
@torch.no_grad()
def test_the_encoder_gives_what_the_models_own_class_gives(
    tmp_path: Path, family: str, inputs: tuple[torch.Tensor, ...], mlm: bool, seed: int
) -> None:
    directory = write(tmp_path, family, mlm=mlm, seed=seed)
    model = build_teacher(directory, BERT_IDS, TeacherConfig()).eval()
    expected = own_hidden(directory, family, inputs)
    assert expected.std() > 0.1
    torch.testing.assert_close(encoder_hidden(model, inputs), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_transform_and_the_output_layer_are_the_models_own(
    tmp_path: Path, family: str, inputs: tuple[torch.Tensor, ...]
) -> None:
    directory = write(tmp_path, family)
    model = build_teacher(directory, BERT_IDS, TeacherConfig()).eval()
    input_ids, token_types, attention, places = inputs
    own, kind = MODELS[family][0].from_pretrained(directory, attn_implementation="eager").eval(), family
    types = {} if kind == "distilbert" else {"token_type_ids": token_types}
    logits_V = own(input_ids=input_ids, attention_mask=attention, **types).logits.flatten(0, 1)[places]
    bias = own.vocab_projector.bias if kind == "distilbert" else own.cls.predictions.bias
    rows = torch.from_numpy(BERT_IDS.astype(np.int64))
    torch.testing.assert_close(model.logits(model(*inputs)), (logits_V - bias)[:, rows], rtol=1e-5, atol=1e-4)


def test_a_headless_checkpoint_starts_with_the_identity_as_transform(tmp_path: Path, family: str) -> None:
    model = build_teacher(write(tmp_path, family, mlm=False), BERT_IDS, TeacherConfig())
    assert torch.equal(model.transform.dense.weight, torch.eye(16))


def test_token_types_of_zero_can_be_trained(tmp_path: Path, inputs: tuple[torch.Tensor, ...]) -> None:
    model = build_teacher(write(tmp_path, "distilbert"), BERT_IDS, TeacherConfig(dropout=0.0))
    types = model.bert.embeddings.token_type_embeddings.weight
    assert torch.equal(types, torch.zeros(2, 16))
    *inputs_, places = inputs
    MaskedLoss(model)(TeacherBatch(*inputs_, places, torch.zeros(len(places), dtype=torch.int64)))[0].backward()
    assert types.grad is not None
    assert types.grad.abs().sum(1).min() > 0


def test_the_saved_teacher_is_a_bert(tmp_path: Path, family: str, inputs: tuple[torch.Tensor, ...]) -> None:
    model = build_teacher(write(tmp_path / "own", family), BERT_IDS, TeacherConfig(layers=2)).eval()
    model.save_pretrained(tmp_path / "teacher")
    loaded = load_teacher(tmp_path / "teacher")
    assert json.loads((tmp_path / "teacher" / "config.json").read_text())["model_type"] == "bert"
    assert loaded.config.num_hidden_layers == 2
    with torch.no_grad():
        assert torch.equal(loaded.logits(loaded(*inputs)), model.logits(model(*inputs)))
    encoder = AutoModel.from_pretrained(tmp_path / "teacher")
    assert type(encoder).__name__ == "BertModel"


def test_several_files_and_half_precision(tmp_path: Path, family: str) -> None:
    whole = write(tmp_path / "whole", family)
    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / "config.json").write_bytes((whole / "config.json").read_bytes())
    state = load_file(whole / "model.safetensors")
    files = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(sorted(state))}
    for file in set(files.values()):
        save_file({name: state[name].half() for name in state if files[name] == file}, parts / file)
    (parts / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    assert [path.name for path in weight_files(parts)] == sorted(set(files.values()))
    mine, theirs = (build_teacher(path, BERT_IDS, TeacherConfig()).state_dict() for path in (parts, whole))
    for name, value in theirs.items():
        assert mine[name].dtype == torch.float32
        torch.testing.assert_close(mine[name], value, rtol=1e-3, atol=1e-3, msg=name)


def test_a_missing_part_and_a_damaged_file_are_named(tmp_path: Path) -> None:
    directory = write(tmp_path, "distilbert")
    (directory / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"model\.safetensors is damaged .*; fetch or save the model again"):
        build_teacher(directory, BERT_IDS, TeacherConfig())
    (directory / "model.safetensors").unlink()
    (directory / "model.safetensors.index.json").write_text('{"weight_map": {"a": "part-1.safetensors"}}')
    with pytest.raises(UserError, match=r"has no part-1\.safetensors; convert the model with save_pretrained"):
        build_teacher(directory, BERT_IDS, TeacherConfig())


def test_a_lost_parameter_is_named_as_bert_calls_it(tmp_path: Path) -> None:
    directory = write(tmp_path, "distilbert")
    state = load_file(directory / "model.safetensors")
    del state["distilbert.transformer.layer.1.ffn.lin2.bias"]
    save_file(state, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks a bert\.encoder\.layer\.1\.output\.dense\.bias"):
        build_teacher(directory, BERT_IDS, TeacherConfig())


def test_a_random_start_has_the_shape_of_the_checkpoint(tmp_path: Path, family: str) -> None:
    model = build_teacher(write(tmp_path, family), BERT_IDS, TeacherConfig(pretrained=False))
    assert (model.config.num_hidden_layers, model.config.intermediate_size) == (3, 24)
    assert model.bert.embeddings.token_type_embeddings.weight.std() > 0


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("config", [BertConfig(), DistilBertConfig(), ErnieConfig(pad_token_id=None)])
def test_what_transformers_writes_is_accepted(tmp_path: Path, config: Any, activation: str) -> None:
    config = copy.deepcopy(config)
    setattr(config, "activation" if config.model_type == "distilbert" else "hidden_act", activation)
    config.save_pretrained(tmp_path)
    ours = bert_config(tmp_path)
    assert {key: getattr(config, own_key(key, config.model_type), value) for key, value in ours.items()} == ours
    assert activation in ACT2FN


def test_configuration_in_berts_terms(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "distilbert", "n_layers": 4, "dim": 36}))
    config = bert_config(tmp_path)
    assert {key: config[key] for key in ("num_hidden_layers", "hidden_size", "max_position_embeddings")} == {
        "num_hidden_layers": 4,
        "hidden_size": 36,
        "max_position_embeddings": 512,
    }
    own = DistilBertConfig().to_dict()
    bare = as_bert_config({"model_type": "distilbert"})
    assert as_bert_config(own) == bare
