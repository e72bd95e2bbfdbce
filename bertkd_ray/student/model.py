"""The student: an ordinary `transformers` encoder-decoder with the shape of OpenNMT's Transformer."""

from typing import Literal

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, M2M100Config, M2M100ForConditionalGeneration

from bertkd_ray.config.sections import StudentConfig
from bertkd_ray.corpus.tokenizer import BOS_ID, EOS_ID, PAD_ID
from bertkd_ray.student.collate import StudentBatch

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

    Scores are this times `model.get_output_embeddings().weight` transposed; padding is never projected.
    No mask is needed in the decoder: padding stands at the right end, where causal attention does not see it.
    """
    outputs = model.model(
        input_ids=batch.src_ids_NS,
        attention_mask=batch.src_mask_NS,
        decoder_input_ids=batch.decoder_input_ids_NT,
        use_cache=False,
    )
    hidden_PD: Tensor = outputs.last_hidden_state.flatten(0, 1).index_select(0, batch.target_index_P)
    return hidden_PD


@torch.no_grad()
def _initialise(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter, generator=generator)
        else:
            nn.init.constant_(parameter, 0.0 if name.endswith(".bias") else 1.0)
