"""What a configuration's pipeline has finished, and its page; nothing is made here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from bertkd_ray.artifacts.artifact import Artifact, PendingArtifact
from bertkd_ray.core.console import log
from bertkd_ray.core.errors import UserError
from bertkd_ray.pipeline.pipeline import Pipeline
from bertkd_ray.report.results import Results


class FinishedPipeline(Pipeline):
    """The stages of a pipeline as far as they are finished in its store."""

    def report(self, output: Path | None = None) -> Results:
        """Writes the page of all that is finished into the store and the pipeline's run, and to `output`, if given.

        What is not finished is named, on the page and on stderr. Raises UserError when not even the corpus is, and
        when `output` cannot be written.
        """
        from bertkd_ray.report.writing import PAGE, write_page

        self.outcome.how_to_open = self.tracker.how_to_open  # opened first, as in run()
        results = self.finished()
        html = write_page(results, self.store, self.parent)
        self.outcome.arms, self.outcome.signatures = results.arms, results.signatures
        self.outcome.page = self.store.display_uri(results.directory, PAGE)
        if output is not None:
            try:
                output.write_text(html, encoding="utf-8")
            except OSError as error:
                raise UserError(f"--output {output}: {error.strerror}; give a file that can be written") from None
            self.outcome.page = str(output.resolve())
        return results

    def finished(self) -> Results:
        """The finished stages, and for each of the others the command that makes it."""
        unfinished: dict[str, str] = {}
        for name, find in self._finds():
            try:
                find()
            except _NotFinished:
                stage, _, arm = name.partition("/")
                unfinished[name] = self.command(stage, *(["--arm", arm] if arm else []))
                if stage == "prepare":
                    where, all_stages = self.store.display_uri(), self.command("run")
                    raise UserError(f"{where}: nothing of this configuration is finished; run {all_stages}") from None
                log(f"not finished; {unfinished[name]} makes it", stage=name)
        return replace(self.results, unfinished=unfinished)

    def _finds(self) -> Iterator[tuple[str, Callable[[], Artifact]]]:
        """The stages in the order in which they are made; those of a teacher only where an arm has one."""
        yield "prepare", self.prepare
        if any(config.kd.alpha > 0 for config in self._arms.values()):
            yield "finetune", self.finetune
            yield "extract", self.extract
        for arm in self._arms:
            yield f"distill/{arm}", partial(self.distill, arm)
            yield f"translate/{arm}", partial(self.translate, arm)

    def _find(self, work: PendingArtifact) -> Artifact:
        found = super()._find(work)
        if found is None:
            raise _NotFinished
        return found


class _NotFinished(Exception):  # noqa: N818 - a state, not an error
    """An artifact that would have to be made."""
