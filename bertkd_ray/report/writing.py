"""Writes figures, tables and the page of a pipeline into its store, and to its run."""

from __future__ import annotations

import json

from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.artifacts.store import Store
from bertkd_ray.report.results import Results
from bertkd_ray.report.tables import as_csv, as_markdown
from bertkd_ray.tracking.interface import Run, now_ms

PAGE = "report.html"
_LAST = "table.md"


def write_report(results: Results, store: Store, run: Run) -> list[str]:
    """Figures, tables and page, drawn once; the names of the files in `results.directory`."""
    directory = results.directory
    if not (store.exists(directory, PAGE) and store.exists(directory, _LAST)):
        from bertkd_ray.report.figures import draw_all

        markdown = as_markdown(results.arms, results.signatures)
        with scratch_directory("report-") as scratch:
            drawn = draw_all(results.histories, results.fidelity, results.arms, scratch)
            scores = [arm.as_json() for arm in results.arms]
            (scratch / "scores.json").write_text(json.dumps(scores, indent=1))
            (scratch / "table.csv").write_text(as_csv(results.arms))
            for path in drawn:
                run.log_artifact(path, "figures")
            run.log_text(markdown, _LAST)
            store.upload(scratch, directory)
        run.log_metrics([(0, results.arm_metrics(), now_ms())], series="scores")
        write_page(results, store, run)
        # Last: without the table the report counts as not yet written.
        store.write(markdown.encode(), directory, _LAST)
    return [name for name, _ in store.files(directory)]


def write_page(results: Results, store: Store, run: Run) -> str:
    """The page, written anew, beside the figures and to the run; its text."""
    from bertkd_ray.report.page import page_html

    html = page_html(results, run_id=run.ref.run_id)
    store.write(html.encode(), results.directory, PAGE)
    run.log_text(html, PAGE)
    return html
