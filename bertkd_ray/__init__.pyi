"""The public names, each imported from its own module."""

from bertkd_ray.artifacts.artifact import Artifact as Artifact
from bertkd_ray.config import Config as Config
from bertkd_ray.config import load_config as load_config
from bertkd_ray.config.study import Study as Study
from bertkd_ray.config.study import load_study as load_study
from bertkd_ray.core.errors import UserError as UserError
from bertkd_ray.core.ragged import Ragged as Ragged
from bertkd_ray.corpus.demo import demo_pairs as demo_pairs
from bertkd_ray.corpus.tokenizer import decode as decode
from bertkd_ray.corpus.tokenizer import encode as encode
from bertkd_ray.corpus.tokenizer import load_bert_ids as load_bert_ids
from bertkd_ray.corpus.tokenizer import load_tokenizer as load_tokenizer
from bertkd_ray.decoding.beam_search import beam_search as beam_search
from bertkd_ray.decoding.seq2seq import translate_ids as translate_ids
from bertkd_ray.evaluation.metrics import corpus_bleu as corpus_bleu
from bertkd_ray.evaluation.metrics import score as score
from bertkd_ray.pipeline.pipeline import Pipeline as Pipeline
from bertkd_ray.pipeline.study import StudyRunner as StudyRunner
from bertkd_ray.report.comparison import compare_students as compare_students
from bertkd_ray.report.comparison_text import comparison_text as comparison_text
from bertkd_ray.softlabels.fidelity import fidelity as fidelity
from bertkd_ray.softlabels.scoring import Scorer as Scorer
from bertkd_ray.softlabels.shards import decode_labels as decode_labels
from bertkd_ray.student.collate import collate as collate
from bertkd_ray.student.loss import fused_kd_loss as fused_kd_loss
from bertkd_ray.student.loss import kd_loss as kd_loss
from bertkd_ray.student.model import build_student as build_student
from bertkd_ray.student.model import decoder_hidden as decoder_hidden
from bertkd_ray.teacher.masking import cmlm_batch as cmlm_batch
from bertkd_ray.teacher.masking import expand_passes as expand_passes
from bertkd_ray.teacher.masking import random_masks as random_masks
from bertkd_ray.teacher.model import build_teacher as build_teacher
from bertkd_ray.teacher.model import load_teacher as load_teacher
from bertkd_ray.teacher.source import bert_specials as bert_specials
from bertkd_ray.teacher.source import resolve_model as resolve_model
from bertkd_ray.translation.export import export_student as export_student
from bertkd_ray.translation.models import open_translator as open_translator
from bertkd_ray.translation.models import translate as translate
from bertkd_ray.translation.translate import read_translations as read_translations

__version__: str
