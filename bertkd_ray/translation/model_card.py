"""The README.md of an export: the model, its data, method, scores and limits.

Written from the manifests alone; what a store holds no longer is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, Literal

import yaml

from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.config import with_current_keys
from bertkd_ray.config.corpus import SPLITS
from bertkd_ray.core.console import human_count
from bertkd_ray.core.text_tables import NO_VALUE, number, piped
from bertkd_ray.student.lineage import Lineage
from bertkd_ray.training.curves import VALID_ACCURACY, VALID_BLEU
from bertkd_ray.translation.lines import LineSettings

CARD = "README.md"
Form = Literal["ctranslate2", "huggingface"]

_UNKNOWN_LICENSE = "unknown"
_PAPER = "https://arxiv.org/abs/1911.03829"
_TRANSFORMERS = """\
```python
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

directory = "."
model = AutoModelForSeq2SeqLM.from_pretrained(directory)
tokenizer = AutoTokenizer.from_pretrained(directory)
found = model.generate(**tokenizer(["..."], return_tensors="pt"))
print(tokenizer.batch_decode(found, skip_special_tokens=True))
```

The search is that of `generation_config.json`: `generate` divides a hypothesis' log-probability by length^x.
"""
_CTRANSLATE2 = """\
```python
import ctranslate2
import tokenizers

directory = "."
translator = ctranslate2.Translator(directory)
tokenizer = tokenizers.Tokenizer.from_file(f"{{directory}}/tokenizer.json")
found = translator.translate_batch([tokenizer.encode("...").tokens], beam_size={beam}, length_penalty={penalty:g})
print(tokenizer.decode([tokenizer.token_to_id(token) for token in found[0].hypotheses[0]]))
```

CTranslate2 divides a hypothesis' log-probability by length^x.
"""
_METHOD = """\
Distillation of a BERT into a translation model, after [Distilling Knowledge Learned in BERT for Text
Generation]({paper}) (Chen, Gan, Cheng, Liu and Liu, ACL 2020). A BERT is finetuned to fill in
masked tokens of a translation while it sees the source and the tokens on both sides (a conditional masked language
model); what it expects at every position of the training text, its {topk} best tokens, is the soft label that the
student learns beside the reference.
"""
_NO_TEACHER = """\
Trained on the references alone, without a teacher: the control of a distillation after [Distilling Knowledge Learned in
BERT for Text Generation]({paper}) (Chen, Gan, Cheng, Liu and Liu, ACL 2020).
"""
_LIMITS = """\
- Trained on sentence pairs of at most {max_tokens} tokens a side, without context: longer text is to be split into
  sentences first, and what depends on the sentence before (pronouns, terms) may come out wrong.
- The training text's domain is the model's. Names, numbers and negations can be changed, words left out or made up, and
  nothing in the output tells; do not rely on it unread where an error does harm.
- Biases of the training text, and of the BERT that taught it, have not been measured.
- The scores above are automatic and of one test set; a difference of a few tenths of BLEU is not one of quality.
"""
_CITATION = """\
```bibtex
@inproceedings{chen2020distilling,
  title     = {Distilling Knowledge Learned in {BERT} for Text Generation},
  author    = {Chen, Yen-Chun and Gan, Zhe and Cheng, Yu and Liu, Jingzhou and Liu, Jingjing},
  booktitle = {Proceedings of the 58th Annual Meeting of the Association for Computational Linguistics},
  year      = {2020}
}
```
"""


def model_card(lineage: Lineage, settings: LineSettings, form: Form, *, license: str | None = None) -> str:
    """The card as Markdown with YAML front matter.

    license: an identifier of the hub (`apache-2.0`, `cc-by-4.0`, `other`); None is `unknown`, for the user to change.
    """
    sections = {
        "": _summary(lineage, settings, license),
        "Use": _use(settings, form),
        "Data": _data(lineage),
        "Method": _method(lineage),
        "Scores": _scores(lineage),
        "Settings": _settings(lineage.student),
        "Limits": _LIMITS.format(max_tokens=settings.max_tokens),
        "Made from": _made_from(lineage),
        "Citation": _CITATION,
    }
    body = "\n".join(f"## {name}\n\n{text}" if name else text for name, text in sections.items() if text)
    return f"---\n{_front_matter(lineage, settings, form, license)}---\n\n{body}"


def _front_matter(lineage: Lineage, settings: LineSettings, form: Form, license: str | None) -> str:
    tags = ["translation", "knowledge-distillation", "bertkd-ray", *(["ctranslate2"] if form == "ctranslate2" else [])]
    tree: dict[str, Any] = {
        "language": [lang for lang in (settings.src_lang, settings.tgt_lang) if lang],
        "license": license or _UNKNOWN_LICENSE,
        "library_name": "transformers" if form == "huggingface" else "ctranslate2",
        "pipeline_tag": "translation",
        "tags": tags,
        "datasets": _datasets(lineage.corpus),
        "metrics": ["bleu", "chrf"],
    }
    return str(yaml.safe_dump({key: value for key, value in tree.items() if value}, sort_keys=False))


def _datasets(corpus: Artifact | None) -> list[str]:
    """Names of the corpus' inputs; a manifest names text by its content, not by its path."""
    if corpus is None:
        return []
    inputs = corpus.inputs
    if "demo" in inputs:
        return ["bertkd-ray-demo"]
    return ["iwslt14"] if "archive" in inputs else [corpus.directory]


def _summary(lineage: Lineage, settings: LineSettings, license: str | None) -> str:
    pair = f"{settings.src_lang}-{settings.tgt_lang}" if settings.src_lang else "translation"
    taught = "distilled from a BERT" if "softlabels" in lineage.student.inputs else "trained without a teacher"
    size = human_count(lineage.student.metrics["parameters"])
    lines = [
        f"# {pair} student\n",
        f"A Transformer of {size} parameters that translates {_direction(settings)}, {taught} with bertkd_ray.",
    ]
    if not license:
        lines.append("Its license has not been set; the licenses of the training text and of the BERT decide on it.")
    return "\n".join(lines) + "\n"


def _direction(settings: LineSettings) -> str:
    return f"`{settings.src_lang}` into `{settings.tgt_lang}`" if settings.src_lang else "text"


def _use(settings: LineSettings, form: Form) -> str:
    penalty = settings.length_penalty
    example = _TRANSFORMERS if form == "huggingface" else _CTRANSLATE2.format(beam=settings.beam, penalty=penalty)
    lines = [
        example,
        f"The scores below are of beam {settings.beam} and the GNMT length penalty ((5 + length) / 6)^{penalty:g}, as",
        "`bertkd translate DIRECTORY FILE` searches; it also splits long lines into sentences.",
    ]
    if settings.text != "raw":
        form_of_text = "Moses tokens" if settings.text == "moses" else "lower-cased Moses tokens"
        lines += [
            "",
            f"**The model reads and writes {form_of_text}**, without Moses' escapes: tokenise its input and detokenise",
            "its output with sacremoses, or use `bertkd translate`, which does both.",
        ]
    return "\n".join(lines) + "\n"


def _data(lineage: Lineage) -> str:
    corpus = lineage.corpus
    if corpus is None:
        return f"The corpus `{lineage.student.inputs['corpus']}`, which was not at hand for this card.\n"
    info, config = corpus.info, corpus.config
    rows = [["split", "pairs", "read", "source tokens", "target tokens"]]
    for split in SPLITS:
        counts, names = info["splits"][split], ("pairs", "read", "src_tokens", "tgt_tokens")
        rows.append([split, *(f"{counts[name]:,}" if name in counts else NO_VALUE for name in names)])
    rules = [f"at most {config['max_side_tokens']} tokens a side", *_rules(config["clean"])]
    case = "lower-cased" if config["lowercase"] else "cased"
    return "\n".join(
        [
            f"Parallel text, `{info['src_lang']}` to `{info['tgt_lang']}`, {case}, form `{info['text']}`;",
            f"a vocabulary of {info['vocabulary']:,} tokens for both languages.",
            "",
            *piped(rows),
            "",
            f"Left out of training: pairs with an empty side or over the limits ({', '.join(rules)}).",
            "Test pairs that were given as files are all kept.",
            "",
        ]
    )


def _rules(clean: dict[str, Any]) -> Iterator[str]:
    for name, value in clean.items():
        if value:
            yield f"{name.replace('_', ' ')}{'' if value is True else f' {value}'}"


def _method(lineage: Lineage) -> str:
    if "softlabels" not in lineage.student.inputs:
        return _NO_TEACHER.format(paper=_PAPER)
    lines = [_METHOD.format(paper=_PAPER, topk=lineage.student.config["kd"]["topk"])]
    if lineage.teacher is not None:
        teacher, metrics = lineage.teacher.info, lineage.teacher.metrics
        trained = f"{int(metrics['steps']):,} steps, {human_count(metrics['parameters'])} parameters"
        accuracy = metrics.get(VALID_ACCURACY)
        quality = f", {accuracy:.1%} of the masked tokens of valid right" if accuracy is not None else ""
        lines.append(f"Teacher: {_bert_name(teacher['bert'])}, {trained}{quality}.\n")
    return "\n".join(lines)


def _bert_name(source: str) -> str:
    """A hub id or a package as they are; of a directory the last part, since the rest is of the machine it was on."""
    path = PurePath(source)
    return f"`{path.name if path.is_absolute() or source.startswith(('.', '~')) else source}`"


def _scores(lineage: Lineage) -> str:
    valid = lineage.student.metrics.get(VALID_BLEU)
    rows = [["text", "beam", "length penalty", "BLEU", "chrF", "sentences"]]
    rows.append(["valid, in training", "1", NO_VALUE, number(valid, ".2f"), NO_VALUE, NO_VALUE])
    signatures: dict[str, None] = {}
    for translation in lineage.translations:
        search, metrics = translation.config["translate"], translation.metrics
        figures = [number(metrics[f"test/{name}"], ".2f") for name in ("bleu", "chrf")]
        sentences = f"{int(metrics['test/sentences']):,}"
        rows.append(["test", str(search["beam"]), f"{search['length_penalty']:g}", *figures, sentences])
        signatures |= dict.fromkeys(translation.info["signatures"].values())
    items = [f"- `{signature}`" for signature in signatures]
    return "\n".join([*piped(rows), "", *(["Signatures of sacrebleu:", "", *items, ""] if items else [])])


def _settings(student: Artifact) -> str:
    config = with_current_keys(student.config)
    tree = {**config["student"], **{f"kd.{key}": value for key, value in config["kd"].items()}}
    tree |= {"seed": config["seed"], "precision": config["precision"], "best step": int(student.metrics["best_step"])}
    rows = [[key, NO_VALUE if value is None else str(value)] for key, value in tree.items()]
    return "\n".join(piped([["setting", "value"], *rows])) + "\n"


def _made_from(lineage: Lineage) -> str:
    """The artifacts behind the model, and the versions of the libraries that trained it."""
    parts = [lineage.student, lineage.corpus, lineage.softlabels, lineage.teacher, *lineage.translations]
    artifacts = [f"- `{part.directory}`, {part.created}" for part in parts if part is not None]
    versions = ", ".join(f"{name} {version}" for name, version in lineage.student.libraries.items())
    return "\n".join([*artifacts, "", f"With {versions}.", ""])
