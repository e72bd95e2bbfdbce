"""What a corpus is like: its figures, drawn and written beside the reports, and in MLflow."""

import json
from dataclasses import asdict

from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.artifacts.storage_errors import scratch_directory
from bertkd_ray.core.stages import PREPARE
from bertkd_ray.corpus.inspect import CorpusFigures, corpus_figures
from bertkd_ray.pipeline.pipeline import Pipeline
from bertkd_ray.pipeline.stage_runs import run_input
from bertkd_ray.report.corpus import corpus_text
from bertkd_ray.report.lengths import draw_lengths
from bertkd_ray.tracking.interface import closing_run, failures_logged, now_ms


def inspect_corpus(pipeline: Pipeline, corpus: Artifact | None, *, seed: int) -> tuple[CorpusFigures, list[str]]:
    """The figures of a corpus (None: the pipeline's, which is made unless it is finished), and where they are drawn,
    as PNG and as SVG.

    seed: draws the samples. In MLflow a corpus has one run of its own, whoever looks at it, so that corpora stand side
    by side.
    """
    store, tracker = pipeline.session.store, pipeline.session.tracker
    settings = pipeline.config.corpus.model_dump(mode="json") if corpus is None else corpus.config
    corpus = corpus or pipeline.make(PREPARE.name)
    figures = corpus_figures(corpus, seed=seed)
    report = f"report-corpus-{corpus.fingerprint}"
    with scratch_directory("report-") as scratch:
        lengths = {name: split.lengths for name, split in figures.splits.items()}
        drawn = draw_lengths(lengths, scratch / "lengths")
        (scratch / "corpus.txt").write_text(corpus_text(figures) + "\n", encoding="utf-8")
        (scratch / "corpus.json").write_text(json.dumps(figures.as_json(), indent=1), encoding="utf-8")
        store.upload(scratch, report, others_stay=True)
        with failures_logged():
            run = tracker.run(
                f"inspect/{corpus.directory}",
                key=f"inspect:{corpus.fingerprint}",
                params={"corpus": settings},
                tags={"bertkd.kind": "inspect", "bertkd.input.corpus": corpus.fingerprint},
            )
            with closing_run(run):
                run.log_inputs([run_input(corpus)])
                run.log_metrics([(0, figures.metrics(), now_ms())], series="inspect")
                run.log_text(corpus_text(figures), "corpus.txt")
                run.log_table([asdict(sample) for sample in figures.samples], "samples.json")
                for path in drawn:
                    run.log_artifact(path, "figures")
    return figures, [store.display_uri(report, path.name) for path in drawn]
