from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig

from bertkd_ray.config.sections import StudentConfig
from bertkd_ray.core.padding import packed_rows
from bertkd_ray.core.ragged import Ragged
from bertkd_ray.decoding import beam_search as beams
from bertkd_ray.decoding.attention import shared_keys
from bertkd_ray.decoding.seq2seq import Seq2SeqStep
from bertkd_ray.plan.operations import (
    TRAINING,
    StudentSize,
    TeacherSize,
    beam_search,
    student_forward,
    teacher_beam_search,
    teacher_forward,
)
from bertkd_ray.student.collate import StudentBatch, collate
from bertkd_ray.student.loss import fused_kd_loss
from bertkd_ray.student.model import build_student, decoder_hidden
from bertkd_ray.teacher.decoding import TeacherStep
from bertkd_ray.teacher.masking import BertSpecials, cmlm_batch
from bertkd_ray.teacher.model import ConditionalMaskedLM
from bertkd_ray.teacher.task import MaskedLoss, TeacherBatch

SRC, TGT = np.array([5, 9, 3]), np.array([4, 2, 11])
VOCABULARY = 50
TEACHER = TeacherSize(layers=3, width=32, ffn=48, vocabulary=VOCABULARY)
STUDENT = StudentSize(encoder_layers=2, decoder_layers=3, width=32, ffn=48, vocabulary=VOCABULARY)


def sides() -> tuple[Ragged, Ragged]:
    src, tgt = ([[4 + place for place in range(length)] for length in lengths.tolist()] for lengths in (SRC, TGT))
    return Ragged.from_lists(src), Ragged.from_lists(tgt)


def teacher_batch() -> tuple[TeacherBatch, np.ndarray]:
    """A batch in which each row has another number of masked positions, and these numbers."""
    mask = np.concatenate([np.arange(length + 1) % 2 == 0 for length in TGT.tolist()])
    batch = cmlm_batch(*sides(), mask, np.arange(VOCABULARY), BertSpecials(0, 1, 2, 3))
    return TeacherBatch.of(batch), (TGT + 2) // 2


def teacher() -> ConditionalMaskedLM:
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=TEACHER.width,
        num_hidden_layers=TEACHER.layers,
        num_attention_heads=2,
        intermediate_size=TEACHER.ffn,
        max_position_embeddings=32,
    )
    config.target_vocab_size, config.direction = VOCABULARY, "both"
    return ConditionalMaskedLM._from_config(config, attn_implementation="eager")


def student():
    return build_student(
        StudentConfig(
            encoder_layers=STUDENT.encoder_layers,
            decoder_layers=STUDENT.decoder_layers,
            width=STUDENT.width,
            ffn=STUDENT.ffn,
            heads=2,
            dropout=0.0,
            attention_dropout=0.0,
            activation_dropout=0.0,
        ),
        vocab_size=VOCABULARY,
        max_positions=64,
        seed=1,
    )


def counted(work) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def test_a_teachers_forward_pass_has_the_products_that_torch_counts():
    batch, masked = teacher_batch()
    model = teacher()
    found = teacher_forward(TEACHER, SRC + TGT + 3, batch.input_ids.shape[1], masked)
    with torch.no_grad():
        inputs = batch.input_ids, batch.token_type_ids, batch.attention_mask, batch.masked_index
        assert found.computed == counted(lambda: model.logits(model(*inputs)))
    assert batch.input_ids.shape == (3, 24)


def test_a_teachers_training_step_has_three_times_as_many():
    batch, masked = teacher_batch()
    model = teacher()
    tensors = batch.input_ids, batch.token_type_ids, batch.attention_mask, batch.masked_index, batch.labels
    found = teacher_forward(TEACHER, SRC + TGT + 3, batch.input_ids.shape[1], masked)
    assert TRAINING * found.computed == counted(lambda: MaskedLoss(model)(TeacherBatch(*tensors))[0].backward())


def batch_shape(batch: StudentBatch) -> tuple[int, int]:
    return batch.src_ids_NS.shape[1], batch.decoder_input_ids_NT.shape[1]


ROWS = packed_rows(int((SRC + 1).sum())), packed_rows(int((TGT + 1).sum()))


def test_a_students_forward_pass_has_the_products_that_torch_counts():
    batch = collate(*sides())
    model = student()
    found = student_forward(STUDENT, SRC + 1, TGT + 1, *batch_shape(batch), rows=ROWS)
    weight = model.get_output_embeddings().weight
    with torch.no_grad():
        assert found.computed == counted(lambda: decoder_hidden(model, batch) @ weight.T)


def test_a_students_training_step_has_three_times_as_many_with_the_fused_loss():
    batch = collate(*sides())
    model = student()
    weight = model.get_output_embeddings().weight
    found = student_forward(STUDENT, SRC + 1, TGT + 1, *batch_shape(batch), rows=ROWS)

    def step() -> None:
        # In float32 the weight's gradient is an `addmm_`, which torch's counter does not know.
        hidden_PD = decoder_hidden(model, batch)
        loss = fused_kd_loss(hidden_PD, weight, batch.targets_P, alpha=0.0, matmul_dtype=torch.bfloat16).loss
        loss.backward()

    assert TRAINING * found.computed == counted(step)


@pytest.mark.parametrize("pair", [0, 1, 2])
def test_what_is_useful_of_a_pair_is_what_it_takes_alone(pair):
    one = slice(pair, pair + 1)
    masked = np.array([2])
    places = SRC + TGT + 3
    padded = teacher_forward(TEACHER, places[one], 24, masked)
    alone = teacher_forward(TEACHER, places[one], int(places[pair]), masked)
    assert padded.useful == alone.useful == alone.computed < padded.computed
    padded = student_forward(STUDENT, SRC[one] + 1, TGT[one] + 1, 16, 16)
    alone = student_forward(STUDENT, SRC[one] + 1, TGT[one] + 1, int(SRC[pair]) + 1, int(TGT[pair]) + 1)
    assert padded.useful == pytest.approx(alone.useful)
    assert alone.useful == pytest.approx(alone.computed)
    assert alone.computed < padded.computed


def test_what_is_useful_of_a_batch_is_what_its_rows_take_alone():
    masked = np.array([1, 2, 4])
    places = SRC + TGT + 3
    together = teacher_forward(TEACHER, places, 24, masked).useful
    alone = [teacher_forward(TEACHER, places[i : i + 1], 24, masked[i : i + 1]).useful for i in range(3)]
    assert together == pytest.approx(sum(alone))
    together = student_forward(STUDENT, SRC, TGT, 16, 16).useful
    assert together == pytest.approx(sum(student_forward(STUDENT, SRC[[i]], TGT[[i]], 16, 16).useful for i in range(3)))


def test_a_beam_search_by_hand():
    d, f = STUDENT.width, STUDENT.ffn
    # Encoder: four tokens. Decoder: two steps, which see one and two tokens of their own, all four of the source.
    encoder = 2 * 4 * (8 * d * d + 4 * d * f + 4 * 4 * d) + 3 * 4 * 4 * d * d
    first, second = (3 * (12 * d * d + 4 * d * f + 4 * d * (4 + own)) + 2 * d * VOCABULARY for own in (1, 2))
    assert beam_search(STUDENT, np.array([4]), np.array([2]), 1) == encoder + first + second
    assert beam_search(STUDENT, np.array([4]), np.array([2]), 5) == encoder + first + 5 * second


@pytest.mark.parametrize("beam", [1, 2, 5])
def test_a_teachers_beam_search_has_the_products_that_torch_counts(beam):
    model, length = teacher().eval(), 6
    frame = torch.full((3, 8), 4)

    def search() -> None:
        with torch.no_grad():
            step = TeacherStep(model, torch.arange(VOCABULARY) % 7, frame, torch.ones_like(frame, dtype=torch.bool))
            tokens = {"bos": 2, "eos": 3, "pad": 0}
            beams.beam_search(step, batch=3, beam=beam, max_length=length, min_length=length, **tokens)

    assert teacher_beam_search(TEACHER, np.array([8] * 3), np.array([length] * 3), beam) == counted(search)


@pytest.mark.parametrize("beam", [1, 2, 5])
def test_a_beam_search_has_the_products_that_torch_counts(beam):
    model, length = student().eval(), 6
    source = torch.full((3, 8), 4)

    def search() -> None:
        with torch.no_grad(), shared_keys(model):
            step = Seq2SeqStep(model, source, torch.ones_like(source, dtype=torch.bool))
            tokens = {"bos": 2, "eos": 2, "pad": 0}
            found = beams.beam_search(step, batch=3, beam=beam, max_length=length, min_length=length, **tokens)
            assert [len(hypotheses[0].tokens) for hypotheses in found] == [length] * 3

    assert beam_search(STUDENT, np.array([8] * 3), np.array([length] * 3), beam) == counted(search)
