"""`bertkd inspect` as a user meets it: a finished corpus, a configuration, mistakes, and what MLflow holds of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.cli import main
from tests.helpers.hand_made_corpus import write_corpus_artifact
from tests.helpers.local_project import InProcessRuntime
from tests.helpers.small_config import write_config
from tests.report.stages import finished_stages


def test_soft_labels_are_shown_by_part_of_their_positions(tmp_path, capsys):
    labels = finished_stages(tmp_path / "labels")["extract"]
    assert main(["inspect", labels.uri]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == f"{labels.fingerprint}  {labels.uri}"
    assert re.search(r"^fidelity +all +end of sentence +elsewhere +first +not first$", out, re.M)
    assert re.search(r"^positions +56 +12 +44 +23 +33$", out, re.M)
    assert main(["inspect", labels.uri, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["fidelity/not_end/gold_perplexity"] == 4.5
    assert main(["inspect", labels.uri, "storage=elsewhere"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "storage=elsewhere: soft labels are shown as they are" in line


@pytest.fixture
def corpus(tmp_path) -> Artifact:
    return write_corpus_artifact(tmp_path / "store", config={"lowercase": False})


def test_the_page_the_figure_and_the_files(corpus, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["inspect", corpus.uri, f"storage={out}", "tracking=none", "--seed", "4"]) == 0
    printed, logged = capsys.readouterr()
    report = out / f"report-corpus-{corpus.fingerprint}"
    assert printed.endswith(f"\n\nFigure: {report}/lengths.png\n")
    page = printed.rpartition("\n\nFigure")[0]
    assert page.startswith(f"{corpus.fingerprint}  {corpus.uri}\n")
    assert "drawn by --seed 4" in page
    assert sorted(path.name for path in report.iterdir()) == ["corpus.json", "corpus.txt", "lengths.png", "lengths.svg"]
    assert (report / "corpus.txt").read_text(encoding="utf-8") == page + "\n"
    assert logged.splitlines()[0] == f"inspect  checking {corpus.directory} against its manifest"
    assert "6/6 pairs  100%" in logged
    # Nothing is written beside a corpus that may not be one's own.
    assert [path.name for path in (tmp_path / "store").iterdir()] == [corpus.directory]


def test_a_file_of_somebody_else_stays_where_the_figures_are_drawn(corpus, tmp_path):
    notes = tmp_path / "out" / f"report-corpus-{corpus.fingerprint}" / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")
    assert main(["inspect", corpus.uri, f"storage={tmp_path / 'out'}", "tracking=none"]) == 0
    assert notes.read_text() == "mine"
    assert len(list(notes.parent.iterdir())) == 5


def test_json_is_one_object_with_the_same_figures(corpus, capsys):
    assert main(["inspect", corpus.uri, "tracking=none", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    report = f"{corpus.store.uri}/report-corpus-{corpus.fingerprint}"
    assert told.pop("figures") == [f"{report}/lengths.png", f"{report}/lengths.svg"]
    assert told == json.loads(Path(report, "corpus.json").read_text(encoding="utf-8"))
    assert told["splits"]["valid"]["tgt"]["unknown_rate"] == 0.5
    assert len(told["samples"]) == 3


def test_a_corpus_has_one_run_in_mlflow(corpus, capsys):
    from mlflow import MlflowClient

    for seed in ("1", "2"):
        assert main(["inspect", corpus.uri, "--seed", seed]) == 0
    database = f"sqlite:///{corpus.store.uri}/mlflow.db"
    assert database in capsys.readouterr().out
    client = MlflowClient(database)
    experiment = client.get_experiment_by_name("corpora")
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`bertkd.input.corpus` = '{corpus.fingerprint}'")
    assert (run.info.run_name, run.info.status) == (f"inspect/{corpus.directory}", "FINISHED")
    assert run.data.tags["bertkd.kind"] == "inspect"
    assert run.data.params == {"corpus.lowercase": "false"}
    assert run.data.metrics["test/tgt/unknown_rate"] == pytest.approx(2 / 3)
    assert [item.dataset.digest for item in run.inputs.dataset_inputs] == [corpus.fingerprint]
    files = {item.path for folder in ("", "figures") for item in client.list_artifacts(run.info.run_id, folder)}
    assert {"corpus.txt", "samples.json", "figures/lengths.png", "figures/lengths.svg"} <= files


MISTAKES = {
    "nothing there": (["/no/such/corpus"], "/no/such/corpus: no finished corpus is here; give a CONFIG.yaml or the"),
    "no such configuration": (["nowhere.yaml"], "nowhere.yaml: No such file or directory; give a YAML configuration"),
    "a change to what is finished": (
        ["CORPUS", "corpus.lowercase=true"],
        "corpus.lowercase=true: a finished corpus is what it is; only storage and tracking can be set",
    ),
    "a setting without value": (["CORPUS", "storage"], "'storage': an override is written section.key=value"),
    "an unknown setting": (["CORPUS", "tracking.url=x"], "unknown key tracking.url; did you mean tracking.uri?"),
    "a seed that is none": (["CORPUS", "--seed", "x"], "argument --seed: invalid int value: 'x'"),
    "nowhere to write": (["CORPUS", "storage=/dev/null/x", "tracking=none"], "storage: /dev/null/x cannot be written"),
}


@pytest.mark.parametrize(("arguments", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(corpus, capsys, arguments, said):
    try:
        code = main(["inspect", *(corpus.uri if argument == "CORPUS" else argument for argument in arguments)])
    except SystemExit as exit_:
        code = exit_.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    *log, error = err.splitlines()
    assert error.startswith("bertkd: error: ")
    assert said in error
    assert all(line.startswith("inspect  checking") for line in log)


class Runtime(InProcessRuntime):
    """The runtime of a pipeline, in this process."""

    def __init__(self, config: object) -> None:
        super().__init__()

    def close(self) -> None:
        """There is nothing to close."""


def test_a_configurations_corpus_is_prepared_first_and_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("bertkd_ray.execution.ray.session.RayRuntime", Runtime)
    path = write_config(tmp_path, tracking="none")
    assert main(["inspect", str(path), "--json"]) == 0
    told, log = capsys.readouterr()
    figures = json.loads(told)
    manifest = json.loads(Path(figures["path"], "manifest.json").read_text(encoding="utf-8"))
    assert "prepare  done" in log
    for split, counts in manifest["info"]["splits"].items():
        ours = figures["splits"][split]
        assert (ours["pairs"], ours["read"]) == (counts["pairs"], counts["read"])
        assert ours["pairs"] == ours["read"] - sum(ours["dropped"].values())
        for side in ("src", "tgt"):
            assert ours[side]["tokens"] == counts[f"{side}_tokens"]
            assert ours[side]["unknown"] == counts[f"{side}_unknown"]
    assert figures["splits"]["train"]["dropped"]["empty"] == 1
    monkeypatch.setattr(Runtime, "start", lambda self: pytest.fail("prepared again"))
    assert main(["inspect", str(path)]) == 0
    assert "prepare  cached" in capsys.readouterr().err
