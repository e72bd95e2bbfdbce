"""MaxMatch-dropout (arXiv 2209.04126): source words are cut in another way each time they are read.

WordPiece takes the longest token that goes on with a word. Here every token that could go on is left out with a
probability, but for the shortest, and the longest of the others is taken. Only sources are cut anew: targets, and with
them the teacher's soft labels, stay.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bertkd_ray.core.keyed_random import keyed_uniform
from bertkd_ray.core.ragged import Ragged, offsets_of
from bertkd_ray.corpus.bert_tokenizer import CONTINUATION
from bertkd_ray.corpus.tokenizer import SPECIAL_TOKENS
from bertkd_ray.corpus.trimming import surface_of
from bertkd_ray.corpus.words import WordCache


class SubwordDropout:
    """Cuts the sources of a table anew, in an epoch's way: a function of seed, epoch and the pair's id alone."""

    def __init__(self, tokenizer: Tokenizer, probability: float, *, seed: int, max_tokens: int) -> None:
        """tokenizer: the student's; max_tokens: a sentence whose new cut is longer keeps the one it had."""
        ids = tokenizer.get_vocab()
        tokens = sorted(ids, key=ids.__getitem__)
        self._ids, self._longest = ids, max(map(len, tokens))
        self._continues = np.array([token.startswith(CONTINUATION) for token in tokens])
        # What a token gives to the text of a word: all of it at the start, further on without its mark.
        self._texts = pa.array([*tokens, *(token.removeprefix(CONTINUATION) for token in tokens)])
        # Of so many longest candidates all are left out.
        self._powers = np.cumprod(np.full(self._longest, probability))[::-1]
        self._seed, self._max_tokens = seed, max_tokens
        self._candidates_of = WordCache(self._candidates)

    def __call__(self, rows: pa.Table, epoch: int) -> pa.Table:
        """The rows with new `src_ids`. rows: `id` and `src_ids` among its columns, no `src_ids` empty."""
        src = Ragged.from_arrow(rows["src_ids"])
        segmented = self.segment(src, rows["id"].to_numpy(), epoch)
        position = rows.schema.get_field_index("src_ids")
        return rows.set_column(position, rows.schema.field(position), segmented.to_arrow(pa.int32()))

    def segment(self, src: Ragged, ids: NDArray[np.int64], epoch: int) -> Ragged:
        """Other tokens for the same text. src: n sentences as token ids, without BOS and EOS; ids: int64[n]."""
        if not len(src.values):
            return src
        starts = ~self._continues[src.values]
        starts[src.offsets[:-1][src.lengths > 0]] = True
        word_offsets = np.append(np.flatnonzero(starts), len(src.values))
        texts = self._texts.take(pa.array(src.values + np.where(starts, 0, len(self._continues))))
        words = pc.binary_join(pa.ListArray.from_arrays(pa.array(word_offsets, pa.int32()), texts), "")
        coded = words.dictionary_encode()
        candidates = self._candidates_of(coded.dictionary.to_pylist())
        # Words of sentence i are from offsets[i] on.
        offsets = np.searchsorted(word_offsets[:-1], src.offsets)
        pairs = np.repeat(ids, np.diff(offsets))
        of_words = self._sample(candidates, coded.indices.to_numpy(), offsets, pairs, epoch)
        segmented = Ragged(of_words.values, of_words.offsets[offsets])
        kept = segmented.lengths > self._max_tokens
        rows = np.arange(len(src)) + np.where(kept, 0, len(src))
        both = np.concatenate([src.values, segmented.values])
        return Ragged(both, np.concatenate([src.offsets, src.offsets[-1] + segmented.offsets[1:]])).take(rows)

    def _sample(
        self,
        candidates: Ragged,
        kinds: NDArray[np.integer],
        offsets: NDArray[np.int64],
        pairs: NDArray[np.int64],
        epoch: int,
    ) -> Ragged:
        """The tokens of W words, each step that of all unfinished words at once.

        kinds: integers [W], each word's row among the candidates; offsets: int64[n + 1], where sentences begin; pairs:
        int64[W], the pair's id. A number is drawn for the letter of the sentence at which a token begins.
        """
        tables, base = candidates.values, candidates.offsets[:-1][kinds]
        letters = tables[base].astype(np.int64)
        ends = offsets_of(letters)
        index = ends[:-1] - np.repeat(ends[offsets[:-1]], np.diff(offsets))
        position, active = np.zeros(len(kinds), np.int64), np.arange(len(kinds))
        words: list[NDArray[np.int64]] = []
        tokens: list[NDArray[np.integer]] = []
        while len(active):
            row, at = base[active], position[active]
            first, end = tables[row + 1 + at], tables[row + 2 + at]
            drawn = keyed_uniform(self._seed, epoch, pairs[active], index[active] + at)
            left_out = len(self._powers) - np.searchsorted(self._powers, drawn, side="right")
            chosen = row + letters[active] + 2 + 2 * (first + np.minimum(left_out, end - first - 1))
            words.append(active)
            tokens.append(tables[chosen])
            position[active] += tables[chosen + 1]
            active = active[position[active] < letters[active]]
        of_word = np.concatenate(words)
        order = np.argsort(of_word, kind="stable")
        return Ragged(np.concatenate(tokens)[order], offsets_of(np.bincount(of_word, minlength=len(kinds))))

    def _candidates(self, words: Sequence[str]) -> Ragged:
        """For every word with L letters: L; int[L + 1], where the candidates of each letter begin; their ids and
        lengths in letters, the longest of a letter first."""
        return Ragged.from_lists([self._candidates_in(word) for word in words])

    def _candidates_in(self, word: str) -> list[int]:
        if word in SPECIAL_TOKENS:
            return [1, 0, 1, self._ids[word], 1]
        mark, surface = surface_of(word)
        starts, flat = [0], []
        for start in range(len(surface)):
            for end in range(min(len(surface), start + self._longest), start, -1):
                token_id = self._ids.get((CONTINUATION if start else mark) + surface[start:end])
                if token_id is not None:
                    flat += [token_id, end - start]
            starts.append(len(flat) // 2)
        return [len(surface), *starts, *flat]
