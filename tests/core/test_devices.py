"""Which device, precision and attention are chosen, for hardware that this machine need not have."""

from __future__ import annotations

import pytest
import torch

from bertkd_ray.core.devices import autocast, best_device, padding_multiple, resolve_attention, resolve_precision

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def test_the_best_device_is_the_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert best_device() == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert best_device() == torch.device("cuda", 3)


@pytest.mark.parametrize("wanted", ["bf16", "float32"])
@pytest.mark.parametrize("device", [CPU, GPU])
def test_a_precision_that_is_asked_for_is_taken(wanted, device):
    assert resolve_precision(wanted, device) == wanted


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "float32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_auto_on_a_gpu_is_bf16_from_ampere_on(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert resolve_precision("auto", GPU) == expected


@pytest.mark.parametrize(
    ("amx", "avx512", "expected"), [(True, True, "bf16"), (False, True, "bf16"), (False, False, "float32")]
)
def test_auto_on_a_cpu_is_bf16_where_it_multiplies_bf16(monkeypatch, amx, avx512, expected):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    assert resolve_precision("auto", CPU) == expected


def test_auto_on_a_torch_that_tells_nothing_is_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    assert resolve_precision("auto", CPU) == "float32"


def test_this_torch_answers_both_questions():
    """A renamed probe would turn bf16 off without a word."""
    assert isinstance(torch.cpu._is_amx_tile_supported(), bool)
    assert isinstance(torch.cpu._is_avx512_bf16_supported(), bool)


def test_autocast_multiplies_in_the_precision():
    x = torch.ones(2, 2)
    with autocast(CPU, "bf16"):
        assert (x @ x).dtype == torch.bfloat16
    with autocast(CPU, "float32"):
        assert (x @ x).dtype == torch.float32


def test_attention():
    for training in (True, False):
        assert resolve_attention("auto", CPU, training=training) == "eager"
        assert resolve_attention("sdpa", CPU, training=training) == "sdpa"
        assert resolve_attention("eager", GPU, training=training) == "eager"
    assert resolve_attention("auto", GPU, training=True) == "eager"
    assert resolve_attention("auto", GPU, training=False) == "sdpa"


@pytest.mark.parametrize(("device", "multiple"), [("cpu", 1), ("cuda", 8)])
def test_batches_are_rounded_up_for_tiles_of_the_hardware_alone(device: str, multiple: int) -> None:
    assert padding_multiple(torch.device(device)) == multiple
    assert padding_multiple(torch.device(device), 512) == multiple
    assert padding_multiple(torch.device(device), 61) == 1
