"""Writes figures, tables and the page of a pipeline into its store, and then to its run."""

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path

from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.artifacts.store import Store
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.paths import expand_home
from bertkd_ray.report.results import Results
from bertkd_ray.report.tables import as_csv, as_markdown
from bertkd_ray.tracking.interface import Run, now_ms

PAGE = "report.html"
_LAST = "table.md"
_GENERATOR = b'<meta name="generator" content="bertkd '  # of `template/page.html`
_FIGURES = (".png", ".svg")
_RECORDED = ".recorded"
"""The directory of a store with a file a report, which holds the id of the run that has the report too."""


def write_report(results: Results, store: Store, run_id: str) -> list[str]:
    """Figures, tables and page, drawn once; the names of the files in `results.directory`."""
    directory = results.directory
    if not (store.exists(directory, PAGE) and store.exists(directory, _LAST)):
        from bertkd_ray.report.buckets import bucket_panels, bucket_table
        from bertkd_ray.report.figures import draw_all
        from bertkd_ray.report.frame import draw_panels

        with scratch_directory("report-") as scratch:
            fidelity = {teacher: results.fidelity(teacher) for teacher in results.teachers}
            draw_all(results.histories, fidelity, results.arms, scratch)
            if results.buckets:
                draw_panels(bucket_panels(results.buckets), scratch / "bleu-by-bucket")
            scores = [row.as_json() for row in results.rows]
            (scratch / "scores.json").write_text(json.dumps(scores, indent=1))
            (scratch / "table.csv").write_text(as_csv(results.rows))
            store.upload(scratch, directory, others_stay=True)
        write_page(results, store, run_id)
        # Last: without the table the report counts as not yet written.
        buckets = [bucket_table(name, results.buckets) for name in results.buckets]
        store.write(as_markdown(results.rows, results.signatures, buckets).encode(), directory, _LAST)
    return [name for name, _ in store.files(directory)]


def write_page(results: Results, store: Store, run_id: str) -> str:
    """The page, written anew, beside the figures; its text. run_id: empty for a run that is not tracked."""
    from bertkd_ray.report.page import page_html

    html = page_html(results, run_id=run_id)
    store.write(html.encode(), results.directory, PAGE)
    return html


def save_page(html: str, output: Path) -> None:
    """The page as a file, in one step, in place of an earlier page alone. Raises UserError where that cannot be."""
    target = Path(expand_home(str(output))).resolve()
    scratch = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    try:
        if target.exists() and not (target.is_file() and _GENERATOR in target.read_bytes()[:4096]):
            raise UserError(f"--output {output}: exists and is no page of this command; give another file")
        try:
            with scratch.open("x", encoding="utf-8") as file:
                file.write(html)
            os.replace(scratch, target)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"--output {output}: {error.strerror}; give a file that can be written") from None


def record_report(store: Store, directory: str, scores: Mapping[str, float], run: Run) -> None:
    """The files of a report that is written, and its scores as metrics, in the run, once."""
    run_id = run.run_id.encode()
    if store.exists(_RECORDED, directory) and store.read(_RECORDED, directory) == run_id:
        return
    with scratch_directory("report-") as scratch:
        local = store.local(scratch, directory)
        for name, _ in store.files(directory):
            run.log_artifact(local / name, "figures" if name.endswith(_FIGURES) else "")
    run.log_metrics([(0, scores, now_ms())], series="scores")
    store.write(run_id, _RECORDED, directory)
