"""Matrix operations of teacher and student, from lengths and sizes alone; a multiplication with its addition is two.

Counted are the linear layers, the two products of attention, and the output layer. Not counted are embeddings,
LayerNorm, softmax, activations and the optimizer, which are passes over memory rather than products. A causal mask
saves nothing: products above the diagonal are computed and thrown away.

With H the width, F the inner size, V the output's tokens, L tokens of a padded row, a linear layer from a to b numbers
takes 2ab a token, so that a layer of an encoder takes 8H² + 4HF a token (four projections, two feed-forward layers) and
4LH a token for attention (scores and their sum).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

TRAINING = 3
"""Forward passes that a forward and a backward pass take: backwards, a product of two matrices becomes two, one for the
gradient of each factor. Fused attention computes its scores again in the backward pass; that is not counted."""


class Operations(NamedTuple):
    """What is computed for a padded batch, and the part of it that is not for padding."""

    computed: float
    useful: float


@dataclass(frozen=True)
class TeacherSize:
    """A BERT with an output layer over V tokens of its own."""

    layers: int
    width: int
    ffn: int
    vocabulary: int
    pieces: int = 0
    """Rows of BERT's own embedding."""
    positions: int = 512

    @property
    def parameters(self) -> int:
        """Parameters of encoder, transform and output layer, biases and LayerNorms included."""
        h, f = self.width, self.ffn
        embeddings = (self.pieces + self.positions + 2) * h + 2 * h
        layer = 4 * (h * h + h) + 2 * h * f + f + h + 4 * h
        transform = h * h + 3 * h
        return embeddings + self.layers * layer + transform + self.vocabulary * (h + 1)

    @property
    def trained_parameters(self) -> int:
        """Those that a training has: of the embedding the rows alone that tokens have, or BERT's own four."""
        return self.parameters - max(0, self.pieces - self.vocabulary - 4) * self.width


@dataclass(frozen=True)
class StudentSize:
    """A Transformer with encoder and decoder, and one embedding of V tokens for both sides and the output."""

    encoder_layers: int
    decoder_layers: int
    width: int
    ffn: int
    vocabulary: int

    @property
    def parameters(self) -> int:
        """Parameters, biases and LayerNorms included; positions are computed, not learned."""
        d, f = self.width, self.ffn
        attention, feed_forward, norm = 4 * (d * d + d), 2 * d * f + f + d, 2 * d
        encoder = self.encoder_layers * (attention + feed_forward + 2 * norm)
        decoder = self.decoder_layers * (2 * attention + feed_forward + 3 * norm)
        return self.vocabulary * d + encoder + decoder + 2 * norm

    @property
    def trained_parameters(self) -> int:
        """All of them."""
        return self.parameters

    @property
    def layers(self) -> int:
        """Those of encoder and decoder."""
        return self.encoder_layers + self.decoder_layers


def teacher_forward(
    size: TeacherSize, lengths_N: NDArray[np.integer], width: int, masked_N: NDArray[np.integer] | NDArray[np.floating]
) -> Operations:
    """A forward pass of the teacher over N rows padded to L = `width` tokens, with M masked positions in all.

    lengths_N: tokens of each row, its special tokens included; masked_N: masked positions of each row, which may
    be expected numbers. All layers but the last take L · (8H² + 4HF + 4LH) a row. The last makes keys and values of all
    tokens (4H² each), everything else for the masked positions: 4H² + 4HF each, and 4LH each for attention, where rows
    are padded to the Q masked positions of the fullest. Then the transform, 2H², and the output layer, 2HV, for each
    masked position.
    """
    h, f = size.width, size.ffn
    each = float(masked_N.sum()) * (4 * h * h + 4 * h * f + 2 * h * h + 2 * h * size.vocabulary)

    def count(tokens_N: NDArray[np.float64], queries_N: NDArray[np.float64]) -> float:
        keys, attention = 4 * h * h * tokens_N, 4 * h * queries_N * tokens_N
        return float(((size.layers - 1) * _layer(tokens_N, h, f) + keys + attention).sum()) + each

    return _operations(count, (lengths_N, width), (masked_N, masked_N.max(initial=0)))


def student_forward(
    size: StudentSize,
    src_N: NDArray[np.integer],
    tgt_N: NDArray[np.integer],
    src_width: int,
    tgt_width: int,
    *,
    rows: tuple[int, int] | None = None,
) -> Operations:
    """A forward pass of the student over N pairs whose attention is padded to S = `src_width`, T = `tgt_width` tokens.

    src_N, tgt_N: tokens of each side with its one `</s>` (or `<s>`). Attention takes 4H for every query and key: a
    sequence's SS in an encoder's layer, its TT and TS in a decoder's. All else is computed for tokens alone, or for
    `rows` of either side (None: a row a token): in the encoder 8H² + 4HF a layer; in the decoder 12H² + 4HF, and 4H² a
    source row for the keys and values of cross-attention. The output layer takes 2HV a target token.
    """
    h, f = size.width, size.ffn
    tokens = int(src_N.sum()), int(tgt_N.sum())

    def linear(src: int, tgt: int) -> int:
        decoder = tgt * (12 * h * h + 4 * h * f) + 4 * h * h * src
        return size.encoder_layers * src * (8 * h * h + 4 * h * f) + size.decoder_layers * decoder

    def attention(src_N: NDArray[np.float64], tgt_N: NDArray[np.float64]) -> float:
        return 4.0 * h * float((size.encoder_layers * src_N**2 + size.decoder_layers * tgt_N * (tgt_N + src_N)).sum())

    padded, useful = _operations(attention, (src_N, src_width), (tgt_N, tgt_width))
    output = 2.0 * h * size.vocabulary * tokens[1]
    return Operations(padded + linear(*(rows or tokens)) + output, useful + linear(*tokens) + output)


def beam_search(size: StudentSize, src_N: NDArray[np.integer], tgt_N: NDArray[np.integer], beam: int) -> float:
    """Translating N sentences by beam search with kept keys and values, without padding and finished beams.

    src_N, tgt_N: tokens with `</s>`. The encoder and the keys and values of cross-attention once a sentence. The rest
    of the decoder and the output layer once for the first token, which all beams share, and `beam` times for each of
    the others; for token i of T self-attention has i keys, cross-attention S.
    """
    h, layers = size.width, size.decoder_layers
    src, tgt = src_N.astype(np.float64), tgt_N.astype(np.float64)
    encoder = size.encoder_layers * float(_layer(src, h, size.ffn).sum())
    cross_keys = layers * 4 * h * h * float(src.sum())
    rows_N = 1 + beam * (tgt - 1)
    own_keys_N = 1 + beam * (tgt * (tgt + 1) / 2 - 1)
    row_N = layers * (12 * h * h + 4 * h * size.ffn + 4 * h * src) + 2 * h * size.vocabulary
    return encoder + cross_keys + float((rows_N * row_N + layers * 4 * h * own_keys_N).sum())


def teacher_beam_search(size: TeacherSize, src_N: NDArray[np.integer], tgt_N: NDArray[np.integer], beam: int) -> float:
    """Translating N sentences by beam search with a left-to-right teacher, without padding and finished beams.

    src_N: tokens of `[CLS] src [SEP]`; tgt_N: tokens with `</s>`. The source is read once, in the last layer for its
    keys and values and for `[SEP]`, which predicts the first token of all beams. Then every token but `</s>` is read
    `beam` times; token i has S keys of the source and i of the target, its own among them. Transform and output layer
    once for `[SEP]` and for each token read.
    """
    h, f, layers = size.width, size.ffn, size.layers
    src, tgt = src_N.astype(np.float64), tgt_N.astype(np.float64)
    read_N, own_keys_N = beam * (tgt - 1), beam * tgt * (tgt - 1) / 2
    source_N = (layers - 1) * _layer(src, h, f) + 4 * h * h * (src + 1) + 4 * h * f + 4 * h * src
    target_N = layers * (read_N * (8 * h * h + 4 * h * f + 4 * h * src) + 4 * h * own_keys_N)
    return float((source_N + target_N + (1 + read_N) * (2 * h * h + 2 * h * size.vocabulary)).sum())


def _layer(tokens_N: NDArray[np.float64], h: int, f: int) -> NDArray[np.float64]:
    """Self-attention and feed-forward part of one layer, by row."""
    return tokens_N * (8 * h * h + 4 * h * f + 4 * h * tokens_N)


def _operations(count: Callable[..., float], *sides: tuple[NDArray[Any], float]) -> Operations:
    """The count for rows padded to the width of each side, and for the rows as they are."""
    padded = [np.full(len(lengths_N), float(width)) for lengths_N, width in sides]
    return Operations(count(*padded), count(*(lengths_N.astype(np.float64) for lengths_N, _ in sides)))
