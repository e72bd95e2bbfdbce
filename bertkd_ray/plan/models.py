"""The models' sizes, from configurations alone: nothing is loaded."""

from bertkd_ray.config.sections import StudentConfig, TeacherConfig
from bertkd_ray.core.errors import UserError
from bertkd_ray.plan.operations import StudentSize, TeacherSize
from bertkd_ray.teacher.source import bert_config, resolve_model

# (layers, width, inner size, pieces) of checkpoints on the hub.
_KNOWN = {
    "bert-base-multilingual-cased": (12, 768, 3072, 119_547),
    "bert-base-multilingual-uncased": (12, 768, 3072, 105_879),
    "bert-base-cased": (12, 768, 3072, 28_996),
    "bert-base-uncased": (12, 768, 3072, 30_522),
    "bert-large-cased": (24, 1024, 4096, 28_996),
    "bert-large-uncased": (24, 1024, 4096, 30_522),
    "distilbert-base-multilingual-cased": (6, 768, 3072, 119_547),
}


def teacher_size(teacher: TeacherConfig, vocabulary: int) -> TeacherSize:
    """The teacher of a configuration; a well-known hub id is not fetched.

    Raises UserError for a BERT that cannot be had, and for more layers than it has.
    """
    positions, known = 512, _KNOWN.get(teacher.model.removeprefix("google-bert/"))
    if known is None:
        bert = bert_config(resolve_model(teacher.model))
        known = bert["num_hidden_layers"], bert["hidden_size"], bert["intermediate_size"], bert["vocab_size"]
        positions = bert["max_position_embeddings"]
    layers, width, ffn, pieces = known
    if teacher.layers is not None and teacher.layers > layers:
        raise UserError(f"teacher.layers: {teacher.layers}, but {teacher.model} has {layers}")
    return TeacherSize(teacher.layers or layers, width, ffn, vocabulary, pieces, positions)


def student_size(student: StudentConfig, vocabulary: int) -> StudentSize:
    """The student of a configuration."""
    return StudentSize(student.encoder_layers, student.decoder_layers, student.width, student.ffn, vocabulary)
