"""The names of the package and its programs: the field's own words, and in the package no name for two types."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "bertkd_ray").rglob("*.py"))
PROGRAMS = sorted(path for name in ("benchmarks", "docs", "jobs", "tools") for path in (ROOT / name).rglob("*.py"))
# The demo's grammar speaks of places: a garden, a town.
OF_THE_GRAMMAR = {"place", "places", "_PLACE_TABLE"}

# Each with the word to use instead.
COINED = {
    r"_?Draft": "PendingArtifact",
    r"draft": "pending, pending_artifact",
    r"TokenSpace|token_space|space": "Vocabulary, vocabulary",
    r"_?Sieve|sieve": "FaultIsolation, isolation",
    r"killers?": "poison_records",
    r"_?Limit": "ErrorBudget",
    r"_?Rejects?": "DeadLetter, DeadLetters",
    r"_?Board|_?board": "_ProgressActor, progress_actor",
    r"LocalHost|Host": "LocalRuntime, Runtime",
    r"_?Workers": "World",
    r"answered|leaving": "call_with_timeout, exit_past_hung_calls",
    r"_?refusals?": "storage errors",
    r"say": "log",
    r"_?shown": "display_uri, or the noun of the text",
    r"_?told|_?said": "message, or the noun of the text",
    r"print_": "digest",
    r"_?found": "the noun of what was found",
    r"one": "the noun of the item",
    r"_?settle|_?resolve": "apply_drops, find_duplicates",
    r"_?judge|_?admit": "filter_by_text, filter_by_length",
    r"_?Tally|tally": "PrepareStats, stats",
    r"_?cut": "split, segment, truncate",
    r"_?Look|_?look|looks|look_at_\w+": "SampleStats, sample",
    r"side_by_side": "scheduler",
    r"_?doomed": "failed dependents",
    r"_?most_urgent": "ready by priority",
    r"_?Made": "BuildRecord",
    r"FRAME_TOKENS": "SPECIAL_TOKENS_PER_PAIR",
    r"_?places?|by_place|_PLACE_\w+": "tokens, position, index, location",
    r"frames|frame_at": "prefix, prefixes",
    r"_?rejects?|_without_rejected": "dead_letters, add_dead_letter",
}


@cache
def identifiers(path: Path) -> tuple[tuple[str, int], ...]:
    """The names that a module gives: of variables, arguments, functions, classes, attributes and imports."""
    return tuple(_identifiers(ast.parse(path.read_text(encoding="utf-8"))))


def _identifiers(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield name, node.lineno
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno
            case ast.alias(name=name, asname=asname):
                yield asname or name.rpartition(".")[2], node.lineno


@pytest.mark.parametrize("pattern", COINED)
def test_no_name_is_a_coined_word(pattern: str) -> None:
    hits = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in [*MODULES, *PROGRAMS]
        for name, line in (*identifiers(path), (path.stem, 1))
        if re.fullmatch(pattern, name) and not (name in OF_THE_GRAMMAR and "demo_corpus" in path.parts)
    ]
    assert hits == [], f"use {COINED[pattern]}"


def test_no_two_modules_give_one_name_to_different_types() -> None:
    homes = defaultdict(set)
    for path in MODULES:
        for name in _types(ast.parse(path.read_text(encoding="utf-8"))):
            homes[name.lstrip("_")].add(str(path.relative_to(ROOT)))
    assert {name: sorted(paths) for name, paths in homes.items() if len(paths) > 1} == {}


def _types(tree: ast.Module) -> Iterator[str]:
    """The classes and type aliases of a module and its functions: an alias has a name in capitals and lower case."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name):
                yield name
            case ast.Assign(value=ast.Call(func=ast.Name(id="TypeVar"))):
                continue  # stands for a type, and is none
            case ast.Assign(targets=[ast.Name(id=name)]) if re.fullmatch("_?[A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*", name):
                yield name
