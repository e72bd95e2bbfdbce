"""Distil a pretrained BERT into a small, fast translation model, distributed with Ray.

Everything that a Python program or a notebook needs is a name of this module. A name's own module is imported when the
name is first used, so that `import bertkd_ray` takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bertkd_ray.artifacts.artifact import Artifact as Artifact
    from bertkd_ray.config import Config as Config, load_config as load_config
    from bertkd_ray.config.study import Study as Study, load_study as load_study
    from bertkd_ray.core.errors import UserError as UserError
    from bertkd_ray.core.ragged import Ragged as Ragged
    from bertkd_ray.corpus.demo import demo_pairs as demo_pairs
    from bertkd_ray.corpus.tokenizer import (
        decode as decode,
        encode as encode,
        load_bert_ids as load_bert_ids,
        load_tokenizer as load_tokenizer,
    )
    from bertkd_ray.decoding.beam_search import beam_search as beam_search
    from bertkd_ray.decoding.seq2seq import translate_ids as translate_ids
    from bertkd_ray.evaluation.metrics import corpus_bleu as corpus_bleu, score as score
    from bertkd_ray.pipeline.pipeline import Pipeline as Pipeline
    from bertkd_ray.pipeline.study import StudyRunner as StudyRunner
    from bertkd_ray.report.comparison import compare_students as compare_students
    from bertkd_ray.report.comparison_text import comparison_text as comparison_text
    from bertkd_ray.softlabels.fidelity import fidelity as fidelity
    from bertkd_ray.softlabels.scoring import Scorer as Scorer
    from bertkd_ray.softlabels.shards import decode_labels as decode_labels
    from bertkd_ray.student.collate import collate as collate
    from bertkd_ray.student.loss import fused_kd_loss as fused_kd_loss, kd_loss as kd_loss
    from bertkd_ray.student.model import build_student as build_student, decoder_hidden as decoder_hidden
    from bertkd_ray.teacher.masking import (
        cmlm_batch as cmlm_batch,
        expand_passes as expand_passes,
        random_masks as random_masks,
    )
    from bertkd_ray.teacher.model import build_teacher as build_teacher, load_teacher as load_teacher
    from bertkd_ray.teacher.source import bert_specials as bert_specials, resolve_model as resolve_model
    from bertkd_ray.translation.export import export_student as export_student
    from bertkd_ray.translation.models import open_translator as open_translator, translate as translate
    from bertkd_ray.translation.translate import read_translations as read_translations

__version__ = "0.1.0"
_MODULES = {
    "artifacts.artifact": "Artifact",
    "config": "Config load_config",
    "config.study": "Study load_study",
    "core.errors": "UserError",
    "core.ragged": "Ragged",
    "corpus.demo": "demo_pairs",
    "corpus.tokenizer": "decode encode load_bert_ids load_tokenizer",
    "decoding.beam_search": "beam_search",
    "decoding.seq2seq": "translate_ids",
    "evaluation.metrics": "corpus_bleu score",
    "pipeline.pipeline": "Pipeline",
    "pipeline.study": "StudyRunner",
    "report.comparison": "compare_students",
    "report.comparison_text": "comparison_text",
    "softlabels.fidelity": "fidelity",
    "softlabels.scoring": "Scorer",
    "softlabels.shards": "decode_labels",
    "student.collate": "collate",
    "student.loss": "fused_kd_loss kd_loss",
    "student.model": "build_student decoder_hidden",
    "teacher.masking": "cmlm_batch expand_passes random_masks",
    "teacher.model": "build_teacher load_teacher",
    "teacher.source": "bert_specials resolve_model",
    "translation.export": "export_student",
    "translation.models": "open_translator translate",
    "translation.translate": "read_translations",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}


if not TYPE_CHECKING:  # which has the names above, and would take every attribute for one that there is
    __all__ = sorted(_HOMES)

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
