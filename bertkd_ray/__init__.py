"""Distil a pretrained BERT into a small, fast translation model, distributed with Ray.

Everything that a Python program or a notebook needs is a name of this module. A name's own module is imported when the
name is first used, so that `import bertkd_ray` takes no time.
"""

import ast
from importlib import import_module
from pathlib import Path

__version__ = "0.1.0"
# One list for type checkers and for `__getattr__`.
_STUB = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
_IMPORTS = [node for node in _STUB.body if isinstance(node, ast.ImportFrom)]
_MODULES = {alias.name: str(node.module) for node in _IMPORTS for alias in node.names}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
