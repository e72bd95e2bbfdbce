from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from transformers import PreTrainedTokenizerFast

from bertkd_ray.config.sections import StudentConfig
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.student.collate import collate
from bertkd_ray.student.loss import fused_kd_loss
from bertkd_ray.student.model import build_student, decoder_hidden

SIZES = {"encoder_layers": 2, "decoder_layers": 1, "width": 16, "ffn": 32, "heads": 4}
DROPOUT = {"dropout": 0.3, "attention_dropout": 0.1, "activation_dropout": 0.2}


def _student(*, vocab_size=48, seed=7, attention="eager", **changes):
    student = StudentConfig(**{**SIZES, **DROPOUT, **changes})
    return build_student(student, vocab_size=vocab_size, max_positions=64, seed=seed, attention=attention)


def _batch():
    src = Ragged.from_lists([[5, 6, 7, 8, 9, 10, 11, 12, 13], [20], [30, 31, 32]])
    tgt = Ragged.from_lists([[14, 15], [21, 22, 23, 24, 25, 26, 27, 28, 29, 40], []])
    return collate(src, tgt)


def test_weights_depend_on_the_seed_alone_and_leave_the_global_state():
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = _student()
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    second, other = _student(), _student(seed=8)
    for (name, a), b, c in zip(first.named_parameters(), second.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert a.ndim == 1 or not torch.equal(a, c), name


def test_every_matrix_is_glorot_uniform_and_vectors_are_constant():
    for name, parameter in _student(width=64, ffn=128, vocab_size=504).named_parameters():
        if parameter.ndim == 2:
            bound = math.sqrt(6 / sum(parameter.shape))
            assert parameter.abs().max() <= bound
            assert parameter.abs().max() > 0.99 * bound
            assert parameter.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
        else:
            assert torch.all(parameter == (1.0 if name.endswith("norm.weight") else 0.0))


def test_shape_of_the_model():
    model = _student()
    shared = model.model.shared.weight
    assert model.get_output_embeddings().weight is shared
    assert model.model.encoder.embed_tokens.weight is shared
    assert model.model.decoder.embed_tokens.weight is shared
    width, ffn = 16, 32
    attention, norm, mlp = 4 * (width * width + width), 2 * width, 2 * width * ffn + ffn + width
    encoder_layer, decoder_layer = attention + mlp + 2 * norm, 2 * attention + mlp + 3 * norm
    expected = 48 * width + 2 * encoder_layer + decoder_layer + 2 * norm
    assert sum(p.numel() for p in model.parameters()) == expected
    config = model.config
    assert (config.dropout, config.attention_dropout, config.activation_dropout) == (0.3, 0.1, 0.2)
    assert (config.encoder_layerdrop, config.decoder_layerdrop) == (0, 0)
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id, config.decoder_start_token_id) == (
        0,
        2,
        3,
        2,
    )


class _Reference:
    """The pre-norm Transformer written out for one sentence pair, from the weights of a student without dropout."""

    def __init__(self, model: nn.Module, heads: int) -> None:
        self.w = dict(model.named_parameters())
        self.heads = heads

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def norm(self, name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def attend(self, name: str, x: Tensor, memory: Tensor, *, causal: bool) -> Tensor:
        q, k, v = (
            self.linear(f"{name}.q_proj", x),
            self.linear(f"{name}.k_proj", memory),
            self.linear(f"{name}.v_proj", memory),
        )
        contexts = []
        for qh, kh, vh in zip(*(t.chunk(self.heads, dim=1) for t in (q, k, v)), strict=True):
            scores = qh @ kh.T / math.sqrt(qh.shape[1])
            if causal:
                scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
            contexts.append(torch.softmax(scores, 1) @ vh)
        return self.linear(f"{name}.out_proj", torch.cat(contexts, 1))

    def embed(self, ids: list[int]) -> Tensor:
        table = self.w["model.shared.weight"]
        width = table.shape[1]
        rates = [10000 ** (-i / (width // 2 - 1)) for i in range(width // 2)]
        angles = torch.tensor([[(position + 1) * rate for rate in rates] for position in range(len(ids))])
        return table[ids] * math.sqrt(width) + torch.cat([angles.sin(), angles.cos()], 1)

    def feed_forward(self, name: str, x: Tensor) -> Tensor:
        return self.linear(
            f"{name}.fc2", torch.relu(self.linear(f"{name}.fc1", self.norm(f"{name}.final_layer_norm", x)))
        )

    def __call__(self, src: list[int], tgt: list[int], layers: tuple[int, int]) -> Tensor:
        x = self.embed(src)
        for i in range(layers[0]):
            name = f"model.encoder.layers.{i}"
            h = self.norm(f"{name}.self_attn_layer_norm", x)
            x = x + self.attend(f"{name}.self_attn", h, h, causal=False)
            x = x + self.feed_forward(name, x)
        memory = self.norm("model.encoder.layer_norm", x)
        y = self.embed(tgt)
        for i in range(layers[1]):
            name = f"model.decoder.layers.{i}"
            h = self.norm(f"{name}.self_attn_layer_norm", y)
            y = y + self.attend(f"{name}.self_attn", h, h, causal=True)
            h = self.norm(f"{name}.encoder_attn_layer_norm", y)
            y = y + self.attend(f"{name}.encoder_attn", h, memory, causal=False)
            y = y + self.feed_forward(name, y)
        return self.norm("model.decoder.layer_norm", y)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_hidden_states_are_those_of_the_transformer_written_out(attention):
    model = _student(attention=attention).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) * 0.1)
        hidden = decoder_hidden(model, _batch())
        reference = _Reference(model, heads=4)
        rows = [
            reference([5, 6, 7, 8, 9, 10, 11, 12, 13, 3], [2, 14, 15], (2, 1)),
            reference([20, 3], [2, 21, 22, 23, 24, 25, 26, 27, 28, 29, 40], (2, 1)),
            reference([30, 31, 32, 3], [2], (2, 1)),
        ]
    torch.testing.assert_close(hidden, torch.cat(rows), rtol=1e-4, atol=1e-5)


def test_a_step_reaches_every_parameter_through_the_fused_loss():
    model = _student()
    batch = _batch()
    torch.manual_seed(0)
    sums = fused_kd_loss(
        decoder_hidden(model, batch),
        model.get_output_embeddings().weight,
        batch.targets_P,
        alpha=0.0,
        label_smoothing=0.1,
    )
    sums.loss.backward()
    for name, parameter in model.named_parameters():
        # A constant added to all keys of a head moves every attention score alike, so their bias has no gradient.
        if not name.endswith("k_proj.bias"):
            assert parameter.grad.abs().max() > 0, name


def test_fused_loss_trains_the_shared_embeddings_as_the_models_own_logits_do():
    model = _student(dropout=0.0, attention_dropout=0.0, activation_dropout=0.0)
    batch = _batch()
    logits = model(batch.src_ids_NS, batch.src_mask_NS, decoder_input_ids=batch.decoder_input_ids_NT).logits
    F.cross_entropy(logits.flatten(0, 1)[batch.target_index_P], batch.targets_P, reduction="sum").backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    weight = model.get_output_embeddings().weight
    fused_kd_loss(decoder_hidden(model, batch), weight, batch.targets_P, alpha=0.0).loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-5)


WORDS = ["<pad>", "<unk>", "<s>", "</s>", "▁a", "▁dog", "▁runs", "▁ein", "▁hund"]
TRANSLATE = """
import json, sys
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
directory = sys.argv[1]
model = AutoModelForSeq2SeqLM.from_pretrained(directory)
tokenizer = AutoTokenizer.from_pretrained(directory)
inputs = tokenizer(["ein hund", "hund ein ein ein"], return_tensors="pt", padding=True)
ids = model.generate(**inputs)
print(json.dumps({
    "input": inputs["input_ids"].tolist(),
    "ids": ids.tolist(),
    "text": tokenizer.batch_decode(ids, skip_special_tokens=True),
    "beams": model.generation_config.num_beams,
    "limit": model.generation_config.max_length,
    "foreign": [name for name in sys.modules if name.startswith("bertkd_ray")],
}))
"""


def test_saved_student_translates_raw_text_in_a_process_without_this_package(tmp_path: Path):
    model = _overfitted_student()
    model.save_pretrained(tmp_path)
    _tokenizer().save_pretrained(tmp_path)
    # -P and the working directory keep the checkout off the path of the child.
    done = subprocess.run(
        [sys.executable, "-P", "-c", TRANSLATE, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["foreign"] == []
    assert result["input"] == [[7, 8, 3, 0, 0], [8, 7, 7, 7, 3]]
    assert result["text"] == ["a dog", "runs"]
    assert result["ids"][0][:4] == [2, 4, 5, 3]
    assert (result["beams"], result["limit"]) == (5, 64)


def _overfitted_student():
    """Knows two sentences by heart: `ein hund` is `a dog`, `hund ein ein ein` is `runs`."""
    model = _student(vocab_size=len(WORDS), width=32, dropout=0.0, attention_dropout=0.0, activation_dropout=0.0)
    batch = collate(Ragged.from_lists([[7, 8], [8, 7, 7, 7]]), Ragged.from_lists([[4, 5], [6]]))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = fused_kd_loss(decoder_hidden(model, batch), model.model.shared.weight, batch.targets_P, alpha=0.0).loss
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2
    return model


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 3)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        model_input_names=["input_ids", "attention_mask"],
    )
