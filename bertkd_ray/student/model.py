"""The student: an ordinary `transformers` encoder-decoder with the shape of OpenNMT's Transformer."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GenerationConfig, M2M100Config, M2M100ForConditionalGeneration

from bertkd_ray.config.sections import StudentConfig
from bertkd_ray.corpus.tokenizer import BOS_ID, EOS_ID, PAD_ID
from bertkd_ray.student.collate import StudentBatch
from bertkd_ray.training.packed import Packing, attended, projected

Attention = Literal["eager", "sdpa"]


def build_student(
    student: StudentConfig, *, vocab_size: int, max_positions: int, seed: int, attention: Attention = "eager"
) -> M2M100ForConditionalGeneration:
    """A student with fresh weights that depend on the seed alone; the global random state is left as it was.

    Transformer as OpenNMT builds it (Vaswani et al., 2017, with pre-norm): LayerNorm before each sub-layer and after
    the last, ReLU, sinusoidal positions, embeddings times √width and shared by encoder, decoder and output layer, no
    layer drop. Every matrix, embeddings included, is drawn by Xavier/Glorot uniform; biases are 0, LayerNorm gains 1.

    student: its sizes and dropouts; OpenNMT uses one number for all three. attention: how attention is computed in this
    process; it is not saved, and `from_pretrained` chooses for itself.

    Differences from OpenNMT: its sinusoids interleave sine and cosine, count positions from 0 and space the wavelengths
    up to just below 10000 · 2π; here (tensor2tensor's form) all sines come first, positions count from 1 and the
    longest wavelength is 10000 · 2π. Its biases start at the uniform numbers of `nn.Linear`, not at 0.

    `generate` uses beam 5 and the nearest thing `transformers` has to GNMT's penalty of exponent 0.6, and stops at
    `max_positions`; longer inputs get further positions when they occur.
    """
    config = M2M100Config(
        vocab_size=vocab_size,
        d_model=student.width,
        encoder_layers=student.encoder_layers,
        decoder_layers=student.decoder_layers,
        encoder_ffn_dim=student.ffn,
        decoder_ffn_dim=student.ffn,
        encoder_attention_heads=student.heads,
        decoder_attention_heads=student.heads,
        encoder_layerdrop=0.0,
        decoder_layerdrop=0.0,
        dropout=student.dropout,
        attention_dropout=student.attention_dropout,
        activation_dropout=student.activation_dropout,
        activation_function="relu",
        max_position_embeddings=max_positions,
        scale_embedding=True,
        tie_word_embeddings=True,
        pad_token_id=PAD_ID,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        decoder_start_token_id=BOS_ID,
    )
    with torch.random.fork_rng(devices=[]):
        model = M2M100ForConditionalGeneration(config)
    model.set_attn_implementation(attention)
    _initialise(model, seed)
    model.generation_config = GenerationConfig(
        pad_token_id=PAD_ID,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        decoder_start_token_id=BOS_ID,
        num_beams=5,
        max_length=max_positions,
        length_penalty=0.6,
        early_stopping=False,
    )
    return model


def decoder_hidden(model: M2M100ForConditionalGeneration, batch: StudentBatch) -> Tensor:
    """The decoder's last hidden state, after the final LayerNorm, at the batch's real target positions: [P, width].

    What the model's own forward pass gives there, up to rounding, by the same modules on hidden states without padding,
    which attention alone sees (`training.packed`); its dropout is drawn for these. Scores are this times
    `model.get_output_embeddings().weight` transposed.
    """
    encoder: Any = model.model.encoder
    decoder: Any = model.model.decoder
    heads, dtype = model.config.encoder_attention_heads, model.model.shared.weight.dtype
    (rows, length), width = batch.src_ids_NS.shape, batch.decoder_input_ids_NT.shape[1]
    src = Packing(batch.src_index, rows, length, heads)
    tgt = Packing(batch.target_index_P, rows, width, heads)
    src_mask = _mask(batch.src_mask_NS[:, None, None], dtype)
    # Padding stands at the right end, where causal attention does not see it.
    tgt_mask = _mask(torch.ones(width, width, dtype=torch.bool, device=src_mask.device).tril_(), dtype)
    hidden_RD = _embedded(encoder, src, batch.src_ids_NS.flatten().index_select(0, batch.src_index))
    for layer in encoder.layers:
        hidden_RD = feed_forward(layer, _self_attention(layer, hidden_RD, src, src_mask))
    memory_RD = encoder.layer_norm(hidden_RD)
    hidden_RD = _embedded(decoder, tgt, batch.decoder_input_ids_NT.flatten().index_select(0, batch.target_index_P))
    for layer in decoder.layers:
        hidden_RD = _self_attention(layer, hidden_RD, tgt, tgt_mask)
        attention = layer.encoder_attn
        (query,) = tgt.padded(attention.q_proj(layer.encoder_attn_layer_norm(hidden_RD)), 1)
        key, value = src.padded(projected(memory_RD, attention.k_proj, attention.v_proj), 2)
        context_RD = tgt.packed(_attended(attention, query, key, value, src_mask))
        hidden_RD = feed_forward(layer, hidden_RD + _dropout(layer, attention.out_proj(context_RD)))
    hidden_PD: Tensor = decoder.layer_norm(hidden_RD[: tgt.tokens])
    return hidden_PD


def feed_forward(layer: Any, hidden_RD: Tensor) -> Tensor:
    """The feed-forward part of an encoder's or decoder's layer, with its residual."""
    inner = layer.activation_fn(layer.fc1(layer.final_layer_norm(hidden_RD)))
    inner = functional.dropout(inner, layer.activation_dropout, layer.training)
    return hidden_RD + _dropout(layer, layer.fc2(inner))


def _embedded(part: Any, packing: Packing, ids_P: Tensor) -> Tensor:
    table = part.embed_positions
    if (end := packing.length + PAD_ID + 1) > len(table.weights):
        table.make_weights(end, table.embedding_dim, table.padding_idx)
    positions_RD = table.weights.index_select(0, packing.filled(packing.column_P + PAD_ID + 1))
    return _dropout(part, part.embed_tokens(packing.filled(ids_P)) + positions_RD)


def _self_attention(layer: Any, hidden_RD: Tensor, packing: Packing, mask: Tensor) -> Tensor:
    attention = layer.self_attn
    parts = attention.q_proj, attention.k_proj, attention.v_proj
    query, key, value = packing.padded(projected(layer.self_attn_layer_norm(hidden_RD), *parts), 3)
    context_RD = packing.packed(_attended(attention, query, key, value, mask))
    return hidden_RD + _dropout(layer, attention.out_proj(context_RD))


def _attended(attention: Any, query_NhTd: Tensor, key_NhSd: Tensor, value_NhSd: Tensor, mask: Tensor) -> Tensor:
    share = attention.dropout if attention.training else 0.0
    return attended(attention, (query_NhTd, key_NhSd, value_NhSd), mask, share)


def _mask(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where `seen`, else the least number of the dtype."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)


def _dropout(part: Any, states: Tensor) -> Tensor:
    return functional.dropout(states, part.dropout, part.training)


@torch.no_grad()
def _initialise(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter, generator=generator)
        else:
            nn.init.constant_(parameter, 0.0 if name.endswith(".bias") else 1.0)
