"""The configuration: shipped files, defaults, overrides, mistakes, and what enters a fingerprint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from bertkd_ray.artifacts.artifact import PendingArtifact
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config, Section, load_config
from bertkd_ray.config.corpus import SPLITS, SplitFiles
from bertkd_ray.config.study import StudyConfig
from bertkd_ray.core.errors import UserError
from bertkd_ray.corpus import prepare
from bertkd_ray.softlabels import extract
from bertkd_ray.student import distill
from bertkd_ray.teacher import finetune
from bertkd_ray.translation import translate

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.yaml"))
DEMO = {"name": "demo", "corpus": {"source": "demo"}}
FILES = {"src": "a.de", "tgt": "a.en"}
TEXT = {"source": "text", "train": FILES, "valid": FILES, "test": FILES}


@pytest.fixture
def load(tmp_path) -> Callable[..., Config]:
    """`load_config` of a tree, or of raw text, with overrides."""

    def call(tree: Any, *overrides: str) -> Config:
        path = tmp_path / "c.yaml"
        path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree), encoding="utf-8")
        return load_config(path, list(overrides))

    return call


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


@pytest.mark.parametrize(
    ("override", "read", "expected"),
    [
        ("kd.alpha=0.25", lambda c: c.kd.alpha, 0.25),
        ("teacher.peak_lr=5e-5", lambda c: c.teacher.peak_lr, 5e-5),  # YAML 1.1 calls this a string
        ("student.steps=500", lambda c: c.student.steps, 500),
        ("corpus.lowercase=true", lambda c: c.corpus.lowercase, True),
        ("corpus.lowercase=yes", lambda c: c.corpus.lowercase, True),
        ("teacher.dropout=null", lambda c: c.teacher.dropout, None),
        ("teacher.model=some/path=odd", lambda c: c.teacher.model, "some/path=odd"),
        ("kd={alpha: 0.1, topk: 4}", lambda c: (c.kd.alpha, c.kd.topk, c.kd.temperature), (0.1, 4, 10.0)),
        ("tracking=none", lambda c: c.tracking.uri, "none"),
        ("tracking.uri=none", lambda c: c.tracking.uri, "none"),
        ("tracking={uri: 'sqlite:///x.db'}", lambda c: c.tracking.uri, "sqlite:///x.db"),
        ("arms={only: {kd.alpha: 0}}", lambda c: list(c.arms), ["only"]),
        ("arms.sharp.kd.temperature=1", lambda c: list(c.arms), ["distilled", "control", "sharp"]),
    ],
)
def test_overrides(load, override, read, expected):
    assert read(load(DEMO, override)) == expected


def test_an_override_reaches_below_a_section_that_the_file_leaves_out_or_shortens(load):
    assert load({**DEMO, "tracking": "none"}, "tracking.experiment=e").tracking.model_dump(exclude_defaults=True) == {
        "uri": "none",
        "experiment": "e",
    }
    assert load({**DEMO, "kd": {"alpha": 0.2}}, "kd.topk=3").kd.alpha == 0.2


@pytest.mark.parametrize("arm", [{"kd.alpha": 0.2}, {"kd": {"alpha": 0.2}}], ids=["dotted", "nested"])
def test_an_arm_differs_in_the_keys_it_names_alone(load, arm):
    config = load({**DEMO, "kd": {"temperature": 2.0, "topk": 3}, "arms": {"a": arm}}).arm_configs()["a"]
    told = {"alpha": 0.2, "temperature": 2.0, "topk": 3}
    assert config.kd.model_dump() == {**told, "symmetric": False, "tail": "renormalise"}


def test_an_arm_overridden_on_the_command_line_keeps_its_other_keys(load):
    tree = {**DEMO, "kd": {"temperature": 2.0}, "arms": {"control": {"kd.alpha": 0}}}
    control = load(tree, "arms.control.student.steps=7").arm_configs()["control"]
    assert (control.kd.alpha, control.kd.temperature, control.student.steps) == (0, 2.0, 7)
    assert load(tree, "arms.control.kd.alpha=0.3").arm_configs()["control"].kd.alpha == 0.3


def test_extract_stores_what_the_arms_use_unless_told(load):
    arms = {"a": {"kd.topk": 12}, "b": {"kd.topk": 2}, "control": {"kd.alpha": 0, "kd.topk": 99}}
    assert load({**DEMO, "arms": arms}).stored_topk() == 12
    assert load({**DEMO, "arms": arms}, "extract.topk=64").stored_topk() == 64


def test_numbers_without_a_dot_in_the_file_are_numbers(load):
    assert load("name: x\ncorpus: {source: demo}\nteacher: {peak_lr: 5e-5}\n").teacher.peak_lr == 5e-5


@pytest.mark.parametrize(
    ("corpus", "source"),
    [
        (dict.fromkeys(SPLITS, FILES), "text"),
        ({split: {"tsv": "x"} for split in SPLITS}, "tsv"),
        ({split: {"dataset": "x"} for split in SPLITS}, "datasets"),
        ({"train": [{"jsonl": "x"}], "valid": {"held_out": 0.1}, "test": {"jsonl": "y"}}, "jsonl"),
        ({"train": [FILES, {"parquet": "x"}], "valid": FILES, "test": FILES}, "mixed"),
        ({"train": {"tsv": "x"}, "valid": FILES, "test": FILES}, "mixed"),
        ({"archive": "x.tgz"}, "iwslt14"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_source_is_inferred(load, corpus, source):
    tree = {**DEMO, "corpus": corpus}
    assert load(tree).corpus.source == source
    for given in (source, "null"):
        assert load(tree, f"corpus.source={given}").corpus == load(tree).corpus


MISTAKES: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "unknown key": ({}, ["kd.alhpa=1"], ["unknown key kd.alhpa", "did you mean kd.alpha?"]),
    "unknown section": ({}, ["studnt.steps=1"], ["unknown key studnt", "did you mean student?"]),
    "unknown deep key": (
        {"corpus": TEXT},
        ["corpus.train.srcc=x"],
        ["unknown key corpus.train.srcc", "did you mean corpus.train.src?"],
    ),
    "unlike any key": ({}, ["kd.zzz=1"], ["unknown key kd.zzz"]),
    "text for a number": ({}, ["student.steps=many"], ["student.steps", "integer", "'many'"]),
    "fraction for a count": ({}, ["student.steps=2.5"], ["student.steps", "integer", "2.5"]),
    "truth for a number": ({}, ["student.steps=true"], ["student.steps", "true and false", "True"]),
    "yes for a weight": ({}, ["kd.alpha=yes"], ["kd.alpha", "true and false"]),
    "number for text": ({}, ["name=3"], ["name", "string", "3"]),
    "value for a section": ({}, ["kd=3"], ["kd: a section of keys and values is needed", "3"]),
    "empty section": ({"teacher": None}, [], ["teacher: a section of keys and values is needed", "None"]),
    "key below a value": ({"kd": {"alpha": 0.5}}, ["kd.alpha.x=3"], ["kd.alpha.x", "kd.alpha is a value"]),
    "unknown choice": ({}, ["precision=fp16"], ["precision", "'bf16'", "'fp16'"]),
    "negative seed": ({}, ["seed=-1"], ["seed", "greater than or equal to 0", "-1"]),
    "seed beyond 31 bits": ({}, ["seed=2147483648"], ["seed", "less than", "2147483648"]),
    "not a number": ({}, ["kd.alpha=.nan"], ["kd.alpha", "finite", "nan"]),
    "infinite": ({}, ["student.peak_lr=.inf"], ["student.peak_lr", "finite", "inf"]),
    "warm-up beyond the steps": (
        {},
        ["teacher.steps=200", "teacher.warmup_steps=201"],
        ["teacher: warmup_steps 201 is more than steps 200; lower it"],
    ),
    "no steps": ({}, ["student.steps=0"], ["student.steps", "greater than or equal to 1", "0"]),
    "alpha over one": ({}, ["kd.alpha=1.5"], ["kd.alpha", "less than or equal to 1", "1.5"]),
    "name with a space": ({}, ["name=a b"], ["name", "pattern", "'a b'"]),
    "teacher budget": ({}, ["teacher.batch_tokens=302"], ["teacher.batch_tokens", "302", "303", "raise it or lower"]),
    "student budget": ({}, ["student.batch_tokens=150"], ["student.batch_tokens", "150", "151", "raise it or lower"]),
    "budget cut by micro-batches": (
        {},
        ["student.batch_tokens=600", "student.micro_batches=4"],
        ["student.batch_tokens / micro_batches is 150", "151"],
    ),
    "workers and teacher": (
        {},
        ["workers=2", "teacher.micro_batches=3", "student.micro_batches=2"],
        ["teacher.micro_batches 3", "workers 2", "set teacher.micro_batches=4"],
    ),
    "elastic workers and teacher": (
        {},
        ["workers=[1, 4]", "teacher.micro_batches=3", "student.micro_batches=4"],
        ["teacher.micro_batches 3", "most workers 4", "set teacher.micro_batches=4"],
    ),
    "elastic workers, upside down": ({}, ["workers=[4, 1]"], ["the least and the most", "[1, 4]"]),
    "elastic workers without restarts": (
        {},
        ["workers=[1, 2]", "max_failures=0", "teacher.micro_batches=2", "student.micro_batches=2"],
        ["needs max_failures of at least 1"],
    ),
    "workers, a word": ({}, ["workers=many"], ["workers: a whole number from 1, or [least, most]", "'many'"]),
    "workers and student": (
        {},
        ["workers=2", "teacher.micro_batches=2"],
        ["student.micro_batches 1", "workers 2", "set student.micro_batches=2"],
    ),
    "heads and width": ({}, ["student.heads=7"], ["width 512", "heads 7", "choose heads"]),
    "exact tail": ({}, ["kd.tail=exact"], ["tail: exact", "set kd.temperature=1"]),
    "n_best and beam": ({}, ["translate.n_best=6"], ["n_best 6", "beam 5", "lower n_best or raise beam"]),
    "topk and stored": ({}, ["extract.topk=4"], ["kd.topk 8", "extract.topk 4; raise it"]),
    "demo with files": ({"corpus": {"source": "demo", "train": FILES}}, [], ["source: demo", "remove train"]),
    "text without valid": (
        {"corpus": {"source": "text", "train": FILES, "test": FILES}},
        [],
        ["source: text needs corpus.valid"],
    ),
    "text with tsv": (
        {"corpus": {**TEXT, "valid": {"tsv": "x.tsv"}}},
        [],
        ["corpus.valid is tsv, which does not fit source: text; remove source"],
    ),
    "one side": ({"corpus": {**TEXT, "test": {"src": "x"}}}, [], ["corpus.test", "give both src and tgt"]),
    "both forms": ({"corpus": {**TEXT, "test": {**FILES, "tsv": "x"}}}, [], ["corpus.test", "or one of tsv, jsonl"]),
    "no source in the list": ({"corpus": {**TEXT, "train": []}}, [], ["source: text needs corpus.train"]),
    "unknown key in a list": (
        {"corpus": {**TEXT, "train": [FILES, {**FILES, "wieght": 2}]}},
        [],
        ["unknown key corpus.train.1.wieght", "did you mean corpus.train.1.weight?"],
    ),
    "one side in a list": ({"corpus": {**TEXT, "train": [{"src": "x"}]}}, [], ["corpus.train.0: give both src"]),
    "a path for a source": ({"corpus": {**TEXT, "train": "x"}}, [], ["corpus.train: a section of keys", "'x'"]),
    "a list for valid": ({"corpus": {**TEXT, "valid": [FILES]}}, [], ["corpus.valid: a section of keys and values"]),
    "no weight": ({"corpus": {**TEXT, "train": {**FILES, "weight": 0}}}, [], ["train.weight", "greater than 0"]),
    "negative weight": ({"corpus": {**TEXT, "train": [{**FILES, "weight": -1}]}}, [], ["train.0.weight", "-1"]),
    "weight beyond the ids": ({"corpus": {**TEXT, "train": {**FILES, "weight": 101}}}, [], ["weight", "100"]),
    "weight of valid": ({"corpus": {**TEXT, "valid": {**FILES, "weight": 2}}}, [], ["corpus.valid has a weight"]),
    "held out of itself": ({"corpus": {**TEXT, "train": {"held_out": 0.1}}}, [], ["corpus.train cannot be held_out"]),
    "held out nothing": ({"corpus": {**TEXT, "valid": {"held_out": 0}}}, [], ["valid.held_out", "greater than 0"]),
    "held out all": ({"corpus": {**TEXT, "valid": {"held_out": 1}}}, [], ["valid.held_out", "less than 1"]),
    "held out twice": (
        {"corpus": {**TEXT, "valid": {"held_out": 0.5}, "test": {"held_out": 0.5}}},
        [],
        ["valid.held_out and test.held_out leave nothing to train on"],
    ),
    "held out and files": (
        {"corpus": {**TEXT, "valid": {**FILES, "held_out": 0.1}}},
        [],
        ["corpus.valid: give both src and tgt, or one of"],
    ),
    "name of a TSV column": (
        {"corpus": {**TEXT, "source": "tsv", "train": {"tsv": "x", "src_column": "de"}}},
        [],
        ["corpus.train: src_column: the columns of a TSV are counted from 0", "'de'"],
    ),
    "number of a JSONL column": (
        {"corpus": {**TEXT, "source": "jsonl", "train": {"jsonl": "x", "tgt_column": 1}}},
        [],
        ["corpus.train: tgt_column: the columns of jsonl have names, got 1"],
    ),
    "column of text": (
        {"corpus": {**TEXT, "train": {**FILES, "src_column": 0}}},
        [],
        ["corpus.train: src_column has no meaning for text; remove it"],
    ),
    "subset of a file": (
        {"corpus": {**TEXT, "train": {**FILES, "subset": "de-en"}}},
        [],
        ["corpus.train: subset belongs to dataset"],
    ),
    "another form than the source": (
        {"corpus": {**TEXT, "train": [FILES, {"parquet": "x"}]}},
        [],
        ["corpus.train is parquet, which does not fit source: text; remove source"],
    ),
    "archive alone": ({"corpus": {**TEXT, "archive": "x.tgz"}}, [], ["archive and source: iwslt14 belong together"]),
    "iwslt14 alone": ({"corpus": {"source": "iwslt14"}}, [], ["archive and source: iwslt14 belong together"]),
    "iwslt14 with files": (
        {"corpus": {**TEXT, "source": "iwslt14", "archive": "x"}},
        [],
        ["source: iwslt14 brings its own text; remove train"],
    ),
    "iwslt14 as moses": (
        {"corpus": {"source": "iwslt14", "archive": "x", "text": "moses"}},
        [],
        ["an archive has text: paper or raw"],
    ),
    "paper's text elsewhere": ({"corpus": {**TEXT, "text": "paper"}}, [], ["text: paper needs an archive of IWSLT14"]),
    "demo as moses": ({}, ["corpus.text=moses"], ["source: demo is raw text"]),
    "checksum without archive": ({}, [f"corpus.archive_sha256={'a' * 64}"], ["archive_sha256 has no meaning without"]),
    "no checksum": (
        {"corpus": {"source": "iwslt14", "archive": "x", "archive_sha256": "abc"}},
        [],
        ["corpus.archive_sha256", "pattern", "'abc'"],
    ),
    "a language's name": ({}, ["corpus.src_lang=German"], ["corpus.src_lang", "pattern", "'German'"]),
    "Norwegian to YAML": ({}, ["corpus.tgt_lang=no"], ["corpus.tgt_lang", "true and false"]),
    "words that leave no room": (
        {},
        ["corpus.clean={min_words: 5, max_words: 4}"],
        ["corpus.clean: min_words 5 is more than max_words 4"],
    ),
    "ratio below one": ({}, ["corpus.clean.max_ratio=0.5"], ["corpus.clean.max_ratio", "greater than or equal to 1"]),
    "unknown rule": ({}, ["corpus.clean.duplicate=true"], ["did you mean corpus.clean.duplicates?"]),
    "no corpus": ({"corpus": {}}, [], ["source: text needs corpus.train"]),
    "arm outside kd and student": (
        {"arms": {"a": {"teacher.steps": 3}}},
        [],
        ["arms.a", "teacher.steps", "kd.* or student.*"],
    ),
    "arm with an unknown key": (
        {"arms": {"a": {"kd.alhpa": 0}}},
        [],
        ["arms.a", "unknown key kd.alhpa", "did you mean kd.alpha?"],
    ),
    "arm that does not fit": ({"arms": {"a": {"student.heads": 7}}}, [], ["arms.a", "width 512", "heads 7"]),
    "arm without a mapping": ({"arms": {"a": None}}, [], ["arms.a", "section", "None"]),
    "arm named like a path": ({"arms": {"a/b": {}}}, [], ["arms.a/b", "pattern"]),
    "no arms": ({"arms": {}}, [], ["arms is empty", "name at least one"]),
    "override without value": ({}, ["kd.alpha"], ["'kd.alpha'", "section.key=value"]),
    "registered without a logged model": (
        {},
        ["tracking.registered_model=x", "tracking.log_model=false"],
        ["tracking: registered_model needs a logged model", "set log_model: true"],
    ),
    "registered without tracking": (
        {"tracking": "none"},
        ["tracking.registered_model=x"],
        ["tracking: registered_model needs a logged model", "a uri other than none"],
    ),
    "registered under no name for MLflow": ({}, ["tracking.registered_model=a/b"], ["registered_model", "'a/b'"]),
    "override without key": ({}, ["=3"], ["'=3'", "section.key=value"]),
    "override that is not YAML": ({}, ["tracking={"], ["'tracking={'", "not YAML"]),
    "override with an impossible date": ({}, ["name=2024-99-99"], ["'name=2024-99-99'", "not YAML"]),
}


@pytest.mark.parametrize(("changes", "overrides", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_in_one_line_with_key_value_and_fix(load, changes, overrides, said):
    with pytest.raises(UserError) as caught:
        load({**DEMO, **changes}, *overrides)
    message = str(caught.value)
    assert "\n" not in message
    for part in said:
        assert part in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n- b\n", "must be a mapping"),
        ("", "must be a mapping"),
        ("just text", "must be a mapping"),
        ("name: [\n", "not YAML"),
        ("name: 2024-99-99\n", "not YAML"),
        ("name: !!python/object/apply:os.getcwd []\n", "not YAML"),
        ("corpus: {source: demo}\n", "name: Field required"),
        ("name: x\n", "corpus: Field required"),
        ("name: x\ncorpus: {source: demo}\n1: 2\n", "1: Keys should be strings"),
    ],
)
def test_a_file_that_is_no_configuration(load, tmp_path, text, said):
    with pytest.raises(UserError) as caught:
        load(text)
    assert str(caught.value).startswith(f"{tmp_path / 'c.yaml'}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"missing\.yaml: No such file or directory; give a YAML configuration"):
        load_config(tmp_path / "missing.yaml")
    with pytest.raises(UserError, match="Is a directory"):
        load_config(tmp_path)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("name: Käse\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin\.yaml: not YAML: 'utf-8' codec can't decode byte 0xe4"):
        load_config(latin)


def _sections(model: type[BaseModel] = Config) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, Section):
                yield from _sections(kind)


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


def test_paths_of_a_split_are_relative_to_the_directory(load):
    files = {"src": "/abs/x.de", "tgt": "x.en"}
    config = load({**DEMO, "corpus": {**TEXT, "directory": "s3://bucket/d/", "train": files}})
    (train,) = config.corpus.sources("train")
    assert train.paths() == [("src", "/abs/x.de"), ("tgt", "s3://bucket/d/x.en")]
    (test,) = load({**DEMO, "corpus": TEXT}).corpus.sources("test")
    assert test.paths() == [("src", "a.de"), ("tgt", "a.en")]
    assert load(DEMO).corpus.sources("train") == []


def test_one_source_or_several_on_the_command_line(load):
    tree = {**DEMO, "corpus": TEXT}
    assert load(tree, "corpus.train.src=b.de", "corpus.train.weight=2").corpus.sources("train")[0].src == "b.de"
    several = load(tree, "corpus.train=[{src: a, tgt: b}, {src: c, tgt: d, weight: 0.5}]").corpus.sources("train")
    assert [(files.src, files.weight) for files in several] == [("a", 1.0), ("c", 0.5)]
    with pytest.raises(UserError, match=r"corpus\.train\.src: corpus\.train is a value, not a section"):
        load({**DEMO, "corpus": {**TEXT, "train": [FILES]}}, "corpus.train.src=x")
    # Arms are made from the dumped configuration.
    assert load({**DEMO, "corpus": {**TEXT, "train": [FILES]}}).arm_configs()["control"].corpus.train == [
        SplitFiles(**FILES)
    ]


def test_held_out_splits_have_no_sources(load):
    corpus = load({**DEMO, "corpus": {**TEXT, "valid": {"held_out": 0.02}}}).corpus
    assert corpus.held_out() == {"valid": 0.02}
    assert corpus.sources("valid") == []


def test_default_columns_are_those_of_the_form(load):
    forms = {"tsv": "x", "jsonl": "x", "parquet": "x", "dataset": "x"}
    found = {form: SplitFiles.model_validate({form: path}).columns("de", "zh") for form, path in forms.items()}
    assert found == {
        "tsv": (0, 1),
        "jsonl": ("src", "tgt"),
        "parquet": ("src", "tgt"),
        "dataset": ("translation.de", "translation.zh"),
    }
    assert SplitFiles(jsonl="x", tgt_column="en").columns("de", "zh") == ("src", "en")


@pytest.fixture
def text_corpus(tmp_path) -> dict[str, Any]:
    for name, text in (("a.de", "Hallo\n"), ("a.en", "hello\n"), ("b.en", "hi\n")):
        (tmp_path / name).write_text(text)
    return {**TEXT, "directory": str(tmp_path)}


def _drafts(config: Config, store: Store) -> dict[str, str]:
    """The fingerprint of every stage, with the fingerprints of its inputs made up."""
    drafts: dict[str, PendingArtifact] = {
        "prepare": prepare.pending_artifact(config, store, "bert-tokenizer"),
        "finetune": finetune.pending_artifact(config, store, "corpus", "bert"),
        "extract": extract.pending_artifact(config, store, "corpus", "teacher"),
        "translate": translate.pending_artifact(config, store, "corpus", "student"),
    }
    for arm, arm_config in config.arm_configs().items():
        labels = "softlabels" if arm_config.kd.alpha > 0 else None
        drafts[f"distill/{arm}"] = distill.pending_artifact(arm_config, store, "corpus", labels)
    return {name: draft.fingerprint for name, draft in drafts.items()}


STUDENTS = {"distill/distilled", "distill/control"}
ALL = {"prepare", "finetune", "extract", "translate", *STUDENTS}
EFFECTS: dict[str, set[str]] = {
    # What cannot change a result.
    "name=other": set(),
    "storage=elsewhere": set(),
    "workers=2": set(),
    "device=cpu": set(),
    "runtime=local": set(),
    "cpus_per_worker=1": set(),
    "max_failures=0": set(),
    "preemption_grace=1": set(),
    "resize_every=1": set(),
    "max_rejects=0.5": set(),
    "verify=sizes": set(),
    "log_every=1": set(),
    "checkpoint_every=7": set(),
    "tracking=none": set(),
    "teacher.model=renamed": set(),  # a BERT enters by content
    "translate.bootstrap_samples=10": set(),
    # What can.
    "seed=2": {"finetune", *STUDENTS},
    "precision=float32": ALL - {"prepare"},
    "corpus.lowercase=true": {"prepare"},
    "corpus.cache=elsewhere": set(),
    "corpus.src_lang=nl": {"prepare"},
    "corpus.text=moses": {"prepare"},
    "corpus.clean.duplicates=true": {"prepare"},
    "corpus.train.weight=2": {"prepare"},
    "corpus.test={held_out: 0.1}": {"prepare"},
    "corpus.max_side_tokens=100": {"prepare"},
    "corpus.group_pairs=7": {"prepare"},
    "corpus.test.tgt=b.en": {"prepare"},
    "teacher.steps=5": {"finetune"},
    "teacher.peak_lr=1e-3": {"finetune"},
    "teacher.warmup_steps=100": {"finetune"},
    "teacher.warmup_steps=5000": set(),  # a twentieth of the steps, the default
    "teacher.pretrained=false": {"finetune"},
    "teacher.micro_batches=4": {"finetune"},
    "teacher.left_to_right=true": {"finetune"},
    "teacher.left_to_right=false": set(),  # the default of an option that came later
    "extract.passes=5": {"extract"},
    "extract.topk=16": {"extract"},
    "kd.topk=4": {"extract", "distill/distilled"},
    "kd.temperature=2": {"distill/distilled"},
    "kd.symmetric=true": {"distill/distilled"},
    "kd.symmetric=false": set(),
    "kd.alpha=0.9": {"distill/distilled"},
    "student.steps=5": STUDENTS,
    "student.seed=2": STUDENTS,
    "student.seed=1": set(),  # the top-level seed
    "student.dropout=0.1": STUDENTS,
    "student.peak_lr=1e-3": STUDENTS,
    "student.peak_lr=9.882118e-4": set(),  # the paper's, the default
    "student.warmup_steps=4000": STUDENTS,
    "student.schedule=linear": STUDENTS,
    "student.schedule=inverse-sqrt": set(),  # the default of an option that came later
    "student.micro_batches=4": STUDENTS,
    "extract.forward_tokens=4096": {"extract"},
    "translate.forward_tokens=4096": {"translate"},
    "translate.beam=2": {"translate"},
    "translate.length_penalty=1": {"translate"},
}


@pytest.mark.parametrize(("override", "changed"), EFFECTS.items(), ids=EFFECTS)
def test_what_enters_a_fingerprint(load, tmp_path, text_corpus, override, changed):
    tree = {**DEMO, "corpus": text_corpus, "teacher": {"micro_batches": 2}, "student": {"micro_batches": 2}}
    store = Store(str(tmp_path / "store"))
    before, after = _drafts(load(tree), store), _drafts(load(tree, override), store)
    assert {name for name in before if before[name] != after[name]} == changed


def test_options_that_came_later_are_in_no_fingerprint_at_their_defaults(load, tmp_path):
    config, store = load(DEMO), Store(str(tmp_path))
    assert "left_to_right" not in finetune.pending_artifact(config, store, "corpus", "bert").config["teacher"]
    assert "symmetric" not in distill.pending_artifact(config, store, "corpus", "labels").config["kd"]
    changed = load(DEMO, "kd.symmetric=true", "teacher.left_to_right=true")
    assert finetune.pending_artifact(changed, store, "corpus", "bert").config["teacher"]["left_to_right"] is True
    assert distill.pending_artifact(changed, store, "corpus", "labels").config["kd"]["symmetric"] is True


def test_text_enters_by_content_not_by_path(load, tmp_path, text_corpus):
    store = Store(str(tmp_path / "store"))
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("a.de", "a.en"):
        (moved / name).write_bytes((tmp_path / name).read_bytes())

    def print_of(directory: Path) -> str:
        config = load({**DEMO, "corpus": {**text_corpus, "directory": str(directory)}})
        return prepare.pending_artifact(config, store, "bert-tokenizer").fingerprint

    here = print_of(tmp_path)
    assert print_of(moved) == here
    (moved / "a.en").write_text("hello!\n")
    assert print_of(moved) != here


def test_inputs_enter_the_fingerprint(load, tmp_path):
    config, store = load(DEMO), Store(str(tmp_path))
    for draft in (
        finetune.pending_artifact,
        extract.pending_artifact,
        translate.pending_artifact,
        distill.pending_artifact,
    ):
        prints = {draft(config, store, *inputs).fingerprint for inputs in (("a", "b"), ("x", "b"), ("a", "x"))}
        assert len(prints) == 3
    control = config.arm_configs()["control"]
    assert (
        distill.pending_artifact(control, store, "a", "b").fingerprint
        == distill.pending_artifact(control, store, "a", None).fingerprint
    )
    with pytest.raises(ValueError, match="needs soft labels"):
        distill.pending_artifact(config, store, "a", None)
