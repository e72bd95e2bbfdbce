"""Study files: the shipped ones, what arms and seeds become, what they share, and mistakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import load_config
from bertkd_ray.config.study import Study, load_study
from bertkd_ray.core.errors import UserError
from bertkd_ray.softlabels import extract
from bertkd_ray.student import distill
from bertkd_ray.teacher import finetune

STUDIES = sorted((Path(__file__).resolve().parents[2] / "configs" / "studies").glob("*.yaml"))
CONTROL = {"kd.alpha": 0}
STUDY: dict[str, Any] = {
    "name": "s",
    "base": "b.yaml",
    "arms": {"control": CONTROL, "hot": {"kd.temperature": 10}},
    "seeds": [1, 2],
}


@pytest.fixture
def load(tmp_path) -> Callable[..., Study]:
    """`load_study` of a tree whose base is the demo corpus."""

    def call(tree: Any, *overrides: str) -> Study:
        base = {"name": "b", "corpus": {"source": "demo"}, "kd": {"temperature": 2}}
        (tmp_path / "b.yaml").write_text(yaml.safe_dump(base), encoding="utf-8")
        path = tmp_path / "s.yaml"
        path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
        return load_study(path, list(overrides))

    return call


def arms(study: Study) -> dict[str, Any]:
    """The configurations of the first seed."""
    return {one.arm: one.config for one in study.trials if one.seed == study.settings.seeds[0]}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_shipped_study_loads(path):
    study = load_study(path)
    assert study.settings.name == path.stem
    assert study.control == "control"
    distilled = [one.config for one in study.trials if one.config.kd.has_teacher]
    passes = {(config.teacher.model_dump_json(), config.extract.topk) for config in distilled}
    assert len(passes) == len({teacher for teacher, _ in passes}), "one pass of a teacher serves all its arms"


def test_the_shipped_studies_are_there():
    assert {"multi30k-paper", "multi30k-sweep", "multi30k-teachers", "multi30k-training", "iwslt14-small"} <= {
        path.stem for path in STUDIES
    }


def test_the_papers_study_asks_its_question():
    by_arm = arms(load_study(next(path for path in STUDIES if path.stem == "multi30k-paper")))
    later = {"symmetric", "at_end", "sequence", "monolingual_weight", "teachers"}
    kd = {arm: config.kd.model_dump(exclude=later) for arm, config in by_arm.items()}
    assert kd["paper"] == {"alpha": 0.5, "temperature": 10.0, "topk": 8, "tail": "renormalise"}
    assert kd["exact-tail"] == {"alpha": 0.5, "temperature": 1.0, "topk": 8, "tail": "exact"}
    assert kd["control"]["alpha"] == 0
    assert len({config.student.model_dump_json() for config in by_arm.values()}) == 1


def test_trials_come_seed_by_seed_and_are_whole_configurations(load):
    study = load({**STUDY, "overrides": {"student.steps": 7}})
    assert [(one.seed, one.arm) for one in study.trials] == [(1, "control"), (1, "hot"), (2, "control"), (2, "hot")]
    for one in study.trials:
        assert (one.config.name, one.config.arms, one.config.student.steps) == ("s", {one.arm: {}}, 7)
        assert (one.config.seed, one.config.student_seed) == (1, one.seed)
    by_arm = arms(study)
    assert (by_arm["hot"].kd.temperature, by_arm["control"].kd.temperature) == (10, 2)


def test_teachers_have_seeds_of_their_own_and_the_control_has_none(load):
    study = load({**STUDY, "teacher_seeds": [5, 6]})
    assert [(one.seed, one.arm, one.teacher_seed) for one in study.trials] == [
        (1, "control", None),
        (1, "hot", 5),
        (1, "hot", 6),
        (2, "control", None),
        (2, "hot", 5),
        (2, "hot", 6),
    ]
    assert [(one.config.seed, one.config.student_seed) for one in study.trials[:3]] == [(1, 1), (5, 1), (6, 1)]
    assert [one.title for one in study.trials[:2]] == ["control, seed 1", "hot, seed 1, teacher seed 5"]
    assert [one.key for one in study.trials[:2]] == ["control/1", "hot/1/teacher-5"]


def test_the_bases_seed_as_the_teachers_is_the_teacher_of_a_study_without_teacher_seeds(load, tmp_path):
    store = Store(str(tmp_path / "store"))
    plain, same, other = (load(changed(teacher_seeds=seeds)).trials[1].config for seeds in (None, [1], [2]))
    assert plain == same

    def names(config: Any) -> list[str]:
        return [
            finetune.pending_artifact(config, store, {"corpus": "c", "bert": "b"}).fingerprint,
            distill.pending_artifact(config, store, {"corpus": "c", "softlabels": "l"}).fingerprint,
        ]

    # The student's own settings are the same; that it is another one is the soft labels' doing.
    assert names(other)[0] != names(plain)[0]
    assert names(other)[1] == names(plain)[1]


def test_a_seed_changes_the_student_and_nothing_before_it(load, tmp_path):
    store = Store(str(tmp_path / "store"))
    one, other = (config.config for config in load(STUDY).trials if config.arm == "hot")
    assert (
        finetune.pending_artifact(one, store, {"corpus": "c", "bert": "b"}).fingerprint
        == finetune.pending_artifact(other, store, {"corpus": "c", "bert": "b"}).fingerprint
    )
    assert (
        extract.pending_artifact(one, store, {"corpus": "c", "teacher": "t"}).fingerprint
        == extract.pending_artifact(other, store, {"corpus": "c", "teacher": "t"}).fingerprint
    )
    assert (
        distill.pending_artifact(one, store, {"corpus": "c", "softlabels": "l"}).fingerprint
        != distill.pending_artifact(other, store, {"corpus": "c", "softlabels": "l"}).fingerprint
    )


def test_the_first_seed_is_the_student_of_bertkd_run(load, tmp_path):
    store = Store(str(tmp_path / "store"))
    study = load(STUDY)
    alone = load_config(tmp_path / "b.yaml", ["kd.temperature=10"])
    assert (
        distill.pending_artifact(alone, store, {"corpus": "c", "softlabels": "l"}).fingerprint
        == distill.pending_artifact(arms(study)["hot"], store, {"corpus": "c", "softlabels": "l"}).fingerprint
    )


def test_arms_of_one_teacher_store_what_the_widest_uses(load):
    tree = {
        **STUDY,
        "arms": {
            "control": {**CONTROL, "kd.topk": 99},
            "k32": {"kd.topk": 32},
            "k1": {"kd.topk": 1},
            "short-teacher": {"teacher.steps": 5, "kd.topk": 4},
        },
    }
    stored = {arm: config.stored_topk() for arm, config in arms(load(tree)).items() if arm != "control"}
    assert stored == {"k32": 32, "k1": 32, "short-teacher": 4}
    explicit = arms(load(tree, "extract.topk=64"))
    assert {config.stored_topk() for config in explicit.values()} == {64}


def test_arms_may_have_teachers_and_training_text_of_their_own(load):
    tree = {**STUDY, "arms": {**STUDY["arms"], "random": {"teacher": {"pretrained": False, "layers": 3}}}}
    assert arms(load(tree))["random"].teacher.pretrained is False
    assert arms(load(tree))["hot"].teacher.layers is None
    clean = {**STUDY, "arms": {**STUDY["arms"], "clean": {"corpus.clean.duplicates": True}}}
    assert arms(load(clean))["clean"].corpus.clean.duplicates


TEXT: dict[str, Any] = {"src": "a.de", "tgt": "a.en"}
SHARE, FILES = {"held_out": 0.1}, {"src": "v.de", "tgt": "v.en"}


def of_two_corpora(valid: dict[str, Any], test: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """A study over text whose arm `other` has corpus keys of its own."""
    corpus = {"source": "text", "train": [TEXT, {**TEXT, "weight": 2}], "valid": valid, "test": test}
    of_arm = {key.replace("_", ".", 1): value for key, value in keys.items()}
    return changed(overrides={"corpus": corpus}, arms={**STUDY["arms"], "other": {"corpus": of_arm}})


@pytest.mark.parametrize(
    ("valid", "test", "keys", "key"),
    [
        (FILES, SHARE, {"train": [TEXT]}, "corpus.train"),
        (SHARE, FILES, {"train": [TEXT]}, "corpus.train"),
        (FILES, FILES, {"train": [TEXT]}, None),
        (FILES, SHARE, {"train": [TEXT, {**TEXT, "weight": 0.5}]}, "corpus.train"),
        (SHARE, SHARE, {"train": [TEXT, {**TEXT, "weight": 3.5}]}, None),
        (SHARE, SHARE, {"clean_duplicates": True}, "corpus.clean.duplicates"),
        (SHARE, FILES, {"clean_max_ratio": 3}, "corpus.clean.max_ratio"),
        (FILES, FILES, {"clean_max_ratio": 3}, None),
        (SHARE, FILES, {"clean_test_overlap": True}, "corpus.clean.test_overlap"),
        (FILES, SHARE, {"clean_test_overlap": True}, None),
    ],
)
def test_arms_hold_out_the_same_pairs(load, valid, test, keys, key):
    tree = of_two_corpora(valid, test, **keys)
    if key is None:
        assert load(tree)
        return
    with pytest.raises(UserError) as caught:
        load(tree)
    splits = " and ".join(name for name, split in (("valid", valid), ("test", test)) if split == SHARE)
    assert f"arms.other: {key} is not that of arms.control, so that other pairs are held out for {splits}" in str(
        caught.value
    )


@pytest.mark.parametrize(("key", "value"), [("teacher.model", "another"), ("corpus.max_vocabulary", 2000)])
def test_another_vocabulary_holds_out_other_pairs(load, key, value):
    tree = of_two_corpora(FILES, SHARE)
    tree["arms"]["other"] = {key: value}
    with pytest.raises(UserError, match=rf"arms.other: {key} is not that of arms.control, so that other pairs"):
        load(tree)
    tree["overrides"]["corpus"]["test"] = FILES
    assert load(tree)


@pytest.mark.parametrize("valid", [FILES, SHARE])
def test_a_source_in_another_spelling_is_the_same(load, valid):
    tmx = {"tmx": "a.tmx"}
    spelled = [{**tmx, "variants": "all", "src_column": "deu", "tgt_column": "EN"}]
    tree = of_two_corpora(valid, FILES, train=spelled)
    tree["arms"]["one"] = {"corpus.train": tmx}
    with pytest.raises(
        UserError, match=r"arms\.one has the same settings as arms\.other, but for keys that change nothing"
    ):
        load({**tree, "overrides": {"corpus": {"source": None, "train": tmx, "valid": valid, "test": FILES}}})


TWINS = {"a": {"steps": 7}, "b": {"steps": 7}}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({**CONTROL, "kd.temperature": 1}, {**CONTROL, "kd.temperature": 5}),
        ({**CONTROL, "teacher.steps": 1}, {**CONTROL, "extract.passes": 2}),
        ({"extract.topk": 8}, {}),
        ({"translate.bootstrap_samples": 20}, {}),
        ({"teacher.direction": "left_to_right", "extract.passes": 3}, {"teacher.direction": "left_to_right"}),
        ({"teacher.direction": "left_to_right", "teacher.mask_probability": 1}, {"teacher.direction": "left_to_right"}),
        ({"kd.monolingual_weight": 0.5}, {"kd.monolingual_weight": 2}),  # of no monolingual text
        ({"kd.temperature": 1, "kd.symmetric": True}, {"kd.temperature": 1}),
        ({"decode.beam": 2}, {"decode.beam": 4}),  # of no translations
        ({"teachers": TWINS, "kd.teachers": {"a": 0.3, "b": 0.7}}, {"teachers": TWINS, "kd.teachers": "b"}),
        (
            {"teachers": TWINS, "kd.teachers": {"a": 0.5, "b": 0.5}},
            {"teachers": TWINS, "kd.teachers": {"a": 0.3, "b": 0.7}},
        ),
        ({**CONTROL, "student.start": "x"}, {**CONTROL, "student.start": "x/model/"}),
    ],
)
def test_arms_that_differ_in_nothing_that_counts_are_refused(load, first, second):
    tree = changed(arms={"c": {**CONTROL, "student.steps": 3}, "one": first, "two": second}, control="c")
    with pytest.raises(
        UserError, match=r"arms\.two has the same settings as arms\.one, but for keys that change nothing"
    ):
        load(tree)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"decode.beam": 2}, {"decode.beam": 4}),
        ({"kd.monolingual_weight": 0.5}, {"kd.monolingual_weight": 2}),
        *(
            ({**arm, "kd.monolingual_weight": 0.5}, {**arm, "kd.monolingual_weight": 1})
            for arm in ({"kd.sequence": "instead", "kd.alpha": 0}, {"kd.sequence": "beside"})
        ),
    ],
)
def test_arms_may_differ_in_what_is_made_of_monolingual_text(load, first, second):
    tree = changed(arms={"c": {**CONTROL, "student.steps": 3}, "one": first, "two": second}, control="c")
    text = {"source": "text", "train": FILES, "valid": FILES, "test": FILES, "monolingual": {"src": "more.de"}}
    tree["overrides"] = {"teacher": {"direction": "left_to_right"}, "corpus": text}
    assert load(tree)


def test_arms_without_a_teacher_may_have_berts_of_other_tokenizers(load):
    first, second = ({**CONTROL, "teacher.model": name} for name in ("a", "b"))
    assert load(changed(arms={"one": first, "two": second}, control="one"))


@pytest.mark.parametrize(
    ("override", "read", "expected"),
    [
        ("student.steps=5", lambda s: {one.config.student.steps for one in s.trials}, {5}),
        ("kd.temperature=3", lambda s: arms(s)["control"].kd.temperature, 3),
        ("kd.temperature=3", lambda s: arms(s)["hot"].kd.temperature, 10),  # an arm's own key stands
        ("arms.hot.kd.temperature=4", lambda s: arms(s)["hot"].kd.temperature, 4),
        ("seeds=[7]", lambda s: [one.seed for one in s.trials], [7, 7]),
        ("name=other", lambda s: (s.settings.name, s.config.name), ("other", "other")),
        ("tracking=none", lambda s: s.config.tracking.uri, "none"),
        ("seed=9", lambda s: (s.config.seed, s.config.student_seed), (9, 1)),
    ],
)
def test_overrides(load, override, read, expected):
    assert read(load(STUDY, override)) == expected


def test_an_override_wins_however_the_file_writes_the_key(load):
    for written in ({"student.steps": 7}, {"student": {"steps": 7}}):
        assert load({**STUDY, "overrides": written}, "student.steps=5").config.student.steps == 5


def test_of_several_arms_without_a_teacher_one_is_named_control(load):
    tree = {**STUDY, "arms": {**STUDY["arms"], "longer": {**CONTROL, "student.steps": 9}}, "control": "longer"}
    assert load(tree).control == "longer"


def changed(**keys: Any) -> dict[str, Any]:
    return {**STUDY, **keys}


def with_arm(**arm: Any) -> dict[str, Any]:
    return changed(arms={**STUDY["arms"], **arm})


MISTAKES: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "unknown key": (changed(seed=[1]), [], ["unknown key seed", "did you mean seeds?"]),
    "no base": (changed(base="nowhere.yaml"), [], ["base: there is no file", "nowhere.yaml", "relative to the study"]),
    "no seeds": (changed(seeds=[]), [], ["seeds", "at least 1"]),
    "repeated seed": (changed(seeds=[3, 1, 3]), [], ["seeds: 3 stands there more than once"]),
    "negative seed": (changed(seeds=[-1]), [], ["seeds.0", "greater than or equal to 0", "-1"]),
    "true for a seed": (changed(seeds=[True]), [], ["seeds.0", "integer", "True"]),
    "one seed without a list": (changed(seeds=1), [], ["seeds", "list", "1"]),
    "repeated teacher seed": (changed(teacher_seeds=[2, 2]), [], ["teacher_seeds: 2 stands there more than once"]),
    "no teacher seeds": (changed(teacher_seeds=[]), [], ["teacher_seeds", "at least 1"]),
    "true for a teacher seed": (changed(teacher_seeds=[True]), [], ["teacher_seeds.0", "integer", "True"]),
    "teacher seeds without a teacher": (
        changed(arms={"control": CONTROL, "longer": {**CONTROL, "student.steps": 9}}, control="control"),
        ["teacher_seeds=[1,2]"],
        ["teacher_seeds: no arm has a teacher (kd.alpha above 0); remove teacher_seeds"],
    ),
    "one arm": (changed(arms={"control": CONTROL}), [], ["arms", "at least 2"]),
    "no control": (changed(arms={"a": {}, "b": {"kd.topk": 2}}), [], ["no arm has kd.alpha 0", "add a control"]),
    "two controls": (
        with_arm(longer={**CONTROL, "student.steps": 9}),
        [],
        ["control, longer all have kd.alpha 0", "control: control"],
    ),
    "unknown control": (changed(control="hot"), [], ["control: hot is no arm with kd.alpha 0; those are control"]),
    "same arms": (with_arm(again={"kd": {"temperature": 10}}), [], ["arms.again has the same settings as arms.hot"]),
    "unknown arm key": (with_arm(x={"kd.alhpa": 1}), [], ["arms.x: unknown key kd.alhpa", "did you mean kd.alpha?"]),
    "unknown arm section": (with_arm(x={"studnt.steps": 1}), [], ["arms.x: unknown key studnt", "student?"]),
    "arm with a seed": (with_arm(x={"student.seed": 3}), [], ["arms.x: student.seed is the same for all arms"]),
    "arm with a test set": (with_arm(x={"corpus.test.src": "a"}), [], ["arms.x: corpus.test.src is the same for all"]),
    "arm with a storage": (with_arm(x={"storage": "a"}), [], ["arms.x: storage is the same for all arms"]),
    "arm that does not fit": (with_arm(x={"student.heads": 7}), [], ["arms.x: ", "heads 7"]),
    "arm over what is stored": (STUDY, ["extract.topk=4"], ["arms.hot: kd.topk 8 is more than extract.topk 4"]),
    "arm named like a path": (with_arm(**{"a/b": {"kd.topk": 1}}), [], ["arms.a/b", "pattern"]),
    "arm without a mapping": (with_arm(x=None), [], ["arms.x", "None"]),
    "unknown override": (changed(overrides={"kd.alhpa": 1}), [], ["overrides: unknown key kd.alhpa", "kd.alpha?"]),
    "arms in overrides": (changed(overrides={"arms.x.kd.alpha": 1}), [], ["overrides: arms.x.kd.alpha is the study's"]),
    "seed in overrides": (changed(overrides={"student.seed": 1}), [], ["overrides: student.seed is the study's own"]),
    "registered model": (STUDY, ["tracking.registered_model=m"], ["tracking.registered_model: a study logs no model"]),
    "override without value": (STUDY, ["kd.alpha"], ["'kd.alpha'", "section.key=value"]),
}


@pytest.mark.parametrize(("tree", "overrides", "parts"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_in_one_line(load, tree, overrides, parts):
    with pytest.raises(UserError) as caught:
        load(tree, *overrides)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_a_mistake_in_the_base_names_the_base(load, tmp_path):
    load(STUDY)
    (tmp_path / "b.yaml").write_text("name: b\ncorpus: {source: demo}\nkd: {alhpa: 1}\n")
    with pytest.raises(UserError, match=r"b\.yaml: unknown key kd\.alhpa"):
        load_study(tmp_path / "s.yaml")


def test_a_configuration_and_a_study_are_told_apart(load, tmp_path):
    load(STUDY)
    with pytest.raises(UserError, match=r"b\.yaml: this is a configuration, not a study; give it to bertkd run"):
        load_study(tmp_path / "b.yaml")
    with pytest.raises(UserError, match=r"s\.yaml: this is a study; bertkd study trains it, bertkd validate BASE"):
        load_config(tmp_path / "s.yaml")
