"""The configuration: shipped files, defaults, arms, and that every key is documented."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from bertkd_ray.config import Config, load_config
from bertkd_ray.config.section import Section
from bertkd_ray.config.study import StudyConfig
from bertkd_ray.core.errors import UserError
from tests.config.conftest import DEMO

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_file_loads(path):
    config = load_config(path)
    assert config.name == path.stem or path.stem == "ablations"
    assert any(arm.kd.alpha == 0 for arm in config.arm_configs().values()), "without a control nothing is compared"


def test_the_files_that_the_readme_names_are_there():
    assert {"demo", "multi30k", "multi30k-base", "iwslt14", "iwslt14-control"} <= {path.stem for path in CONFIGS}


def test_defaults_are_the_papers(load):
    config = load(DEMO)
    teacher, student, kd = config.teacher, config.student, config.kd
    assert (teacher.mask_probability, teacher.peak_lr, teacher.warmup_share, teacher.weight_decay) == (
        0.15,
        5e-5,
        0.05,
        0.01,
    )
    assert (teacher.clip, teacher.steps, teacher.batch_tokens) == (1.0, 100_000, 16_384)
    assert config.corpus.max_side_tokens == 150
    assert config.extract.passes == 7
    assert (student.encoder_layers, student.decoder_layers, student.width, student.ffn, student.heads) == (
        6,
        6,
        512,
        2048,
        8,
    )
    assert {student.dropout, student.attention_dropout, student.activation_dropout} == {0.3}
    assert (student.label_smoothing, student.noam_factor, student.warmup_steps) == (0.1, 2.0, 8_000)
    assert (student.steps, student.batch_tokens, student.clip) == (100_000, 6_144, None)
    assert (kd.alpha, kd.temperature, kd.topk, kd.tail) == (0.5, 10.0, 8, "renormalise")
    assert (config.translate.beam, config.translate.length_penalty) == (5, 0.6)
    assert {name: arm.kd.alpha for name, arm in config.arm_configs().items()} == {"distilled": 0.5, "control": 0.0}


def test_the_iwslt14_file_spells_the_papers_numbers_out():
    """The file may leave nothing to the defaults of the method, and may differ from them in what the paper has so."""
    config = load_config(next(path for path in CONFIGS if path.stem == "iwslt14"))
    defaults = Config.model_validate(DEMO)
    assert config.teacher.optimizer == "bertadam"
    assert (config.corpus.source, config.corpus.text) == ("iwslt14", "paper")
    for section, scaling in (
        ("teacher", {"optimizer", "micro_batches", "eval_every"}),
        ("student", {"micro_batches", "eval_every"}),
        ("kd", set()),
        ("translate", set()),
    ):
        settings, papers = (
            getattr(tree, section).fingerprinted(exclude=frozenset(scaling)) for tree in (config, defaults)
        )
        assert settings == papers


def test_a_schedule_of_alpha_is_linear_over_the_steps(load):
    kd = load(DEMO, "kd.alpha=[0.9, 0.3]").kd
    assert kd.has_teacher
    assert [kd.alpha_at(step, 4) for step in (1, 2, 3, 4)] == pytest.approx([0.9, 0.7, 0.5, 0.3])
    assert [load(DEMO, "kd.alpha=0.9").kd.alpha_at(step, 4) for step in (1, 4)] == [0.9, 0.9]
    # Rounding leads neither below 0 nor above 1, and the ends are met.
    for ends in ([0.49, 0], [0.1, 0], [0.9, 0], [0.3, 1], [0.7, 1]):
        kd = load(DEMO, f"kd.alpha={ends}").kd
        for steps in (20, 1_500, 20_000, 100_000):
            weights = [kd.alpha_at(step, steps) for step in (1, steps // 2, steps - 1, steps)]
            assert weights == pytest.approx([ends[0], *weights[1:3], ends[1]], abs=1e-12)
            assert min(ends) <= min(weights) <= max(weights) <= max(ends)
    rising = load(DEMO, "kd.alpha=[0, 1]")
    assert rising.arm_configs()["distilled"].kd.has_teacher


def test_an_arm_without_soft_labels_at_any_step_is_a_control(load):
    config = load(DEMO, "arms={never: {kd.alpha: [0, 0]}, first: {kd.alpha: [0.5, 0]}, last: {kd.alpha: [0, 0.5]}}")
    assert {arm: of.kd.has_teacher for arm, of in config.arm_configs().items()} == {
        "never": False,
        "first": True,
        "last": True,
    }


@pytest.mark.parametrize("arm", [{"kd.alpha": 0.2}, {"kd": {"alpha": 0.2}}], ids=["dotted", "nested"])
def test_an_arm_differs_in_the_keys_it_names_alone(load, arm):
    config = load({**DEMO, "kd": {"temperature": 2.0, "topk": 3}, "arms": {"a": arm}}).arm_configs()["a"]
    kd = {"alpha": 0.2, "temperature": 2.0, "topk": 3}
    assert config.kd.model_dump() == {
        **kd,
        "at_end": True,
        "symmetric": False,
        "tail": "renormalise",
        "sequence": "none",
        "monolingual_weight": 1.0,
        "teachers": None,
    }


def test_an_arm_overridden_on_the_command_line_keeps_its_other_keys(load):
    tree = {**DEMO, "kd": {"temperature": 2.0}, "arms": {"control": {"kd.alpha": 0}}}
    control = load(tree, "arms.control.student.steps=7").arm_configs()["control"]
    assert (control.kd.alpha, control.kd.temperature, control.student.steps) == (0, 2.0, 7)
    assert load(tree, "arms.control.kd.alpha=0.3").arm_configs()["control"].kd.alpha == 0.3
    tree["arms"] = {"control": {"kd": {"topk": 4}, "kd.alpha": 0.9}}
    both = load(tree, "arms.control.kd.alpha=0.3").arm_configs()["control"]
    assert (both.kd.alpha, both.kd.topk) == (0.3, 4)
    assert load(tree, "arms.control.kd={alpha: 0.2}").arm_configs()["control"].kd.alpha == 0.2


def test_a_key_of_an_arm_dotted_and_nested_is_refused(load):
    with pytest.raises(UserError, match=r"arms.a: kd.alpha is there twice, dotted and nested; keep one"):
        load({**DEMO, "arms": {"a": {"kd": {"alpha": 0.5}, "kd.alpha": 0.9}}})


def test_extract_stores_what_the_arms_use_unless_told(load):
    arms = {"a": {"kd.topk": 12}, "b": {"kd.topk": 2}, "control": {"kd.alpha": 0, "kd.topk": 99}}
    assert load({**DEMO, "arms": arms}).stored_topk() == 12
    assert load({**DEMO, "arms": arms}, "extract.topk=64").stored_topk() == 64


def _sections(model: type[BaseModel] = Config) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        for kind in _types_in(field.annotation):
            if issubclass(kind, Section):
                yield from _sections(kind)


def _types_in(annotation: object) -> Iterator[type]:
    if isinstance(annotation, type):
        yield annotation
    for inner in get_args(annotation):
        yield from _types_in(inner)


def test_every_field_says_what_it_is():
    sections = {*_sections(), *_sections(StudyConfig)}
    # Others describe an export, say; they are no part of a configuration.
    assert sections == {kind for kind in Section.__subclasses__() if kind.__module__.startswith("bertkd_ray.config")}
    missing = [
        f"{section.__name__}.{name}"
        for section in sections
        for name, field in section.model_fields.items()
        if not field.description or not field.description.rstrip().endswith((".", "…"))
    ]
    assert missing == []


def test_the_configuration_is_frozen(load):
    with pytest.raises(ValueError, match="frozen"):
        load(DEMO).kd.alpha = 1.0  # type: ignore[misc]


def number_keys(section: type[Section], above: str = "") -> Iterator[str]:
    """The keys of a section and of those below it that take a number."""
    for name, field in section.model_fields.items():
        types = {field.annotation, *get_args(field.annotation)}
        if types & {int, float}:
            yield f"{above}{name}"
        for inner in types:
            if isinstance(inner, type) and issubclass(inner, Section):
                yield from number_keys(inner, f"{above}{name}.")


@pytest.mark.parametrize(
    "key",
    [
        key
        for key in number_keys(Config)
        # A file of text has no number; a rate that is too high ends in a line of its own.
        if not key.startswith(("corpus.valid.", "corpus.test.")) and not key.endswith(".peak_lr")
    ],
)
def test_no_number_is_without_a_limit(load, key):
    """What asks for a thousand million million of something is refused at once, not by the memory."""
    with pytest.raises(UserError) as caught:
        load(DEMO, f"{key}={10**20}")
    assert re.search(rf"\.yaml: {re.escape(key)}: .*\(got {10**20}\)$", str(caught.value))
    assert len(list(number_keys(Config))) > 60
