"""How training scales to two workers, how memory grows with the corpus, and what starting costs.

python -m benchmarks.scale                     all three, on a machine that does nothing else
python -m benchmarks.scale --only overhead     one of them
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from benchmarks import scale_memory, scale_overhead, scale_workers
from benchmarks.machine import ROOT, commit, machine
from benchmarks.setting import Setting, find_text
from benchmarks.table import Row, text_table

MEASURES: dict[str, Callable[[Setting, int], list[Row]]] = {
    "workers": scale_workers.measure,
    "memory": scale_memory.measure,
    "overhead": scale_overhead.measure,
}


def main(arguments: list[str] | None = None) -> None:
    """Measures what is asked for, prints the rows and writes them as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=list(MEASURES), nargs="+", default=list(MEASURES), help="some of them")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of two workers against one (default: 3)")
    parser.add_argument("--storage", default=str(ROOT / "artifacts" / "benchmarks"), help="where artifacts are kept")
    parser.add_argument("--output", type=Path, help="the JSON file (default: benchmarks/results/scale-….json)")
    options = parser.parse_args(arguments)
    setting = Setting(options.storage, find_text())
    started = machine()
    for name in options.only:
        rows = MEASURES[name](setting, options.rounds)
        print(text_table(rows), flush=True)
        for row in rows:
            print(json.dumps(row.details, indent=1))
        tree = {"text": setting.text.name, **commit(), "machine": started, "rows": [row.as_json() for row in rows]}
        path = options.output or ROOT / "benchmarks" / "results" / f"scale-{name}.json"
        path.write_text(json.dumps(tree, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
