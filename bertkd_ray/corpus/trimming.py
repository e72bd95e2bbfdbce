"""Vocabulary trimming: a smaller vocabulary, in which rare tokens are cut into shorter ones.

Small texts translate better with few types (arXiv 1905.11901); trimming is what arXiv 2404.00166 calls it for BPE. The
rarest token is dropped, its occurrences are cut by greedy longest match over what is left and over every shorter piece
of BERT's vocabulary, and so on until the vocabulary is small enough. Single characters are never dropped.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from functools import cache

from bertkd_ray.core.errors import UserError
from bertkd_ray.corpus.bert_tokenizer import CONTINUATION
from bertkd_ray.corpus.segmentation import WORD_START, Piece, Segmenter
from bertkd_ray.corpus.tokenizer import SPECIAL_TOKENS, VOCABULARY_MULTIPLE, Vocabulary, build_vocabulary, text_tokens


def trimmed(vocabulary: Vocabulary, max_tokens: int, segmenter: Segmenter) -> Vocabulary:
    """The vocabulary cut down to at most `max_tokens` tokens, special tokens and fillers included.

    segmenter: of the BERT that the vocabulary is of. The counts are those of former tokens that are each cut by itself;
    in the words of a text the longest match may cross their borders. Of equally rare tokens the longest is dropped
    first (ties: code points). Raises UserError where the single characters alone are more.
    """
    if len(vocabulary) <= max_tokens:
        return vocabulary
    trimming = _Trimming(vocabulary, segmenter)
    room = max_tokens // VOCABULARY_MULTIPLE * VOCABULARY_MULTIPLE - len(SPECIAL_TOKENS)
    if room < len(trimming.characters):
        least = len(SPECIAL_TOKENS) + len(trimming.characters)
        least += -least % VOCABULARY_MULTIPLE
        raise UserError(
            f"corpus.max_vocabulary: {max_tokens} tokens are too few for the text's characters at the start of a word "
            f"and within; give {least} or more, or null"
        )
    trimming.reduce(room)
    return build_vocabulary(
        {Piece(token, trimming.bert_ids[token]): count for token, count in trimming.counts.items() if count},
        {surface_of(token)[1] for token in trimming.characters},
        segmenter,
        lowercase=vocabulary.lowercase,
        dotted_i=vocabulary.dotted_i,
    )


def surface_of(token: str) -> tuple[str, str]:
    """The mark of a token (`▁`, `##` or nothing) and its surface."""
    mark = next((mark for mark in (WORD_START, CONTINUATION) if token.startswith(mark) and token != mark), "")
    return mark, token[len(mark) :]


class _Trimming:
    """Tokens of a text, each cut into those that have not been dropped yet."""

    def __init__(self, vocabulary: Vocabulary, segmenter: Segmenter) -> None:
        own = text_tokens(vocabulary.tokens)
        tokens, counts = vocabulary.tokens[own], vocabulary.counts[own].tolist()
        self.bert_ids: dict[str, int] = dict(zip(tokens, vocabulary.bert_ids[own].tolist(), strict=True))
        self.counts: Counter[str] = Counter(dict(zip(tokens, counts, strict=True)))
        self.characters = frozenset(token for token in tokens if len(surface_of(token)[1]) == 1)
        self._occurrences = {token: count for token, count in self.counts.items() if count}
        self._cuts = {token: [token] for token in self._occurrences}
        self._cut_with: defaultdict[str, set[str]] = defaultdict(set, {token: {token} for token in self._occurrences})
        self._dropped: set[str] = set()
        self._bert_vocabulary = segmenter.tokenizer.get_vocab(with_added_tokens=False)
        normalizer = segmenter.tokenizer.normalizer
        # BERT's normalisers take each character by itself.
        self._normal = cache(lambda text: normalizer.normalize_str(text).strip() if normalizer else text)

    def reduce(self, room: int) -> None:
        """Drops tokens until at most `room` are left, all characters among them."""
        live = {token for token in self._occurrences if token not in self.characters}
        rarest = [(self.counts[token], -len(token), token) for token in live]
        heapq.heapify(rarest)
        while len(live) + len(self.characters) > room:
            count, _, token = heapq.heappop(rarest)
            if token not in live or count != self.counts[token]:
                continue
            self._dropped.add(token)
            for changed in self._without(token) - self.characters:
                if count := self.counts[changed]:
                    live.add(changed)
                    heapq.heappush(rarest, (count, -len(changed), changed))
                else:
                    live.discard(changed)

    def _without(self, dropped: str) -> set[str]:
        """Cuts again what was cut with a token that is dropped; the tokens of which the count has changed."""
        changed: set[str] = set()
        for token in self._cut_with.pop(dropped):
            occurrences, before = self._occurrences[token], self._cuts[token]
            after = self._cuts[token] = self._longest_match(token)
            for part in before:
                self.counts[part] -= occurrences
                self._cut_with[part].discard(token)
            for part in after:
                self.counts[part] += occurrences
                self._cut_with[part].add(token)
            changed.update(before, after)
        return changed

    def _longest_match(self, token: str) -> list[str]:
        """WordPiece over the tokens that have not been dropped and the pieces of BERT that could be tokens."""
        mark, surface = surface_of(token)
        parts: list[str] = []
        start = 0
        while start < len(surface):
            ends = range(len(surface), start, -1)
            end = next(end for end in ends if self._is_kept(mark + surface[start:end]))
            parts.append(mark + surface[start:end])
            mark, start = CONTINUATION, end
        return parts

    def _is_kept(self, token: str) -> bool:
        if token in self._dropped:
            return False
        if token not in self.bert_ids:
            mark, surface = surface_of(token)
            normal = "".join(map(self._normal, surface))
            bert_id = self._bert_vocabulary.get(CONTINUATION + normal if mark == CONTINUATION else normal)
            if bert_id is None or not normal:
                return False
            self.bert_ids[token] = bert_id
        return True
