"""Engines that translate token ids: a student or a teacher in PyTorch, or an export in CTranslate2, behind one call.

All search with the same beam and rank what they find by the same GNMT length penalty (`beam_search.length_penalty`).
CTranslate2 has no such penalty: its own divides by length^exponent. So it is asked for as many hypotheses as the beam
holds, with their plain sums of log-probabilities, and these are ranked here. It ends a search later, when so many
hypotheses are complete, and fills the place of a complete one at once: it finds what `beam_search` finds, and at times
something better. Its own default of at least one token a translation, which leaves none empty, is lifted.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from bertkd_ray.core.devices import resolve_precision
from bertkd_ray.core.errors import ReportedError, UserError, one_line, unreadable_as_user_error
from bertkd_ray.core.padding import longest_first_batches
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.corpus.tokenizer import BOS_TOKEN, EOS_TOKEN, PAD_TOKEN, load_tokenizer
from bertkd_ray.decoding.batches import length_limits
from bertkd_ray.decoding.beam_search import length_penalty
from bertkd_ray.decoding.seq2seq import translate_ids
from bertkd_ray.student.saved_model import load_student
from bertkd_ray.teacher.decoding import translate_ids as translate_with_teacher
from bertkd_ray.teacher.masking import BertSpecials
from bertkd_ray.teacher.model import ConditionalMaskedLM
from bertkd_ray.translation.lines import LineSettings

BATCH_TOKENS, GPU_BATCH_TOKENS = 8_192, 131_072
"""Padded source tokens times beam in a batch. A GPU takes as long for a step of a few sentences as of a thousand."""
CT2_MODEL = "model.bin"
_NEVER = [[PAD_TOKEN], [BOS_TOKEN]]


class TorchEngine:
    """A student in PyTorch: a `save_pretrained` directory."""

    def __init__(
        self,
        directory: Path,
        settings: LineSettings,
        device: torch.device,
        precision: Literal["auto", "bf16", "float32"] = "float32",
    ) -> None:
        self._model = load_student(directory, device)
        self._settings, self._device = settings, device
        self._precision = resolve_precision(precision, device)

    def translate(self, src: Ragged) -> list[list[int]]:
        nbest = translate_ids(
            self._model,
            src,
            beam=self._settings.beam,
            alpha=self._settings.length_penalty,
            batch_tokens=BATCH_TOKENS if self._device.type == "cpu" else GPU_BATCH_TOKENS,
            precision=self._precision,
        )
        return [hypotheses[0].ids for hypotheses in nbest]


class TeacherEngine:
    """A left-to-right teacher in PyTorch."""

    def __init__(
        self, model: ConditionalMaskedLM, bert_ids: NDArray[np.integer], specials: BertSpecials, settings: LineSettings
    ) -> None:
        """model: on the device to compute on. bert_ids: integers [V], the BERT id behind each token."""
        self._translate = partial(translate_with_teacher, model, bert_ids, specials)
        self._settings, self._device = settings, model.device

    def translate(self, src: Ragged) -> list[list[int]]:
        nbest = self._translate(
            src,
            beam=self._settings.beam,
            alpha=self._settings.length_penalty,
            batch_tokens=BATCH_TOKENS if self._device.type == "cpu" else GPU_BATCH_TOKENS,
            precision=resolve_precision(self._settings.precision, self._device),
        )
        return [hypotheses[0].ids for hypotheses in nbest]


class CTranslate2Engine:
    """An export in CTranslate2: a directory that its converter wrote, with the student's `tokenizer.json`."""

    def __init__(
        self, directory: Path, settings: LineSettings, device: torch.device, *, own_penalty: bool = False
    ) -> None:
        """own_penalty: rank by CTranslate2's penalty, as `translate_batch` does."""
        self._settings, self._own_penalty = settings, own_penalty
        threads, ctranslate2 = torch.get_num_threads(), require_ctranslate2()
        with unreadable_as_user_error(directory):
            load = partial(ctranslate2.Translator, str(directory), intra_threads=threads)
            try:
                self._translator = load(device=device.type, device_index=device.index or 0)
            except RuntimeError as error:
                load(device="cpu")  # raises too where the files are at fault
                raise ReportedError(
                    f"--device {device}: {one_line(error)}; free the GPU, or give --device cpu"
                ) from error
        tokenizer = load_tokenizer(directory)
        self._tokens = np.array([tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())], dtype=object)
        self._ids = {token: i for i, token in enumerate(self._tokens.tolist())}
        self.compute_type = str(self._translator.compute_type)
        """The number format that CTranslate2 computes with on this device, which may not be those that were saved."""

    def translate(self, src: Ragged) -> list[list[int]]:
        results: list[list[int]] = [[] for _ in range(len(src))]
        rows = np.flatnonzero(src.lengths)
        for batch in longest_first_batches(src.lengths[rows] + 1, BATCH_TOKENS // self._settings.beam):
            chosen = rows[batch]
            sources = [[*self._tokens[src.row(row)], EOS_TOKEN] for row in chosen]
            limits = length_limits(src.lengths[chosen], self._settings.positions)
            translations = self._search(sources, int(limits.max()))
            for row, tokens, limit in zip(chosen.tolist(), translations, limits.tolist(), strict=True):
                # CTranslate2 has one limit a batch; what never ends would be longer in longer company.
                results[row] = [self._ids[token] for token in tokens[:limit]]
        return results

    def _search(self, sources: list[list[str]], limit: int) -> list[Sequence[str]]:
        beam = self._settings.beam
        reranked = beam > 1 and not self._own_penalty
        results = self._translator.translate_batch(
            sources,
            beam_size=beam,
            num_hypotheses=beam if reranked else 1,
            length_penalty=0 if reranked else self._settings.length_penalty,
            min_decoding_length=1 if self._own_penalty else 0,
            max_decoding_length=limit,
            max_input_length=0,
            suppress_sequences=_NEVER,
            return_scores=reranked,
        )
        return [self._best(result) if reranked else result.hypotheses[0] for result in results]

    def _best(self, result: Any) -> Sequence[str]:
        """Best hypothesis by the GNMT penalty, whose lengths count `</s>` and the start symbol."""
        ranks = [
            score / length_penalty(len(tokens) + 2.0, self._settings.length_penalty)
            for tokens, score in zip(result.hypotheses, result.scores, strict=True)
        ]
        return list(result.hypotheses[int(np.argmax(ranks))])


def require_ctranslate2() -> Any:
    """The `ctranslate2` module. Raises UserError where it is not installed."""
    try:
        import ctranslate2
    except ModuleNotFoundError:
        raise UserError("ctranslate2 is not installed; in the checkout: pip install '.[export]'") from None
    return ctranslate2
