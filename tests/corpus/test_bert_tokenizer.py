from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer

from bertkd_ray.core.errors import UserError
from bertkd_ray.corpus.bert_tokenizer import SPECIAL_NAMES, bert_tokenizer_of, load_bert_tokenizer
from bertkd_ray.corpus.segmentation import Piece, Segmenter
from tests.corpus.berts import HAND_VOCABULARY, bert_of, pieces_of_words

BERT_ID = {piece: number for number, piece in enumerate(HAND_VOCABULARY)}
CASED_VOCABULARY = [*HAND_VOCABULARY, "Man", "M", "##än"]
TEXT = "Man Män MAN 中a ner's [MASK] 한 ﬁ"


def write(directory: Path, vocabulary: list[str] | None = None, fast: Tokenizer | None = None, **config: Any) -> Path:
    """A model directory with the given files; `model_type` goes to config.json, the rest to tokenizer_config.json."""
    directory.mkdir(exist_ok=True)
    model_type = config.pop("model_type", "bert")
    (directory / "config.json").write_text(json.dumps({"model_type": model_type}), encoding="utf-8")
    if vocabulary is not None:
        (directory / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    if fast is not None:
        fast.save(str(directory / "tokenizer.json"))
    if config:
        (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return directory


def pieces(directory: Path, text: str = TEXT) -> list[str]:
    return load_bert_tokenizer(directory).tokenizer.encode(text, add_special_tokens=False).tokens


# --- what is loaded --------------------------------------------------------------------------------------------------

STATED = {
    "uncased": {"do_lower_case": True},
    "cased": {"do_lower_case": False},
    "uncased with accents": {"do_lower_case": True, "strip_accents": False},
    "cased without accents": {"do_lower_case": False, "strip_accents": True},
    "Chinese in words": {"do_lower_case": True, "tokenize_chinese_chars": False},
}


@pytest.mark.parametrize("form", ["vocabulary", "fast", "both", "contradicted"])
@pytest.mark.parametrize("stated", STATED.values(), ids=STATED)
def test_every_form_is_cut_as_transformers_cuts_it(tmp_path: Path, stated: dict[str, bool], form: str) -> None:
    vocabulary = None if form in ("fast", "contradicted") else CASED_VOCABULARY
    write(tmp_path, vocabulary, tokenizer_class="BertTokenizer", **stated)
    if form != "vocabulary":
        lowercase = stated["do_lower_case"] != (form == "contradicted")
        chinese, accents = stated.get("tokenize_chinese_chars", True), stated.get("strip_accents")
        fast = bert_of(CASED_VOCABULARY, lowercase=lowercase, chinese=chinese, strip_accents=accents)
        fast.save(str(tmp_path / "tokenizer.json"))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    plain = TEXT.replace("[MASK]", "")
    assert pieces(tmp_path, plain) == theirs.tokenize(plain)
    assert load_bert_tokenizer(tmp_path).special_ids == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("lowercase", [True, False])
def test_a_tokenizer_json_alone_keeps_its_casing(tmp_path: Path, lowercase: bool) -> None:
    # AutoTokenizer lower-cases here whatever the file says.
    write(tmp_path, fast=bert_of(CASED_VOCABULARY, lowercase=lowercase))
    assert pieces(tmp_path, "Man") == ["man" if lowercase else "Man"]


def test_a_vocabulary_alone_is_cased_if_it_has_capitals(tmp_path: Path) -> None:
    assert pieces(write(tmp_path / "uncased", HAND_VOCABULARY), "MAN") == ["man"]
    assert pieces(write(tmp_path / "cased", CASED_VOCABULARY), "Man man MAN") == ["Man", "man", "[UNK]"]


def test_windows_line_ends_and_a_missing_last_one(tmp_path: Path) -> None:
    write(tmp_path)
    for content in ("\r\n".join(HAND_VOCABULARY) + "\r\n", "\n".join(HAND_VOCABULARY)):
        (tmp_path / "vocab.txt").write_bytes(content.encode())
        loaded = load_bert_tokenizer(tmp_path)
        assert loaded.tokenizer.get_vocab() == BERT_ID


def test_a_distilbert_directory_is_loaded(tmp_path: Path) -> None:
    write(tmp_path, HAND_VOCABULARY, tokenizer_class="DistilBertTokenizerFast", model_type="distilbert")
    assert pieces_of_words(Segmenter(load_bert_tokenizer(tmp_path)), ["man"])[0] == [Piece("▁man", BERT_ID["man"])]


def test_truncation_padding_and_added_tokens_are_left_out() -> None:
    tokenizer = bert_of(HAND_VOCABULARY)
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=8)
    tokenizer.add_special_tokens([AddedToken("[MASK]", special=True)])
    tokenizer.add_tokens(["mans"])
    loaded = bert_tokenizer_of(tokenizer, "x").tokenizer
    assert loaded.encode("a b a").ids == [BERT_ID["a"], BERT_ID["b"], BERT_ID["a"]]
    assert loaded.encode("manner mans").tokens == ["man", "##ner", "[UNK]"]
    assert loaded.encode("[MASK]").ids == [BERT_ID["[UNK]"]] * 3
    assert loaded.get_vocab_size() == len(HAND_VOCABULARY)
    assert tokenizer.truncation is not None  # the caller's is left as it was


def test_special_tokens_of_other_names(tmp_path: Path) -> None:
    others = ["<p>", "<u>", "<c>", "<s>", "<m>"]
    names = {f"{kind}_token": name for kind, name in zip(("pad", "unk", "cls", "sep", "mask"), others, strict=True)}
    vocabulary = ["man", *reversed(others)]
    loaded = load_bert_tokenizer(write(tmp_path, vocabulary, **{**names, "cls_token": {"content": "<c>"}}))
    assert loaded.special_ids == (5, 4, 3, 2, 1)
    assert loaded.tokenizer.encode("man x").ids == [0, 4]


def test_import_is_light() -> None:
    script = "import sys, bertkd_ray.corpus.bert_tokenizer; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    environment = {"PYTHONPATH": ":".join(sys.path)}
    ran = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


# --- what is refused -------------------------------------------------------------------------------------------------


def error_message(directory: Path) -> str:
    with pytest.raises(UserError) as refused:
        load_bert_tokenizer(directory)
    message = str(refused.value)
    assert message.startswith(f"teacher.model: {directory}")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("form", ["vocabulary", "fast"])
def test_a_vocabulary_without_special_tokens_is_refused_by_name(tmp_path: Path, form: str) -> None:
    vocabulary = [piece for piece in HAND_VOCABULARY if piece not in ("[CLS]", "[MASK]")]
    fast = bert_of(vocabulary)
    fast.add_special_tokens(["[CLS]", "[MASK]"])  # ids for which the model has no rows
    write(tmp_path, **({"fast": fast} if form == "fast" else {"vocabulary": vocabulary}))
    assert "the vocabulary lacks [CLS] [MASK]; name a BERT with all special tokens" in error_message(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        {"word_tokenizer_type": "mecab", "subword_tokenizer_type": "wordpiece"},
        {"word_tokenizer_type": "mecab", "subword_tokenizer_type": "character"},
        {"word_tokenizer_type": "basic", "subword_tokenizer_type": "wordpiece"},
    ],
)
def test_japanese_bert_is_refused_by_name(tmp_path: Path, config: dict[str, str]) -> None:
    # Its words are cut by MeCab before WordPiece sees them, which `vocab.txt` does not show.
    write(tmp_path, HAND_VOCABULARY, tokenizer_class="BertJapaneseTokenizer", **config)
    assert "its tokenizer is BertJapaneseTokenizer, not BERT's WordPiece alone" in error_message(tmp_path)


def test_a_tokenizer_class_named_by_the_model_is_looked_at_too(tmp_path: Path) -> None:
    write(tmp_path, HAND_VOCABULARY)
    (tmp_path / "config.json").write_text('{"model_type": "bert", "tokenizer_class": "BertJapaneseTokenizer"}')
    assert "BertJapaneseTokenizer" in error_message(tmp_path)


@pytest.mark.parametrize(
    "model", [models.BPE(), models.Unigram(), models.WordLevel({"a": 0}), models.WordPiece({"a": 0}, unk_token="a")]
)
def test_a_tokenizer_that_is_not_berts_is_refused(tmp_path: Path, model: models.Model) -> None:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if isinstance(model, models.WordPiece):
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        expected = "its tokenizer does not split words as BERT does"
    else:
        expected = f"its tokenizer is {type(model).__name__}, not BERT's WordPiece"
    assert expected in error_message(write(tmp_path, fast=tokenizer, tokenizer_class="BertTokenizer"))


def test_another_mark_of_continuation_is_refused() -> None:
    tokenizer = bert_of(SPECIAL_NAMES)
    tokenizer.model = models.WordPiece({"[UNK]": 0}, unk_token="[UNK]")
    tokenizer.model.continuing_subword_prefix = "@@"
    with pytest.raises(UserError, match=r"^teacher\.model: mine: its tokenizer is WordPiece, not BERT's WordPiece"):
        bert_tokenizer_of(tokenizer, "mine")


def test_what_is_absent_or_damaged_is_refused(tmp_path: Path) -> None:
    assert "has neither tokenizer.json nor vocab.txt" in error_message(tmp_path / "absent")
    (tmp_path / "vocab.txt").write_bytes(b"\xff\n")
    assert "vocab.txt cannot be read as UTF-8" in error_message(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{bad", encoding="utf-8")
    assert "tokenizer.json cannot be read as JSON" in error_message(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Other"}}', encoding="utf-8")
    assert "tokenizer.json is not a tokenizer" in error_message(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[]", encoding="utf-8")
    assert "tokenizer_config.json is not a JSON object" in error_message(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("do_lower_case", "yes"),
        ("strip_accents", 1),
        ("tokenize_chinese_chars", [True]),
        ("unk_token", 5),
        ("cls_token", {"contents": "[CLS]"}),
        ("mask_token", ["[MASK]"]),
    ],
)
@pytest.mark.parametrize("form", ["vocabulary", "fast"])
def test_a_configuration_of_other_types_is_refused_by_key(tmp_path: Path, key: str, value: Any, form: str) -> None:
    write(tmp_path, HAND_VOCABULARY, bert_of(HAND_VOCABULARY) if form == "fast" else None, **{key: value})
    assert f"tokenizer_config.json has {key} {value!r}; give what save_pretrained writes" in error_message(tmp_path)


def test_null_says_nothing(tmp_path: Path) -> None:
    write(tmp_path, HAND_VOCABULARY, do_lower_case=None, strip_accents=None, unk_token=None)
    assert pieces(tmp_path, "MAN") == ["man"]


def test_a_configuration_that_is_too_deep_is_refused(tmp_path: Path) -> None:
    write(tmp_path, HAND_VOCABULARY)
    (tmp_path / "tokenizer_config.json").write_text('{"a":' * 100_000)
    assert "tokenizer_config.json cannot be read as JSON" in error_message(tmp_path)
