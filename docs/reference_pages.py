"""Sphinx extension: the pages of docs/reference/ end with what the code itself declares.

Configuration: the fields of the pydantic models. Commands: the parser. Python: the docstrings of the public names.
Artifacts: the Arrow schemas, a manifest that is written for the purpose, and the docstrings of the names that the files
have. What the code leaves undescribed, or describes without having it, fails the build.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import json
import os
import re
import tempfile
import textwrap
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from sphinx.application import Sphinx

import bertkd_ray
from bertkd_ray.artifacts.artifact import PendingArtifact
from bertkd_ray.artifacts.store import Store
from bertkd_ray.cli import make_parser
from bertkd_ray.config import NOT_PART_OF_A_RESULT, Config
from bertkd_ray.config.section import Section
from bertkd_ray.config.study import StudyConfig
from bertkd_ray.core.stages import STAGES
from bertkd_ray.corpus.passes import CORPUS_SCHEMA
from bertkd_ray.corpus.tokenizer import BERT_IDS_SCHEMA
from bertkd_ray.execution.dead_letters import DEAD_LETTERS_SCHEMA
from bertkd_ray.execution.stage import stage_module
from bertkd_ray.softlabels.decode import DECODED_SCHEMA
from bertkd_ray.softlabels.shards import shard_schema
from bertkd_ray.translation import parts

USAGE_COLUMNS = "88"
_REST = re.compile(r"^The rest of this page is made by `make docs`.*\n", re.MULTILINE)
"""For those who read a page's source."""


def setup(app: Sphinx) -> dict[str, Any]:
    """Appends the generated part to each page as it is read."""
    pages: dict[str, Callable[[], Iterator[str]]] = {
        "reference/configuration": configuration,
        "reference/commands": commands,
        "reference/artifacts": artifacts,
        "reference/python": python,
    }

    def complete(app: Sphinx, page: str, source: list[str]) -> None:
        if page in pages:
            source[0] = "\n\n".join([_REST.sub("", source[0]), *pages[page]()])

    app.connect("source-read", complete)
    # The code may have changed where the page has not.
    app.connect("env-get-outdated", lambda *_: list(pages))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _definition(term: str, *sentences: str) -> str:
    return f"{term}\n: " + " ".join(filter(None, sentences)).replace("\n", " ")


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |" for cells in lines)


# Configuration

_STUDY = "study."
"""Before the anchors of a study's keys, some of which a pipeline has too."""


def configuration() -> Iterator[str]:
    """Every key of a configuration and of a study file."""
    yield "## The pipeline"
    yield from _section(Config, "")
    written: set[type[Section]] = set()
    for key, field in Config.model_fields.items():
        section = _section_of(field.annotation)
        if section and section not in written:
            written.add(section)
            yield from _headed(section, key)
    yield "## A study file"
    yield _doc(StudyConfig)
    yield from _section(StudyConfig, _STUDY)


def _headed(section: type[Section], path: str) -> Iterator[str]:
    """A section and, below it, the sections in it; one that stands under several keys is written once."""
    yield f"## `{path}`"
    yield _doc(section)
    yield from _section(section, f"{path}.")
    inner: dict[type[Section], list[str]] = {}
    for key, field in section.model_fields.items():
        if below := _section_of(field.annotation):
            inner.setdefault(below, []).append(f"{path}.{key}")
    for below, paths in inner.items():
        yield "### " + ", ".join(f"`{path}`" for path in paths)
        yield _doc(below)
        yield from _section(below, f"{paths[0]}.")


def _section(section: type[Section], above: str) -> Iterator[str]:
    for key, field in section.model_fields.items():
        if field.description is None:
            raise ValueError(f"{section.__name__}.{key} has no docstring")
        is_free = section is Config and key in NOT_PART_OF_A_RESULT
        name = (above + key).removeprefix(_STUDY)
        anchor = re.sub(r"[._]", "-", above + key)
        term = f"`{name}`{{#{anchor}}} *{_value(field)}*"
        yield _definition(term, inspect.cleandoc(field.description), "Not part of a result." if is_free else "")


def _value(field: FieldInfo) -> str:
    """Type, bounds and default of a key."""
    parts = [_type(field.annotation), *_bounds(field.metadata)]
    if field.is_required():
        parts.append("required")
    elif field.default is not PydanticUndefined and not isinstance(field.default, Section):
        default = field.default if isinstance(field.default, str) else json.dumps(field.default)
        parts.append(f"default `{default}`")
    return ", ".join(parts)


def _type(annotation: Any) -> str:
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        bounds = [bound for constraint in metadata for bound in _bounds(getattr(constraint, "metadata", []))]
        return _type(inner) + (f" ({', '.join(bounds)})" if bounds else "")
    arguments = get_args(annotation)
    match get_origin(annotation):
        case None:
            return "section" if _section_of(annotation) else _NAMES[annotation]
        case origin if origin is Literal:
            return " or ".join(f"`{value}`" for value in arguments)
        case origin if origin in (Union, types.UnionType):
            return " or ".join(map(_type, arguments))
        case origin if origin is list:
            return f"list of {_type(arguments[0])}s"
        case origin if origin is tuple:
            return f"[{', '.join(map(_type, arguments))}]"
        case _:
            return f"mapping of {_type(arguments[0])} to {_type(arguments[1])}"


_NAMES = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "`true` or `false`",
    type(None): "`null`",
    Any: "values",
}


def _bounds(metadata: Iterable[Any]) -> list[str]:
    """What pydantic checks beside the type."""
    signs = {
        "ge": "≥",
        "gt": ">",
        "le": "≤",
        "lt": "<",
        "min_length": "at least",
        "max_length": "at most",
        "pattern": "matches",
    }
    return [
        f"{sign} `{value}`" if name == "pattern" else f"{sign} {value}"
        for constraint in metadata
        for name, sign in signs.items()
        if (value := getattr(constraint, name, None)) is not None
    ]


def _section_of(annotation: Any) -> type[Section] | None:
    if inspect.isclass(annotation) and issubclass(annotation, Section):
        return annotation
    return next((section for inner in get_args(annotation) if (section := _section_of(inner))), None)


def _doc(documented: Any) -> str:
    return inspect.cleandoc(documented.__doc__ or "")


# Commands


def commands() -> Iterator[str]:
    """Every command as its `--help` says."""
    # argparse asks the terminal how wide a usage may be.
    os.environ["COLUMNS"] = USAGE_COLUMNS
    parser = make_parser()
    yield "## `bertkd`"
    yield from _command(parser, (parser.epilog or "").splitlines())
    of_all = set((parser.epilog or "").splitlines())
    for name, command in _subcommands(parser).items():
        yield f"## `bertkd {name}`"
        yield from _command(
            command, [line for line in (command.epilog or "").splitlines() if line not in of_all - {""}]
        )


def _subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    # argparse has no public way to ask a parser what it takes.
    return next(action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))


def _command(parser: argparse.ArgumentParser, epilog: list[str]) -> Iterator[str]:
    description = parser.description or ""
    yield _escaped(description[:1].upper() + description[1:].rstrip(".") + ".")
    yield f"```text\n{parser.format_usage().removeprefix('usage: ').strip()}\n```"
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            names = action.choices
            yield "Commands: " + ", ".join(f"[`{name}`](#bertkd-{name})" for name in names) + "."
        elif action.dest != "help":
            yield _definition(f"`{_invocation(action)}`", _escaped(_help(action)))
    for part in filter(None, re.split(r"\n\n+", "\n".join(epilog).strip("\n"))):
        is_example = part.startswith("  ")
        yield f"```sh\n{inspect.cleandoc(part)}\n```" if is_example else _escaped(part)


def _invocation(action: argparse.Action) -> str:
    metavar = str(action.metavar or action.dest)
    takes_value = action.nargs != 0
    return " ".join([", ".join(action.option_strings), metavar if takes_value else ""]).strip()


def _help(action: argparse.Action) -> str:
    if not action.help:
        raise ValueError(f"{action.dest} has no help")
    return action.help % {**vars(action), "choices": ", ".join(map(str, action.choices or ()))}


def _escaped(text: str) -> str:
    return re.sub(r"([*_<\[\\`])", r"\\\1", text)


# Python

_ROOM_TITLES = {
    "pipeline": "Whole pipelines",
    "plan": "What a pipeline takes",
    "execution": "Jobs of a cluster",
    "config": "Configuration",
    "corpus": "Text and tokens",
    "teacher": "The teacher",
    "softlabels": "Soft labels",
    "student": "The student",
    "decoding": "Beam search",
    "translation": "Translating and exporting",
    "evaluation": "Scores",
    "report": "Comparisons",
    "artifacts": "Artifacts",
    "core": "Shared types",
}


def python() -> Iterator[str]:
    """Every public name by its room: signature, docstring and, of a class, its public methods and properties."""
    rooms: dict[str, list[str]] = {}
    for name in bertkd_ray.__all__:
        rooms.setdefault(getattr(bertkd_ray, name).__module__.split(".")[1], []).append(name)
    if set(rooms) - set(_ROOM_TITLES):
        raise ValueError(f"no title for the rooms {sorted(set(rooms) - set(_ROOM_TITLES))}")
    for room, title in _ROOM_TITLES.items():
        yield f"## {title}"
        for name in rooms.get(room, []):
            value = getattr(bertkd_ray, name)
            yield f"### `{name}`"
            yield f"```python\n{_signature(name, value)}\n```"
            yield from _paragraphs(inspect.getdoc(value) or "")
            if inspect.isclass(value):
                yield from _members(value)


def _signature(name: str, value: Any) -> str:
    """The call, or the name alone of what is not made by a call; a parameter a line where one line is too long."""
    if inspect.isclass(value) and issubclass(value, Section | Exception):
        return f"bertkd_ray.{name}"
    annotations = _source_annotations(value)
    signature = inspect.signature(value)
    typed = [each.replace(annotation=annotations[each.name]) for each in signature.parameters.values()]
    returned = "" if inspect.isclass(value) else f" -> {annotations['return']}"
    # Annotations are text here, which `str` quotes.
    parameters = re.sub(r": '([^']*)'", r": \1", str(inspect.Signature(typed))[1:-1])
    line = f"bertkd_ray.{name}({parameters}){returned}"
    if len(line) <= int(USAGE_COLUMNS):
        return line
    # Commas inside of brackets separate no parameters.
    lines = "".join(f"    {part},\n" for part in re.split(r", (?=\*|\w+(?::|=|,|$))(?![^\[]*\])", parameters))
    return f"bertkd_ray.{name}(\n{lines}){returned}"


def _source_annotations(value: Any) -> dict[str, str]:
    """Annotations as the source has them, by parameter (or field, of a dataclass) and `return`."""
    texts: dict[str, str] = {}
    classes = (
        [base for base in inspect.getmro(value) if base.__module__.startswith("bertkd_ray")]
        if inspect.isclass(value)
        else []
    )
    for owner in classes or [value]:
        node = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        # The outermost of a name, of the most derived class, comes first.
        for part in ast.walk(node):
            if isinstance(part, ast.arg | ast.AnnAssign) and part.annotation:
                name = part.arg if isinstance(part, ast.arg) else ast.unparse(part.target)
                texts.setdefault(name, ast.unparse(part.annotation))
        if isinstance(node, ast.FunctionDef) and node.returns:
            texts["return"] = ast.unparse(node.returns)
    return texts


def _members(owner: type) -> Iterator[str]:
    """Public methods and properties that a class of this package defines itself."""
    for name, member in vars(owner).items():
        function = member.fget if isinstance(member, property) else getattr(member, "func", member)
        text = inspect.getdoc(member) if inspect.isroutine(function) else None
        if text and not name.startswith("_") and not issubclass(owner, Section):
            call = "" if isinstance(member, property) or function is not member else "()"
            yield _definition(f"`{name}{call}`", *map(_prose, text.split("\n\n")))


def _paragraphs(docstring: str) -> Iterator[str]:
    for paragraph in docstring.split("\n\n"):
        is_code = paragraph.startswith("    ")
        yield f"```text\n{inspect.cleandoc(paragraph)}\n```" if is_code else _prose(paragraph)


def _prose(text: str) -> str:
    """Escaped outside of its code."""
    return "".join(part if part.startswith("`") else _escaped(part) for part in re.split(r"(`[^`]*`)", text))


# Artifacts


@dataclass(frozen=True)
class ArtifactFile:
    """A file, or a directory, of an artifact."""

    path: str
    described: str
    """`module:name` whose docstring says what it is; of a table, what its columns are."""
    schemas: tuple[pa.Schema, ...] = ()
    """Of a table; several where a type depends on the artifact."""


DEAD_LETTERS = ArtifactFile("rejects.parquet", "execution.dead_letters:DeadLetter", (DEAD_LETTERS_SCHEMA,))
SHARDS = ArtifactFile(
    "shard-*.parquet",
    "softlabels.shards:shard_schema",
    tuple(shard_schema(vocabulary, 1) for vocabulary in (1 << 8, 1 << 16, 1 << 32)),
)
KINDS: dict[str, tuple[ArtifactFile, ...]] = {
    "corpus": (
        ArtifactFile("{train,valid,test}/fragment-*.parquet", "corpus.passes:CORPUS_SCHEMA", (CORPUS_SCHEMA,)),
        ArtifactFile("tokenizer/", "corpus.passes:TOKENIZER"),
        ArtifactFile("tokenizer/bert_ids.parquet", "corpus.tokenizer:BERT_IDS_SCHEMA", (BERT_IDS_SCHEMA,)),
    ),
    "teacher": (
        ArtifactFile("model/", "teacher.finetune:MODEL"),
        ArtifactFile("model/specials.json", "teacher.finetune:SPECIALS"),
        ArtifactFile("history.json", "teacher.finetune:HISTORY"),
    ),
    "softlabels": (SHARDS, replace(SHARDS, path="valid-shard-*.parquet"), DEAD_LETTERS),
    "decoded": (
        ArtifactFile("train/fragment-*.parquet", "softlabels.decode:DECODED_SCHEMA", (DECODED_SCHEMA,)),
        ArtifactFile("tokenizer/", "corpus.passes:TOKENIZER"),
        DEAD_LETTERS,
    ),
    "decodedlabels": (SHARDS, DEAD_LETTERS),
    "monolingual": (SHARDS, DEAD_LETTERS),
    "student": (
        ArtifactFile("model/", "student.distill:MODEL"),
        ArtifactFile("history.json", "student.distill:HISTORY"),
    ),
    "translation": (
        ArtifactFile(
            "translations.parquet", "translation.parts:translation_schema", (parts.translation_schema("moses"),)
        ),
        DEAD_LETTERS,
    ),
    "evaluation": (
        ArtifactFile(
            "translations.parquet", "translation.parts:translation_schema", (parts.translation_schema("moses"),)
        ),
        ArtifactFile("valid.parquet", "translation.evaluate:VALID_TRANSLATIONS"),
        DEAD_LETTERS,
    ),
}
"""What an artifact of each kind holds beside its manifest."""


def artifacts() -> Iterator[str]:
    """The manifest, then every kind of artifact with its files and tables."""
    yield "## `manifest.json`"
    keys, keys_of_a_file = _manifest_keys()
    yield from _described_fields("artifacts.manifest:Manifest", keys)
    yield from _described_fields("artifacts.manifest:FileEntry", [f"files[].{key}" for key in keys_of_a_file])
    for pending, makes in zip(_pending_artifacts(), STAGES, strict=True):
        yield f"## {pending.stage}"
        yield f"`{pending.stage}-FINGERPRINT/`, made by `bertkd {makes}`."
        for name, keys in (("config", pending.config), ("inputs", pending.inputs)):
            yield f"Its manifest's `{name}`: " + ", ".join(f"`{key}`" for key in sorted(keys)) + "."
        for part in KINDS[pending.stage]:
            yield f"### `{pending.stage}`: `{part.path}`"
            if part.schemas:
                yield from _described_fields(part.described, part.schemas[0].names, part.schemas)
            else:
                yield docstring_of(part.described)
    yield "## Beside the artifacts"
    yield _definition("`work/`", docstring_of("artifacts.artifact:STAGING"))
    yield _definition("`locks/`", docstring_of("artifacts.lock:LOCKS"))


def _manifest_keys() -> tuple[list[str], list[str]]:
    """The keys of a manifest that is written, and those of a Parquet file's entry."""
    with tempfile.TemporaryDirectory() as directory:
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"id": [0]}), sink)
        store = Store(directory)
        pending = PendingArtifact(store, "corpus", "0" * 16, {}, {})
        store.write(bytes(sink.getvalue()), pending.directory, "part.parquet")
        pending.commit(made=["part.parquet"], metrics={}, info={})
        manifest = json.loads(store.read(pending.directory, "manifest.json"))
    return sorted(manifest), sorted(manifest["files"][0])


def _pending_artifacts() -> Iterator[PendingArtifact]:
    """An unmade artifact of every kind, for what its fingerprint is of."""
    config, store = Config.model_validate({"name": "any", "corpus": {"source": "demo"}}), Store("artifacts")
    for stage in STAGES.values():
        kinds = [*(STAGES[name].artifact for name in stage.inputs), *([stage.bert] if stage.bert else [])]
        yield stage_module(stage).pending_artifact(config, store, dict.fromkeys(kinds, ""))


def _described_fields(where: str, names: list[str], schemas: tuple[pa.Schema, ...] = ()) -> Iterator[str]:
    """The paragraphs of a docstring, then its `name, name: text` entries, which must be those of the fields."""
    prose, entries = _entries(where)
    described = {name: name.rpartition(".")[2] for name in names}
    if set(entries) != set(described.values()):
        raise ValueError(f"{where} describes {sorted(entries)}, the fields are {sorted(described.values())}")
    yield prose
    if not schemas:
        yield _table(("key", "what it is"), [(f"`{name}`", entries[key]) for name, key in described.items()])
        return
    types = {name: dict.fromkeys(_arrow_type(schema.field(name).type) for schema in schemas) for name in names}
    yield _table(
        ("column", "type", "what it is"), [(f"`{name}`", " or ".join(types[name]), entries[name]) for name in names]
    )


def _arrow_type(of: pa.DataType) -> str:
    if pa.types.is_list(of):
        return f"list of {_arrow_type(of.value_type)}"
    return {"halffloat": "float16", "float": "float32"}.get(str(of), str(of))


def _entries(where: str) -> tuple[str, dict[str, str]]:
    text, entries = docstring_of(where), {}
    prose, *parts = re.split(r"^(\w+(?:, \w+)*): ", text, flags=re.MULTILINE)
    for names, entry in zip(parts[::2], parts[1::2], strict=True):
        entries.update(dict.fromkeys(names.split(", "), entry.strip().replace("\n", " ")))
    return prose.strip(), entries


def docstring_of(where: str) -> str:
    """The docstring of `module:name`; of a dataclass, its attributes' too, an entry each."""
    module_name, _, name = where.partition(":")
    module = importlib.import_module(f"bertkd_ray.{module_name}")
    body = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8")).body
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            own = ast.get_docstring(node) or ""
            return "\n\n".join([own, *(f"{key}: {text}" for key, text in _attribute_docstrings(node.body))])
    docstrings = dict(_attribute_docstrings(body))
    if name not in docstrings:
        raise ValueError(f"{where} has no docstring")
    return docstrings[name]


def _attribute_docstrings(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    """Names that are assigned, or annotated, with the string below them."""
    for node, following in pairwise(body):
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(following, ast.Expr):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(following.value, ast.Constant) and isinstance(target, ast.Name):
                yield target.id, inspect.cleandoc(str(following.value.value))
