"""Finding a BERT, its special tokens and its hashes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from bertkd_ray.core.errors import UserError
from bertkd_ray.corpus.bert_tokenizer import tokenizer_hash
from bertkd_ray.teacher.masking import BertSpecials
from bertkd_ray.teacher.source import (
    bert_config,
    bert_specials,
    check_bert,
    model_hash,
    resolve_model,
    weight_files,
)

CONFIG = {
    "model_type": "bert",
    "vocab_size": 6,
    "hidden_size": 4,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 512,
}
VOCABULARY = "[PAD]\n[UNK]\n[CLS]\n[MASK]\n[SEP]\nhello\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The files of a BERT; the weights are never read here."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "vocab.txt").write_text(VOCABULARY)
    save_file({"weights": np.zeros(2)}, tmp_path / "model.safetensors")
    return tmp_path


def test_directory_is_used_as_it_is(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_model(str(directory)) == str(directory)
    monkeypatch.chdir(directory.parent)
    assert resolve_model(directory.name) == str(directory)


def test_directory_inside_a_package(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = directory / "site" / "some_bert_package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    shutil.copytree(directory, package / "model", ignore=shutil.ignore_patterns("site"))
    monkeypatch.syspath_prepend(directory / "site")
    assert resolve_model("package:some_bert_package/model") == str(package / "model")
    with pytest.raises(UserError, match="no directory other"):
        resolve_model("package:some_bert_package/other")


def test_missing_package_says_what_to_install() -> None:
    with pytest.raises(UserError, match="pip install no-such-bert"):
        resolve_model("package:no_such_bert/model")


@pytest.mark.parametrize("source", ["./absent", "/absent/model", "~/absent/model"])
def test_missing_directory_is_not_looked_up_on_the_hub(source: str) -> None:
    with pytest.raises(UserError, match="there is no directory"):
        resolve_model(source)


def test_directory_without_configuration(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        resolve_model(str(tmp_path))


@pytest.mark.parametrize("model_id", ["nobody/no-such-bert", "not an id"])
def test_unknown_hub_model_offline_is_one_line(model_id: str, tmp_path: Path) -> None:
    """In a process of its own: huggingface_hub reads its environment when it is imported."""
    script = (
        "from bertkd_ray.core.errors import UserError\n"
        "from bertkd_ray.teacher.source import resolve_model\n"
        f"try:\n    resolve_model({model_id!r})\nexcept UserError as error:\n    print(error)\n"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    ran = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.count("\n") == 1
    assert f"teacher.model: {model_id} is neither" in ran.stdout
    assert "HF_HUB_OFFLINE=1 is set" in ran.stdout


def test_import_is_light() -> None:
    script = "import sys, bertkd_ray.teacher.source as s; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    environment = {"PYTHONPATH": ":".join(sys.path)}
    ran = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


OTHER_KINDS = [
    *("roberta", "xlm-roberta", "camembert", "modernbert", "electra", "albert", "deberta", "deberta-v2", "mpnet"),
    *("mobilebert", "t5", "mt5", "gpt2", "llama", "bert-generation", None),
]


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_other_model_types_are_refused_by_name(directory: Path, kind: str | None) -> None:
    (directory / "config.json").write_text(json.dumps({"model_type": kind}))
    for look in (bert_config, lambda path: check_bert(path, weights=True)):
        with pytest.raises(UserError, match=rf"^teacher\.model: .*type {kind}; supported are bert, distilbert, ernie"):
            look(directory)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"position_embedding_type": "relative_key"}, "has relative_key positions; only absolute"),
        ({"is_decoder": True}, "left-to-right"),
        ({"type_vocab_size": 1}, "has type_vocab_size 1; the teacher needs a segment for each"),
        ({"hidden_size": None}, r"config\.json lacks hidden_size; name a complete BERT"),
    ],
)
def test_berts_that_cannot_be_a_teacher_are_refused(directory: Path, change: dict[str, object], message: str) -> None:
    (directory / "config.json").write_text(json.dumps({**CONFIG, **change}))
    with pytest.raises(UserError, match=message):
        bert_config(directory)


@pytest.mark.parametrize("value", ["384", 7.5, True, [4], {}, -1, 10**30, float("nan"), float("inf"), "4" * 9])
@pytest.mark.parametrize("key", ["vocab_size", "num_attention_heads", "intermediate_size", "pad_token_id"])
def test_a_value_of_another_kind_is_named(directory: Path, key: str, value: object) -> None:
    (directory / "config.json").write_text(json.dumps({**CONFIG, key: value}))
    with pytest.raises(UserError, match=rf"config\.json has {key} {re.escape(repr(value))}; (it|they) must [^\n]+$"):
        bert_config(directory)


@pytest.mark.parametrize("key", ["num_hidden_layers", "num_attention_heads", "layer_norm_eps"])
def test_null_is_no_value(directory: Path, key: str) -> None:
    (directory / "config.json").write_text(json.dumps({**CONFIG, key: None}))
    with pytest.raises(UserError, match=rf"config\.json lacks {key}; name a complete BERT directory$"):
        bert_config(directory)


def test_a_key_is_named_as_the_file_has_it(directory: Path) -> None:
    distilbert = {"model_type": "distilbert", "dim": 32, "n_heads": 5}
    (directory / "config.json").write_text(json.dumps(distilbert))
    with pytest.raises(UserError, match=r"config\.json has n_heads 5; they must divide its hidden_size 32$"):
        bert_config(directory)


def test_broken_configuration_is_named(directory: Path) -> None:
    (directory / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        bert_config(directory)


def test_specials_from_the_word_list(directory: Path) -> None:
    assert bert_specials(directory) == BertSpecials(pad=0, cls=2, sep=4, mask=3)


def test_what_is_wrong_is_told_before_weights_are_loaded(directory: Path) -> None:
    assert check_bert(directory, weights=True)["num_hidden_layers"] == 2
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    assert check_bert(directory, weights=False)["num_hidden_layers"] == 2
    with pytest.raises(UserError, match=r"has no model\.safetensors; convert the model with save_pretrained"):
        check_bert(directory, weights=True)
    (directory / "vocab.txt").write_text(VOCABULARY + "more\n")
    with pytest.raises(UserError, match=r"vocabulary in .* has 7 pieces, the model 6"):
        check_bert(directory, weights=False)
    (directory / "vocab.txt").write_text("[PAD]\n[CLS]\n[SEP]\n")
    with pytest.raises(UserError, match=r"lacks \[UNK\] \[MASK\]"):
        check_bert(directory, weights=False)
    (directory / "tokenizer_config.json").write_text('{"tokenizer_class": "BertJapaneseTokenizer"}')
    with pytest.raises(UserError, match="its tokenizer is BertJapaneseTokenizer"):
        check_bert(directory, weights=False)


def test_how_many_logits_are_stored_is_for_the_corpus_to_say(directory: Path) -> None:
    assert check_bert(directory, weights=True, topk=7)["num_hidden_layers"] == 2
    with pytest.raises(UserError, match=r"^kd\.topk: 61 is more than the vocabulary of 6 pieces; lower it$"):
        check_bert(directory, weights=True, topk=61)


def test_model_hash_is_that_of_the_content(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    before, tokenizer = model_hash(directory), tokenizer_hash(directory)
    copy = tmp_path_factory.mktemp("elsewhere") / "copy"
    shutil.copytree(directory, copy)
    (copy / "README.md").write_text("ignored")
    (copy / "pytorch_model.bin").write_bytes(b"ignored")
    assert model_hash(copy) == before
    assert len(before) == 64
    (copy / "model.safetensors").write_bytes(b"other weights")
    assert model_hash(copy) != before
    assert tokenizer_hash(copy) == tokenizer
    (copy / "vocab.txt").write_text("[PAD]\n")
    assert tokenizer_hash(copy) != tokenizer


@pytest.mark.parametrize(
    "weight_map",
    [{"a": "../model.safetensors"}, {"a": "sub/model.safetensors"}, {"a": "model.bin"}, {"a": 1}, [], None],
)
def test_an_index_names_files_beside_it_alone(directory: Path, weight_map: object) -> None:
    """Others would be read, but are not in the hash."""
    (directory / "model.safetensors").rename(directory / "part.safetensors")
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "part.safetensors"}}))
    assert weight_files(directory) == [directory / "part.safetensors"]
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(UserError, match=r"index\.json names no safetensors files beside it"):
        check_bert(directory, weights=True)


def test_hash_knows_where_a_file_ends(directory: Path) -> None:
    first = tokenizer_hash(directory)
    content = (directory / "vocab.txt").read_text()
    (directory / "vocab.txt").write_text(content[:-1])
    (directory / "added_tokens.json").write_text(content[-1])
    assert tokenizer_hash(directory) != first
