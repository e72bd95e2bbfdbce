"""The models' sizes, from configurations alone: nothing is loaded."""

from dataclasses import dataclass

from bertkd_ray.config.sections import StudentConfig, TeacherConfig
from bertkd_ray.core.errors import UserError
from bertkd_ray.plan.operations import StudentSize, TeacherSize
from bertkd_ray.teacher.source import bert_config, resolve_model


@dataclass(frozen=True)
class TeacherShape(TeacherSize):
    """A BERT with the student's vocabulary behind it."""

    pieces: int
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


def teacher_shape(teacher: TeacherConfig, vocabulary: int) -> TeacherShape:
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
    return TeacherShape(teacher.layers or layers, width, ffn, vocabulary, pieces, positions)


def student_size(student: StudentConfig, vocabulary: int) -> StudentSize:
    """The student of a configuration."""
    return StudentSize(student.encoder_layers, student.decoder_layers, student.width, student.ffn, vocabulary)
