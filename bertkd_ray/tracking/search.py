"""Finds the runs that a user means by a name or an id."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import cached_property
from typing import Any

from bertkd_ray.core.console import log
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.redaction import redacted
from bertkd_ray.tracking.store import connect, short_timeouts, sqlite_file, store_errors

_SHORTEST_ID = 6
"""Digits from which the beginning of an id stands for it, as git has it."""
_MOST_LISTED = 5
_PARENTS = ("pipeline", "study")
_CHILDREN = ("arm", "trial")


@dataclass(frozen=True)
class FoundRun:
    """A run of an MLflow store."""

    run_id: str
    name: str
    started: str
    """UTC, to the second."""
    kind: str
    """pipeline, stage, arm, study, trial or inspect; empty for a run that somebody else made."""
    artifact: str | None
    """Directory or URI of what the run has made: of an arm or a trial its translations; None for other runs."""
    parent: str | None
    """The id of the run above it."""

    def __str__(self) -> str:
        return f"{self.name} ({self.run_id[:8]}, {self.started})"


class RunFinder:
    """The runs of a store, which is opened by the first search."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    @cached_property
    def _runs(self) -> list[FoundRun]:
        client = connect(self._uri)
        with store_errors(self._uri):
            with short_timeouts():
                experiments = [experiment.experiment_id for experiment in client.search_experiments()]
            return list(_all_runs(client, experiments))

    def find(self, text: str) -> FoundRun:
        """The run with this id, the newest with this name, or the one of which this is the beginning of the id.

        Raises UserError, in one line that lists the candidates, for none, for the beginning of several ids, and for a
        pipeline or a study, which has a run for every arm; and where there is no such store, or it does not answer.
        """
        file = sqlite_file(self._uri)
        if file is not None and not file.exists():
            raise UserError(
                f"{text}: no artifact is here, nor an MLflow database {file} to find a run in; give --tracking URI, "
                "--storage DIR or an artifact's directory"
            )
        named = [run for run in self._runs if text in (run.run_id, run.name)]
        runs = named or [run for run in self._runs if len(text) >= _SHORTEST_ID and run.run_id.startswith(text)]
        if not runs:
            raise UserError(
                f"{text}: no artifact, and no run of this name or id in {redacted(self._uri)}; {self._near(text)}"
            )
        if len(runs) > 1 and not named:
            raise UserError(f"{text}: stands for {len(runs)} runs; give the id of one: {_listed(runs)}")
        if len(runs) > 1:
            log(f"{text}: of its {len(runs)} runs the newest is taken; for another give its id: {_listed(runs)}")
        run = runs[0]
        if run.kind in _PARENTS:
            arms = [arm for arm in self._runs if arm.kind in _CHILDREN and arm.parent == run.run_id]
            raise UserError(f"{text}: is a {run.kind}; give the runs of its arms: {_listed(arms) or 'none so far'}")
        if run.artifact is None:
            raise UserError(f"{text}: run {run} has no student; {self._near(text)}")
        return run

    def _near(self, text: str) -> str:
        """Runs that were perhaps meant: those whose names resemble the text, else the newest."""
        arms = [run for run in self._runs if run.kind in _CHILDREN]
        if not arms:
            return "it has no run of an arm; bertkd run and bertkd study make them"
        names = get_close_matches(text, [run.name for run in arms], n=_MOST_LISTED)
        return f"there are {_listed([run for run in arms if run.name in names] or arms)}"


def _all_runs(client: Any, experiments: list[str]) -> Iterator[FoundRun]:
    """The runs of some experiments, the newest first."""
    page = None
    while page != "":
        runs = client.search_runs(experiments, order_by=["attributes.start_time DESC"], page_token=page)
        for run in runs:
            started = datetime.fromtimestamp(run.info.start_time / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
            tags = (run.data.tags.get(tag) for tag in ("bertkd.artifact", "mlflow.parentRunId"))
            yield FoundRun(run.info.run_id, run.info.run_name, started, run.data.tags.get("bertkd.kind", ""), *tags)
        page = runs.token or ""


def _listed(runs: Sequence[FoundRun]) -> str:
    more = f" and {len(runs) - _MOST_LISTED} more" if len(runs) > _MOST_LISTED else ""
    return ", ".join(map(str, runs[:_MOST_LISTED])) + more
