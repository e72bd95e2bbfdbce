"""Files, overrides, and mistakes in them."""

from __future__ import annotations

from typing import Any

import pytest

from bertkd_ray.config import load_config
from bertkd_ray.core.errors import UserError
from tests.config.conftest import DEMO, FILES, TEXT


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


def test_numbers_without_a_dot_in_the_file_are_numbers(load):
    assert load("name: x\ncorpus: {source: demo}\nteacher: {peak_lr: 5e-5}\n").teacher.peak_lr == 5e-5


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
    "warm-up beyond the steps of a linear schedule": (
        {},
        ["student.schedule=linear", "student.steps=7999"],
        ["student: warmup_steps 8000 is more than steps 7999; lower it"],
    ),
    "almost no masks": ({}, ["teacher.mask_probability=0.0009"], ["teacher.mask_probability", "equal to 0.001"]),
    "almost no temperature": ({}, ["kd.temperature=1e-39"], ["kd.temperature", "equal to 0.001"]),
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
    "a language's name": ({}, ["corpus.src_lang=German"], ["corpus.src_lang: no language code", "'German'"]),
    "no code of a language": ({}, ["corpus.tgt_lang=xx"], ["corpus.tgt_lang: no language code of ISO 639", "'xx'"]),
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


@pytest.mark.parametrize(("changes", "overrides", "parts"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_in_one_line_with_key_value_and_fix(load, changes, overrides, parts):
    with pytest.raises(UserError) as caught:
        load({**DEMO, **changes}, *overrides)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "must be a mapping"),
        ("", "must be a mapping"),
        ("just text", "must be a mapping"),
        ("name: [\n", "not YAML"),
        ("name: 2024-99-99\n", "not YAML"),
        ("name: !!python/object/apply:os.getcwd []\n", "not YAML"),
        ("corpus: {source: demo}\n", "name is missing"),
        ("name: x\n", "corpus is missing; docs/corpora.md has its forms"),
        ("name: x\ncorpus: {source: demo}\n1: 2\n", "1: Keys should be strings"),
        (
            "".join(f"k{i}: &k{i} [{', '.join([f'*k{i - 1}' if i else 'v'] * 10)}]\n" for i in range(6)),
            "more than 100,000 values, counting those that aliases repeat",
        ),
    ],
)
def test_a_file_that_is_no_configuration(load, tmp_path, text, message):
    with pytest.raises(UserError) as caught:
        load(text)
    assert str(caught.value).startswith(f"{tmp_path / 'c.yaml'}: ")
    assert message in str(caught.value)
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


_URI = "https://the-long-name-of-a-user-of-this-server:hunter2secret@mlflow"


@pytest.mark.parametrize(
    ("text", "override"),
    [
        (f"tracking: {{uri: {_URI}, experiment: [a}}}}\n", None),
        ("name: x\n", f"tracking={{uri: {_URI}}}}}"),
        ("name: x\n", f"tracking.experiment=[https://bob:{'hunter2secret' * 40}@mlflow]"),
        ("name: x\n", f"https://bob:{'hunter2secret' * 40}@mlflow"),
    ],
)
def test_no_excerpt_and_no_shortened_value_shows_a_part_of_a_password(tmp_path, text, override):
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as refused:
        load_config(path, [override] if override else [])
    assert "hunter2" not in str(refused.value)
