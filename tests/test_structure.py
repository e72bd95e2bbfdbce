"""The shape of the package: which way imports run, who may import what, and what is never done."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import bertkd_ray

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "bertkd_ray"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / PACKAGE).rglob("*.py"))
}


class Import(NamedTuple):
    """One import of a module, by its whole dotted name."""

    name: str
    line: int
    is_local: bool
    """Inside a function: runs when the function is called, not when the module is imported."""
    for_types: bool
    """Under `if TYPE_CHECKING`: never runs."""


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@cache
def imports_of(module: str) -> tuple[Import, ...]:
    return tuple(_imports(tree_of(module), is_local=False, for_types=False))


def _imports(node: ast.AST, *, is_local: bool, for_types: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, is_local, for_types) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"line {child.lineno}: a relative import"
            for alias in child.names:
                whole = f"{child.module}.{alias.name}"
                yield Import(whole if whole in MODULES else str(child.module), child.lineno, is_local, for_types)
        else:
            types_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(child, is_local=is_local or function, for_types=for_types or types_only)


def place_of(module: str) -> str:
    """The room, `core`, or the module at the top of the package."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else PACKAGE


def ours(module: str, *, for_types: bool = False) -> Iterator[Import]:
    """The imports of this package that run, now or when a function is called; with `for_types` those for types too."""
    whole = (item for item in imports_of(module) if item.name.split(".")[0] == PACKAGE)
    return (item for item in whole if for_types or not item.for_types)


# From the bottom: a room imports from rooms before it, never from one after it.
ROOMS = (
    "core",
    "config",
    "artifacts",
    "tracking",
    "training",
    "execution",
    "decoding",
    "evaluation",
    "corpus",
    "teacher",
    "softlabels",
    "student",
    "plan",
    "translation",
    "report",
    "pipeline",
    "cli",
    "__main__",
)
LEVELS = {room: level for level, room in enumerate((PACKAGE, *ROOMS))}


def test_every_module_has_its_place():
    assert {place_of(module) for module in MODULES} == set(LEVELS)


# A stage declares which of a configuration's sections it depends on, and the configuration's rooms ask the stages.
UPWARDS_FOR_TYPES = {("bertkd_ray.core.stages", "bertkd_ray.config")}


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module):
    """Those for types too, but for the exceptions above."""
    upwards = [
        f"line {found.line}: {found.name}"
        for found in ours(module, for_types=True)
        if LEVELS[place_of(found.name)] > LEVELS[place_of(module)]
        and not (found.for_types and (module, found.name) in UPWARDS_FOR_TYPES)
    ]
    assert upwards == []


def test_no_module_imports_itself_by_a_detour():
    edges = {module: {found.name for found in ours(module)} & set(MODULES) for module in MODULES}
    finished: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join([*path[path.index(module) :], module])
        if module not in finished:
            for target in sorted(edges[module]):
                visit(target, (*path, module))
            finished.add(module)

    for module in sorted(edges):
        visit(module, ())


def importers(package: str, *, at_import: bool = False) -> set[str]:
    """Modules that import a third party's package, or only those that do so when they are imported."""
    return {
        module
        for module in MODULES
        for found in imports_of(module)
        if found.name.split(".")[0] == package and not found.for_types and not (at_import and found.is_local)
    }


def test_ray_is_imported_by_the_runtime_and_by_the_client_of_its_job_server():
    """`submit` is on the other side of the network: it runs where no Ray session is."""
    ray = {
        f"bertkd_ray.execution.ray.{module}"
        for module in ("cluster", "session", "mapping", "processes", "progress", "resources", "training")
    }
    assert importers("ray") == {*ray, "bertkd_ray.execution.submission"}
    assert importers("ray", at_import=True) == ray


def test_mlflow_is_imported_by_the_tracking_alone_and_only_when_it_is_used():
    found = importers("mlflow")
    assert found
    assert {module for module in found if not f"{module}.".startswith("bertkd_ray.tracking.")} == set()
    assert importers("mlflow", at_import=True) == set()


@pytest.mark.parametrize("package", ["torch", "transformers", "matplotlib", "ray", "sacrebleu", "tokenizers"])
def test_light_modules_do_not_import_what_is_heavy(package):
    """The configuration, the command line, a cached run: none needs what takes seconds to import."""
    light = {"cli", "config"}
    pipeline = {"bertkd_ray.pipeline.pipeline", "bertkd_ray.pipeline.study"}
    names = {module for module in MODULES if place_of(module) in light} | {
        "bertkd_ray.artifacts.artifact",
        PACKAGE,
        *pipeline,
    }
    reached, todo = set(), sorted(names)
    while todo:
        module = todo.pop()
        if module in reached:
            continue
        reached.add(module)
        parents = {module.rpartition(".")[0]} & set(MODULES)
        todo += sorted(parents | {found.name for found in ours(module) if not found.is_local} & set(MODULES))
    assert importers(package, at_import=True) & reached == set()


def test_nothing_is_unpickled_and_no_code_of_a_model_is_run():
    forbidden = re.compile(
        r"\b(import|from) (pickle|dill|cloudpickle|shelve|marshal)\b|yaml\.(unsafe_|full_)?load\(|"
        r"trust_remote_code(?!=False\b)|allow_pickle\s*=\s*True|\beval\(|\bexec\("
    )
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in [*MODULES.values(), *sorted((ROOT / "jobs").glob("*.py"))]
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if forbidden.search(line) and ".eval(" not in line
    ]
    assert found == []


def test_torch_loads_weights_only():
    for module in MODULES:
        for node in ast.walk(tree_of(module)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert options.get("weights_only") == "True", f"{module}:{node.lineno}"


def test_no_exception_is_swallowed():
    for module in MODULES:
        for node in ast.walk(tree_of(module)):
            if isinstance(node, ast.ExceptHandler):
                where = f"{module}:{node.lineno}"
                assert node.type is not None, f"{where}: a bare except"
                silent = all(isinstance(statement, ast.Pass) for statement in node.body)
                assert not silent, f"{where}: an except that does nothing"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_can_be_read_in_one_sitting(module):
    most = 200 if place_of(module) == "cli" else 400
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= most


def test_the_core_stays_small():
    modules = [path for module, path in MODULES.items() if place_of(module) == "core"]
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in modules) <= 1_000


@pytest.mark.parametrize("module", MODULES)
def test_every_module_and_public_name_says_what_it_is(module):
    tree = tree_of(module)
    assert ast.get_docstring(tree) or not tree.body, "no docstring"
    missing = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert missing == []


@pytest.mark.parametrize(
    "module",
    ["execution.interface", "execution.stage", "execution.local", "training.context", "training.curves", "core.stages"],
)
def test_where_stages_meet_whoever_runs_them_nothing_is_of_any_type(module):
    """So that mypy compares the stages' workers with what both runtimes give them, also where these run remotely."""
    names = [node for node in ast.walk(tree_of(f"{PACKAGE}.{module}")) if isinstance(node, ast.Name)]
    assert [node.lineno for node in names if node.id == "Any"] == []


def test_every_stage_and_the_pipeline_have_a_job():
    names = {path.stem for path in (ROOT / "jobs").glob("*.py")}
    assert {"run", "prepare", "finetune", "extract", "distill", "translate", "validate", "study"} <= names


def _imported_names(node: ast.stmt) -> list[str]:
    return [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []


def test_the_public_names_are_exported_by_the_modules_that_the_stub_names():
    """`bertkd_ray.__init__` imports nothing at run time; a name that moves must move in the stub too."""
    stub = ast.parse((ROOT / PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    # A type checker takes `name as name` for a public name.
    assert all(alias.asname == alias.name for node in imports for alias in node.names)
    table = {alias.name: str(node.module) for node in imports for alias in node.names}
    assert table == bertkd_ray._MODULES
    for name, module in sorted(table.items()):
        defined = {getattr(node, "name", "") for node in tree_of(module).body}
        assert name in defined | {alias for node in tree_of(module).body for alias in _imported_names(node)}, name
    assert sorted(table) == bertkd_ray.__all__
    assert not set(table) & set(LEVELS), "a name of a room"
