"""What a user may get wrong, one row each: the whole line that `bertkd validate` says, exit code 2, no traceback.

Beside each line stands `{text}`, `{bert}`, `{yaml}` or `{store}` for the place that it names. What readers say of every
form of damage is in tests/corpus; mistakes on the command line itself are in test_cli.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from bertkd_ray.cli import main
from bertkd_ray.pipeline.session import Session
from tests.helpers.local_project import QUICK, InProcessRuntime
from tests.helpers.small_config import write_config
from tools.demo_corpus import demo_corpus


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("project")
    write_config(directory)
    return directory


@pytest.fixture
def said(project, capsys) -> Callable[..., str]:
    """The one line that `validate` refuses with, in terms of the places."""

    def call(*overrides: str, config: Path | None = None) -> str:
        code = main(["validate", str(config or project / "small.yaml"), *overrides])
        out, err = capsys.readouterr()
        assert code == 2, out
        assert err.startswith("bertkd: error: ")
        assert err.count("\n") == 1
        assert err.endswith("\n")
        line = err.removeprefix("bertkd: error: ").removesuffix("\n")
        for name, path in (
            ("yaml", config or project / "small.yaml"),
            ("text", project / "bad"),
            ("bert", project / "broken"),
            ("store", project),
        ):
            line = line.replace(str(path), f"{{{name}}}")
        return line

    return call


VALUES = {
    # wrong types
    "seed=x": "{yaml}: seed: Input should be a valid integer, unable to parse string as an integer (got 'x')",
    "seed=1.5": "{yaml}: seed: Input should be a valid integer, got a number with a fractional part (got 1.5)",
    "seed=yes": (
        "{yaml}: seed: true and false (bare yes, no, on, off) have no meaning here; give or quote a value (got True)"
    ),
    "seed=": "{yaml}: seed: Input should be a valid integer (got None)",
    "kd=3": "{yaml}: kd: a section of keys and values is needed (got 3)",
    "arms.a=3": "{yaml}: arms.a: a section of keys and values is needed (got 3)",
    "corpus.train.src=[1]": "{yaml}: corpus.train.src: Input should be a valid string (got [1])",
    'corpus.train.src="a\\0b"': (
        "{yaml}: corpus.train.src: a NUL character has no meaning here; remove it (got 'a\\x00b')"
    ),
    "student.peak_lr=nan": "{yaml}: student.peak_lr: Input should be a finite number (got 'nan')",
    # out of range
    "teacher.steps=0": "{yaml}: teacher.steps: Input should be greater than or equal to 1 (got 0)",
    "student.steps=0": "{yaml}: student.steps: Input should be greater than or equal to 1 (got 0)",
    "workers=0": "{yaml}: workers: a whole number from 1, or [least, most] of them, is needed (got 0)",
    "kd.alpha=1.1": "{yaml}: kd.alpha: Input should be less than or equal to 1 (got 1.1)",
    "kd.temperature=0": "{yaml}: kd.temperature: Input should be greater than or equal to 0.001 (got 0)",
    "corpus.max_vocabulary=4": ("{yaml}: corpus.max_vocabulary: Input should be greater than or equal to 8 (got 4)"),
    "corpus.max_vocabulary=2.5": (
        "{yaml}: corpus.max_vocabulary: Input should be a valid integer, got a number with a fractional part (got 2.5)"
    ),
    "student.subword_dropout=1": "{yaml}: student.subword_dropout: Input should be less than 1 (got 1)",
    "device=tpu": "{yaml}: device: Input should be 'auto', 'cpu' or 'gpu' (got 'tpu')",
    "verify=never": "{yaml}: verify: Input should be 'checksums' or 'sizes' (got 'never')",
    "name=../x": "{yaml}: name: String should match pattern '^[A-Za-z0-9][A-Za-z0-9._-]*$' (got '../x')",
    f"name={'x' * 101}": f"{{yaml}}: name: String should have at most 100 characters (got '{'x' * 101}')",
    "workers=10001": "{yaml}: workers: at most 10000 workers can be asked for (got 10001)",
    "translate.beam=100000000000000000000": (
        "{yaml}: translate.beam: Input should be less than or equal to 1000 (got 100000000000000000000)"
    ),
    "student.width=1000000000": ("{yaml}: student.width: Input should be less than or equal to 65536 (got 1000000000)"),
    f"seed=0x{'f' * 9000}": "{yaml}: seed: Input should be less than 2147483648 (got a number with very many digits)",
    f"seed={'x' * 9000}": (
        f"{{yaml}}: seed: Input should be a valid integer, unable to parse string as an integer (got '{'x' * 199}…)"
    ),
    # nested
    f"kd.alpha={'[' * 99}{']' * 99}": (
        "{yaml}: kd.alpha: one weight, or the first and the last of a schedule, such as [0.9, 0.3], is needed "
        f"(got {'[' * 99}{']' * 99})"
    ),
    f"kd.temperature={'[' * 99}{']' * 99}": (
        f"{{yaml}}: kd.temperature: Input should be a valid number (got {'[' * 99}{']' * 99})"
    ),
    "kd.alpha=[0.9, 1.3]": "{yaml}: kd.alpha.1: Input should be less than or equal to 1 (got 1.3)",
    "kd.alpha=[0.9, 0.5, 0.3]": (
        "{yaml}: kd.alpha: one weight, or the first and the last of a schedule, such as [0.9, 0.3], is needed "
        "(got [0.9, 0.5, 0.3])"
    ),
    f"kd.alpha={'[' * 5000}": (f"'kd.alpha={'[' * 190}…: the value is not YAML: nested too deeply"),
    f"arms.a.kd{'.a' * 5000}=1": f"arms.a.kd{'.a' * 45}.…: unknown key; no section lies so deep",
    # unknown
    "studnet.steps=1": "{yaml}: unknown key studnet; did you mean student?",
    "kd.sequence=instead": (
        "{yaml}: kd.sequence: instead needs a teacher that can translate, and one that sees both sides cannot; set "
        "teacher.direction=left_to_right, or kd.sequence=none"
    ),
    "corpus.monolingual={src: more.de}": (
        "{yaml}: corpus.monolingual: needs a teacher that can translate it, and one that sees both sides cannot; set "
        "teacher.direction=left_to_right, or kd.monolingual_weight=0"
    ),
    "corpus.monolingual={src: more.de, tgt: more.en}": "{yaml}: unknown key corpus.monolingual.tgt",
    "corpus.monolingual={src: more.de, tsv: more.tsv}": (
        "{yaml}: corpus.monolingual: give one of src, tsv, jsonl, parquet, tmx, moses_zip, xliff, po and dataset"
    ),
    "corpus.monolingual={src: more.de, src_column: 1}": (
        "{yaml}: corpus.monolingual: src_column has no meaning for text; remove it"
    ),
    "corpus.monolingual=[]": "{yaml}: corpus: corpus.monolingual is an empty list; name a source, or remove it",
    "kd.monolingual_weight=-1": ("{yaml}: kd.monolingual_weight: Input should be greater than or equal to 0 (got -1)"),
    "kd.sequence=all": "{yaml}: kd.sequence: Input should be 'none', 'instead' or 'beside' (got 'all')",
    "arms.b={kd.sequence: beside}": (
        "arms.b: kd.sequence: beside needs a teacher that can translate, and one that sees both sides cannot; set "
        "teacher.direction=left_to_right, or kd.sequence=none"
    ),
    "kd.alfa=1": "{yaml}: unknown key kd.alfa; did you mean kd.alpha?",
    # impossible together
    "workers=3": "{yaml}: teacher.micro_batches 2 is not a multiple of workers 3; set teacher.micro_batches=3",
    "teacher.batch_tokens=100": (
        "{yaml}: teacher.batch_tokens / micro_batches is 50, less than the longest admitted pair (203 tokens); "
        "raise it or lower corpus.max_side_tokens"
    ),
    "student.batch_tokens=100": (
        "{yaml}: student.batch_tokens / micro_batches is 50, less than the longest admitted side (101 tokens); "
        "raise it or lower corpus.max_side_tokens"
    ),
    "kd.tail=exact": "{yaml}: kd: tail: exact is defined at temperature 1; set kd.temperature=1",
    "extract.topk=2": "{yaml}: arms.distilled: kd.topk 4 is more than extract.topk 2; raise it",
    "arms={}": "{yaml}: arms is empty; name at least one student",
    "corpus.test=null": "{yaml}: corpus: source: text needs corpus.test",
    "kd={alpha: 0, alpha: 1}": (
        "'kd={alpha: 0, alpha: 1}': the value is not YAML: the key alpha stands in line 1 and again in line 1; keep one"
    ),
    # what the BERT and the machine have not
    "kd.topk=5000": "kd.topk: 5000 is more than the vocabulary of 400 pieces; lower it",
    "teacher.layers=3": "teacher.layers: 3, but {store}/bert has 2",
    "corpus.max_pair_tokens=510": (
        "corpus.max_pair_tokens: 510 and 3 special tokens are more than the 512 positions of {store}/bert; lower it"
    ),
    "teacher.model=/no/such": ("teacher.model: there is no directory /no/such; name a model directory or a hub id"),
    "teacher.model=package:no_such/x": (
        "teacher.model: package:no_such/x needs the package no_such; install it: pip install no-such"
    ),
    # storage
    "storage=nosuch://user:secret@host/x": (
        "storage: nosuch://***@host/x cannot be opened: Unrecognized filesystem type in URI: nosuch://***@host/x"
    ),
    "corpus.train.src=nosuch://user:secret@host/x?key=secret": (
        "nosuch://***@host/x?key=***: cannot be read (Unrecognized filesystem type in URI: nosuch://***@host/x?key=***)"
        "; check the path and its permissions"
    ),
    "storage=/proc/nowhere": (
        "storage: /proc/nowhere cannot be written: [Errno 2] Cannot create directory '/proc/nowhere'. "
        "Detail: [errno 2] No such file or directory"
    ),
    # text that is not there
    "corpus.valid.src=none.gz": "{store}/text/none.gz: no such file; correct the path",
    "corpus.valid.src=/": "/: is a directory; name a file in it",
    "corpus={source: iwslt14, archive: /no.tgz}": "/no.tgz: no such file; correct the path",
}


@pytest.mark.parametrize(("override", "expected"), VALUES.items(), ids=VALUES)
def test_a_value(said, override, expected):
    assert said(override) == expected


def test_more_logits_than_tokens(said):
    assert said("corpus.max_vocabulary=64", "kd.topk=65") == (
        "{yaml}: kd.topk 65 is more than corpus.max_vocabulary 64; lower it"
    )


@pytest.mark.parametrize("override", ["kd.topk=5000", "teacher.layers=3", "corpus.max_pair_tokens=510"])
def test_a_run_refuses_what_validate_refuses_of_the_bert(project, capsys, override, tmp_path):
    code = main(["run", str(project / "small.yaml"), override, f"storage={tmp_path}/store", "runtime=local"])
    expected = VALUES[override].replace("{store}", str(project))
    assert (code, capsys.readouterr().err.splitlines()[-1]) == (2, f"bertkd: error: {expected}")
    assert list(tmp_path.glob("store/corpus-*")) == []


def test_more_gpus_than_there_are(said, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    expected = "device: gpu with workers: 2, but this machine has 1 GPUs; lower workers or set device=auto"
    assert said("device=gpu", "workers=2") == expected


YAML = {
    "a key twice": (
        "name: x\nseed: 1\nkd: {alpha: 0}\nseed: 2\n",
        "{yaml}: not YAML: the key seed stands in line 2 and again in line 4; keep one",
    ),
    "a key twice below": (
        "name: x\nkd:\n  alpha: 0\n  alpha: 1\n",
        "{yaml}: not YAML: the key alpha stands in line 3 and again in line 4; keep one",
    ),
    "nothing": ("", "{yaml}: not a configuration; it must be a mapping of keys to values"),
    "a list": ("- name: x\n", "{yaml}: not a configuration; it must be a mapping of keys to values"),
    "an object": (
        "name: !!python/object/apply:os.system [ls]\n",
        "{yaml}: not YAML: could not determine a constructor for the tag "
        "'tag:yaml.org,2002:python/object/apply:os.system' in \"<file>\", line 1, column 7",
    ),
    "too deep": ("name: " + "[" * 5000, "{yaml}: not YAML: nested too deeply"),
    "in itself": (
        "name: x\narms: &a {x: *a}\n",
        '{yaml}: not YAML: found unconstructable recursive node in "<file>", line 2, column 7',
    ),
    "no UTF-8": (
        b"name: \xff\n",
        "{yaml}: not YAML: 'utf-8' codec can't decode byte 0xff in position 6: invalid start byte",
    ),
    "no corpus": ("name: x\n", "{yaml}: corpus is missing; docs/corpora.md has its forms"),
    "a number as key": ("name: x\n1: 2\ncorpus: {source: demo}\n", "{yaml}: 1: Keys should be strings (got 1)"),
}


@pytest.mark.parametrize(("content", "expected"), YAML.values(), ids=YAML)
def test_a_configuration(said, tmp_path, content, expected):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert said(config=path) == expected


GERMAN, ENGLISH = ([pair[side] for pair in demo_corpus(seed=3, train=100, valid=1, test=1)["train"]] for side in (0, 1))


def lines(of: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in of).encode()


THREE = b"a\nb\nc\n"
TEXT = {
    "a line too many": (
        lines([*GERMAN[:40], "Eine Zeile, die niemand übersetzt hat: 4711.", *GERMAN[40:]]),
        lines(ENGLISH),
        "{text}/a has 101 lines and {text}/b has 100; line-aligned files have equally many, and these seem to drift "
        "apart after about line 40",
    ),
    "a line too few": (
        lines(GERMAN),
        lines(ENGLISH[:70] + ENGLISH[71:]),
        "{text}/a has 100 lines and {text}/b has 99; line-aligned files have equally many, and these seem to drift "
        "apart after about line 69",
    ),
    "nobody knows where": (
        THREE,
        b"a\nb\n",
        "{text}/a has 3 lines and {text}/b has 2; line-aligned files have equally many",
    ),
    "carriage returns alone": (
        b"a\rb\rc\r",
        THREE,
        "{text}/a has 1 lines and {text}/b has 3; line-aligned files have equally many",
    ),
    "Latin-1": (
        b"ok\nsch\xf6n\nc\n",
        THREE,
        "{text}/a:2: not UTF-8 (byte 3 of the line, invalid start byte); convert it to UTF-8",
    ),
    "half a character": (
        THREE,
        b"ok\nb\n\xe2\x82\n",
        "{text}/b:3: not UTF-8 (byte 0 of the line, invalid continuation byte); convert it to UTF-8",
    ),
    "UTF-16": (
        "a\nb\nc\n".encode("utf-16-le"),
        THREE,
        "{text}/a has 4 lines and {text}/b has 3; line-aligned files have equally many",
    ),
    "UTF-16 with a mark": (
        "a\nb\nc\n".encode("utf-16"),
        THREE,
        "{text}/a:1: not UTF-8 (byte 0 of the line, invalid start byte); convert it to UTF-8",
    ),
    "empty source": (b"", THREE, "{text}/a: the file is empty; give a file with one sentence a line"),
    "empty target": (THREE, b"", "{text}/b: the file is empty; give a file with one sentence a line"),
    "blank source": (
        b"\n \n\t\r\n",
        THREE,
        "corpus.train: each of the 3 pairs has an empty side; give at least one pair",
    ),
    "blank here or there": (
        b"a\n\n",
        b"\nb\n",
        "corpus.train: each of the 2 pairs has an empty side; give at least one pair",
    ),
    "packed in a way that is not read": (
        b"PK\x03\x04...",
        THREE,
        "{text}/a: is a ZIP archive, not text; unpack it, or pack the text with gzip, bzip2, xz or zstd",
    ),
}


@pytest.fixture
def bad(project) -> Iterator[Path]:
    directory = project / "bad"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


def files(directory: Path, suffix: str = "") -> list[str]:
    return [f"corpus.train.src={directory}/a{suffix}", f"corpus.train.tgt={directory}/b"]


@pytest.mark.parametrize(("src", "tgt", "expected"), TEXT.values(), ids=TEXT)
def test_text(said, bad, src, tgt, expected):
    (bad / "a").write_bytes(src)
    (bad / "b").write_bytes(tgt)
    assert said(*files(bad)) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            gzip.compress(THREE * 1000)[:-9],
            "truncated or damaged gzip data (Compressed file ended before the end-of-stream marker was reached)",
        ),
        (b"", "the file is empty; give a file with one sentence a line"),
    ],
    ids=["cut off", "of no bytes"],
)
def test_compressed_text(said, bad, data, expected):
    (bad / "a.gz").write_bytes(data)
    (bad / "b").write_bytes(THREE)
    assert said(*files(bad, ".gz")) == f"{{text}}/a.gz: {expected}" + ("; copy the file again" if data else "")


@pytest.fixture
def permissions(tmp_path) -> None:
    """They say something to this user."""
    (tmp_path / "closed").touch(mode=0)
    if os.access(tmp_path / "closed", os.R_OK):
        pytest.skip("this user may read everything")


@pytest.mark.usefixtures("permissions")
def test_text_that_may_not_be_read(said, bad):
    (bad / "a").write_bytes(THREE)
    (bad / "a").chmod(0)
    expected = "{text}/a: cannot be read ([Errno 13] Permission denied: '{text}/a'); check the path and its permissions"
    assert said(*files(bad)) == expected


@pytest.mark.usefixtures("permissions")
def test_what_else_may_not_be_read_or_written(said, bad, project):
    config, store, bert = bad / "c.yaml", bad / "store", bad / "bert"
    config.write_bytes((project / "small.yaml").read_bytes())
    config.chmod(0)
    assert said(config=config) == (
        "{yaml}: Permission denied; give a YAML configuration, for example configs/demo.yaml"
    )
    store.mkdir(mode=0o500)
    assert said(f"storage={store}").startswith("storage: {text}/store cannot be written: [Errno 13]")
    shutil.copytree(project / "bert", bert)
    (bert / "model.safetensors").chmod(0)
    assert said(f"teacher.model={bert}").startswith("teacher.model: {text}/bert/model.safetensors")


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbfa\nb\nc\n",
        b"a\r\nb\r\nc\r\n",
        b"a\0b\n\x01\nc\n",
        "a\u2028b\nb\u0085c\nc\u2029\n".encode(),
        b"x" * 1_000_000 + b"\nb\nc\n",
        b"\nb\n\n",
        b"a\nb\nc",
        "e\u0301\n\u200b\n\ufeffc\n".encode(),
    ],
    ids=["BOM", "CRLF", "control", "separators", "a million", "empty lines", "no last line feed", "odd characters"],
)
def test_odd_text_is_text(project, bad, capsys, data):
    """Three lines, whatever stands in them; what becomes of each is told in tests/corpus/test_prepare*."""
    (bad / "a").write_bytes(data)
    (bad / "b").write_bytes(THREE)
    assert main(["validate", str(project / "small.yaml"), *files(bad)]) == 0
    assert "ok  train      3 pairs\n" in capsys.readouterr().out


def test_a_corpus_of_one_pair_and_of_equal_sides(project, bad, capsys):
    (bad / "a").write_bytes(b"a\n")
    (bad / "b").write_bytes(b"a\n")
    assert main(["validate", str(project / "small.yaml"), *files(bad)]) == 0
    assert "ok  train      1 pairs\n" in capsys.readouterr().out


def changed(**keys: object) -> Callable[[Path], None]:
    """Sets keys of `config.json`; None removes one."""

    def change(bert: Path) -> None:
        config = {**json.loads((bert / "config.json").read_text()), **keys}
        (bert / "config.json").write_text(
            json.dumps({key: value for key, value in config.items() if value is not None})
        )

    return change


def without(name: str) -> Callable[[Path], None]:
    return lambda bert: (bert / name).unlink()


def holding(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def write(bert: Path) -> None:
        (bert / name).write_bytes(change((bert / name).read_bytes()))

    return write


BERTS = {
    "another kind": (
        changed(model_type="t5"),
        "{bert}/config.json is of type t5; supported are bert, distilbert, ernie (any size, any language)",
    ),
    "no kind": (
        changed(model_type=None),
        "{bert}/config.json is of type None; supported are bert, distilbert, ernie (any size, any language)",
    ),
    "a decoder": (changed(is_decoder=True), "{bert}/config.json is a left-to-right decoder; name a BERT encoder"),
    "relative positions": (
        changed(position_embedding_type="relative_key"),
        "{bert}/config.json has relative_key positions; only absolute position embeddings are supported",
    ),
    "one segment": (
        changed(type_vocab_size=1),
        "{bert}/config.json has type_vocab_size 1; the teacher needs a segment for each language",
    ),
    "a word for a number": (
        changed(type_vocab_size="two"),
        "{bert}/config.json has type_vocab_size two; the teacher needs a segment for each language",
    ),
    "no layers": (
        changed(num_hidden_layers=0),
        "{bert}/config.json has num_hidden_layers 0; it must be a whole number above 0",
    ),
    "no width": (changed(hidden_size=None), "{bert}/config.json lacks hidden_size; name a complete BERT directory"),
    "heads that do not fit": (
        changed(num_attention_heads=3),
        "{bert}/config.json has num_attention_heads 3; they must divide its hidden_size 32",
    ),
    "text for a number": (
        changed(hidden_size="384"),
        "{bert}/config.json has hidden_size '384'; it must be a whole number above 0",
    ),
    "a truth value for a number": (
        changed(vocab_size=True),
        "{bert}/config.json has vocab_size True; it must be a whole number above 0",
    ),
    "a fraction of a head": (
        changed(num_attention_heads=7.5),
        "{bert}/config.json has num_attention_heads 7.5; it must be a whole number above 0",
    ),
    "an unknown activation": (
        changed(hidden_act="zap"),
        "{bert}/config.json has hidden_act 'zap'; it must be an activation of transformers, such as gelu or relu",
    ),
    "text for a share": (
        changed(hidden_dropout_prob="x"),
        "{bert}/config.json has hidden_dropout_prob 'x'; it must be a valid number",
    ),
    "deep nesting": (
        holding("config.json", lambda data: b"[" * 100_000),
        "{bert}/config.json cannot be read as JSON (maximum recursion depth exceeded while decoding a JSON array from "
        "a unicode string); name a complete model directory",
    ),
    "a list": (
        holding("config.json", lambda data: b"[]"),
        "{bert}/config.json is not a JSON object; name a complete model directory",
    ),
    "a vocabulary of another model": (
        changed(vocab_size=10),
        "the vocabulary in {bert} has 400 pieces, the model 10; "
        "name a directory whose tokenizer and model belong together",
    ),
    "no configuration": (
        without("config.json"),
        "{bert} has no config.json; name a directory that save_pretrained wrote",
    ),
    "a broken configuration": (
        holding("config.json", lambda data: b"{"),
        "{bert}/config.json cannot be read as JSON (Expecting property name enclosed in double quotes: "
        "line 1 column 2 (char 1)); name a complete model directory",
    ),
    "no tokenizer": (
        without("tokenizer.json"),
        "{bert} has neither tokenizer.json nor vocab.txt; name a complete BERT directory",
    ),
    "no mask": (
        holding("tokenizer.json", lambda data: data.replace(b"[MASK]", b"[MUSK]")),
        "{bert}: the vocabulary lacks [MASK]; name a BERT with all special tokens",
    ),
    "no weights": (
        without("model.safetensors"),
        "{bert} has no model.safetensors; convert the model with save_pretrained, only safetensors weights are read",
    ),
    "weights cut off": (
        holding("model.safetensors", lambda data: data[:-1]),
        "{bert}/model.safetensors is damaged or cut off "
        "(Error while deserializing header: incomplete metadata, file not fully covered); copy the file again",
    ),
    "weights of no bytes": (
        holding("model.safetensors", lambda data: b""),
        "{bert}/model.safetensors is damaged or cut off "
        "(Error while deserializing header: header too small); copy the file again",
    ),
}


@pytest.mark.parametrize(("change", "expected"), BERTS.values(), ids=BERTS)
def test_a_bert(said, project, change, expected):
    bert = project / "broken"
    shutil.copytree(project / "bert", bert)
    try:
        change(bert)
        assert said(f"teacher.model={bert}") == f"teacher.model: {expected}"
    finally:
        shutil.rmtree(bert)


def test_a_run_refuses_a_bert_before_it_begins(project, tmp_path, capsys):
    shutil.copytree(project / "bert", tmp_path / "bert")
    changed(intermediate_size=[64])(tmp_path / "bert")
    store = tmp_path / "store"
    assert main(["run", str(project / "small.yaml"), f"teacher.model={tmp_path / 'bert'}", f"storage={store}"]) == 2
    assert capsys.readouterr().err == (
        f"bertkd: error: teacher.model: {tmp_path}/bert/config.json has intermediate_size [64]; "
        "it must be a whole number above 0\n"
    )
    assert not list(store.glob("*-*"))


def test_swapped_languages_are_told_where_names_or_text_tell(project, bad, capsys):
    for name, of in (("a.en", ENGLISH), ("a.de", GERMAN), ("b", ENGLISH[-30:]), ("c", GERMAN[-30:])):
        (bad / name).write_bytes(lines(of))
    train = [f"corpus.train.src={bad}/a.en", f"corpus.train.tgt={bad}/a.de"]
    valid = [f"corpus.valid.src={bad}/b", f"corpus.valid.tgt={bad}/c"]
    assert main(["validate", str(project / "small.yaml"), *train, *valid]) == 0
    named, *rest = capsys.readouterr().err.splitlines()
    assert named == (
        f"validate  warning: corpus.train: {bad}/a.en is the source, in de, and {bad}/a.de the target, in en; "
        "swap the files, or src_lang and tgt_lang"
    )
    # The test set is right, and train is not.
    assert [line.partition("corpus.")[2].partition(":")[0] for line in rest] == ["test"]


@pytest.fixture
def computed(project, tmp_path, monkeypatch, capsys) -> Callable[..., list[str]]:
    """What a command says on stderr that computes in this process, its last line the mistake."""
    monkeypatch.setattr(Session, "runtime", InProcessRuntime())
    monkeypatch.setattr(InProcessRuntime, "close", lambda self: None, raising=False)

    def call(command: str, code: int, *overrides: str) -> list[str]:
        given = [str(project / "small.yaml"), *QUICK, f"storage={tmp_path}/store", "tracking=none", *overrides]
        assert main([*command.split(), *given]) == code
        err = capsys.readouterr().err
        assert "Traceback" not in err
        return err.splitlines()

    return call


@pytest.mark.parametrize("stage", ["teacher", "student"])
def test_a_loss_that_is_no_number(computed, stage):
    """Steps and rate are told; there is no artifact, and with a rate that works the rest is used as it is."""
    command = {"teacher": "finetune", "student": "distill --arm control"}[stage]
    wild = [f"{stage}.peak_lr=1e30", f"{stage}.warmup_steps={0 if stage == 'teacher' else 1}", f"{stage}.steps=8"]
    line = computed(command, 1, *wild)[-1]
    assert re.fullmatch(
        r"bertkd: error: the (gradient|loss) is not a number at step [2-8] \(learning rate [\d.e+]+\); "
        "the last checkpoint is kept; lower the learning rate or raise its warm-up",
        line,
    )
    said = computed(command, 0)
    assert any(line.startswith("prepare  cached") for line in said)


def test_k_larger_than_the_corpus_is_told_before_a_teacher_is_trained(computed, bad):
    for name in ("a", "b"):
        (bad / name).write_bytes(b"a\nb\n" * 20)
    few = [f"corpus.{split}.{side}={bad}/{name}" for split in ("train", "valid", "test") for side, name in SIDES]
    *before, line = computed("extract", 2, *few, "kd.topk=300")
    tokens = re.fullmatch(r"bertkd: error: kd\.topk: 300 is more than the (\d+) tokens of the corpus; lower it", line)
    assert tokens
    assert int(tokens[1]) < 300
    assert [said.partition("  ")[0] for said in before if "step" in said] == []


@pytest.mark.parametrize(
    ("src", "tgt"), [(b"Der Hund\n", b"The dog\n"), (b"a b\n" * 3, b"a b\n" * 3)], ids=["one pair", "equal sides"]
)
def test_a_corpus_that_teaches_nothing_is_carried_through(computed, bad, src, tgt):
    (bad / "a").write_bytes(src)
    (bad / "b").write_bytes(tgt)
    few = [f"corpus.{split}.{side}={bad}/{name}" for split in ("train", "valid", "test") for side, name in SIDES]
    computed("translate", 0, *few, "kd.topk=2")


SIDES = (("src", "a"), ("tgt", "b"))


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


UNREACHABLE = """
import sys
from bertkd_ray.core import timeouts
timeouts.TIMEOUT_SECONDS = 2.0
from bertkd_ray.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("key", ["storage", "corpus.train.src"])
def test_a_storage_that_never_answers_is_given_up(project, silent, key):
    """And the process ends, which pyarrow's own end would put off until S3 answers."""
    uri = f"s3://KEY:secret@bucket/x?endpoint_override=127.0.0.1:{silent}&scheme=http&region=us-east-1"
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", UNREACHABLE, "validate", str(project / "small.yaml"), f"{key}={uri}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    shown = f"s3://***@bucket/x?endpoint_override=127.0.0.1:{silent}&scheme=http&region=us-east-1"
    told = {
        "storage": f"storage: {shown} cannot be written: no answer within 2 seconds",
        "corpus.train.src": (
            f"{shown}: cannot be read (no answer within 2 seconds); check the path and its permissions"
        ),
    }
    assert (done.returncode, done.stderr) == (2, f"bertkd: error: {told[key]}\n")
    assert time.perf_counter() - started < 60


def test_a_storage_out_of_reach(said):
    """Nobody listens there: the library tries a few times."""
    line = said("storage=s3://KEY:secret@bucket/x?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1")
    shown = "s3://***@bucket/x?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1"
    assert line.startswith(f"storage: {shown} cannot be written: ")
    assert "Could not connect to server" in line or "no answer within 30 seconds" in line


def test_the_table_has_forty_rows():
    assert len(VALUES) + len(YAML) + len(TEXT) + len(BERTS) >= 40
