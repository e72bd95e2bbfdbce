"""The files of a report, whole whenever its process ends."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from pathlib import Path

import pytest

from bertkd_ray.artifacts import store as stores
from bertkd_ray.core.errors import UserError
from bertkd_ray.report import figures, page
from bertkd_ray.report.results import Results
from bertkd_ray.report.writing import save_page, write_report
from tests.helpers.killable_processes import is_killed
from tests.report.stages import finished_stages, results_of


def test_a_report_whose_process_is_killed_after_any_file_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "draw_all", lambda *given: (given[-1] / "scores.svg").write_text("<svg/>"))
    monkeypatch.setattr(page, "page_html", lambda results, run_id: f"the page of {run_id}")
    monkeypatch.setattr(Results, "buckets", {})  # nor is anything else drawn
    stages = finished_stages(tmp_path / "store")
    results, store = results_of(stages), stages["prepare"].store
    report = tmp_path / "store" / results.directory

    def written() -> dict[str, str]:
        write_report(results, store, "run")
        return {path.name: path.read_text() for path in report.iterdir()}

    whole = written()
    assert set(whole) == {"report.html", "scores.json", "scores.svg", "table.csv", "table.md"}

    def killed_after(count: int) -> bool:
        shutil.rmtree(report)
        replace, files = os.replace, iter(range(1, count + 1))

        def last(source: Path, target: Path) -> None:
            replace(source, target)
            if next(files) == count:
                os.kill(os.getpid(), signal.SIGKILL)

        def child() -> None:
            stores.os.replace = last  # type: ignore[attr-defined]
            write_report(results, store, "run")

        return is_killed(child)

    for count in range(1, len(whole) + 1):
        assert killed_after(count)
        assert written() == whole, count


def test_a_page_takes_the_place_of_a_page_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    html, output = '<meta name="generator" content="bertkd 0.1.0">', tmp_path / "page.html"
    save_page(html, output)
    save_page(html + "new", output)
    assert output.read_text() == html + "new"

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(UserError, match=r"^--output \S+page.html: No space left on device; give a file that can be wr"):
        save_page(html, output)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("page.html", html + "new")]


def test_a_page_is_written_through_no_link_and_over_no_file_of_another(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (tmp_path / ".page.html.partial").symlink_to(mine)
    save_page("page", tmp_path / "page.html")
    assert (mine.read_text(), (tmp_path / "page.html").read_text()) == ("mine", "page")
    assert (tmp_path / ".page.html.partial").is_symlink()
