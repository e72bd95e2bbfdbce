"""`bertkd init`: the configuration that it writes, what it takes, and what it refuses."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import yaml

from bertkd_ray.cli import main
from bertkd_ray.config import load_config
from bertkd_ray.plan import rates, recommendation
from bertkd_ray.plan.costs import PipelinePlan, plan_pipeline
from bertkd_ray.plan.recommendation import Request, recommend
from tests.helpers.small_config import write_corpus, write_small_bert


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """Text and a small BERT."""
    directory = tmp_path_factory.mktemp("project")
    write_small_bert(directory / "bert", write_corpus(directory / "text"))
    return directory


@pytest.fixture
def bertkd(capsys):
    """The command line: exit code, stdout, stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main(words)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def init(project, bertkd, monkeypatch):
    """The command on the text, with the small BERT and a device whose speed is known."""
    slow = rates.known_device("h100").with_rate(2e10)
    monkeypatch.setattr(rates, "DEVICES", {**rates.DEVICES, "slow": slow})
    monkeypatch.chdir(project)

    def call(*options: str, train: tuple[str, ...] = ("text/train.de.gz", "text/train.en.gz")) -> tuple[int, str, str]:
        return bertkd("init", *train, "--teacher", "bert", "--device", "slow", *options)

    return call


def planned(text: str, path: Path) -> PipelinePlan:
    path.write_text(text, encoding="utf-8")
    slow = rates.known_device("h100").with_rate(2e10)
    return plan_pipeline(load_config(path), device=slow)


@pytest.mark.parametrize("hours", [0.5, 1.0])
def test_the_pipeline_takes_the_hours(init, tmp_path, hours, monkeypatch):
    for most in ("TEACHER_EPOCHS", "STUDENT_EPOCHS"):
        monkeypatch.setattr(recommendation, most, 10**6)
    code, out, err = init("--hours", str(hours))
    assert code == 0
    plan = planned(out, tmp_path / "mine.yaml")
    assert 0.8 * hours < plan.wall_seconds / 3600 <= hours
    spent = {stage.name.partition("/")[0]: stage.device_hours for stage in plan.stages}
    share = spent["finetune"] / (spent["finetune"] + 2 * spent["distill"])
    assert share == pytest.approx(recommendation.TEACHER_SHARE, abs=0.1)
    assert f"{out.splitlines()[0].removeprefix('# ')}" in err


def test_more_hours_than_epochs_help_are_not_spent(init, tmp_path):
    code, out, _ = init("--hours", "1000")
    assert code == 0
    plan = planned(out, tmp_path / "mine.yaml")
    epochs = {stage.name: stage.epochs for stage in plan.stages}
    assert epochs["finetune"] == pytest.approx(recommendation.TEACHER_EPOCHS, rel=0.15)
    assert epochs["distill/control"] == pytest.approx(recommendation.STUDENT_EPOCHS, rel=0.15)
    assert load_config(tmp_path / "mine.yaml").student.dropout == 0.3


def test_the_file_is_a_configuration_with_a_reason_a_choice(init, project, tmp_path):
    output = tmp_path / "tonight.yaml"
    files = ["--valid", "text/valid.de.gz", "text/valid.en.gz", "--test", "text/test.de.gz", "text/test.en.gz"]
    code, out, err = init("--hours", "1", *files, "--output", str(output))
    assert (code, out) == (0, "")
    assert err.endswith(f"init  {output} is written; next: bertkd run {output}\n")
    config = load_config(output)
    assert (config.name, config.corpus.src_lang, config.corpus.tgt_lang) == ("tonight", "de", "en")
    assert [source.src for source in config.corpus.sources("test")] == ["text/test.de.gz"]
    assert (config.teacher.model, config.teacher.direction) == ("bert", "left_to_right")
    assert {config.teacher.steps % 8, config.student.steps % 8} == {0}
    lines = output.read_text(encoding="utf-8").splitlines()
    for key in ("steps", "direction", "encoder_layers", "temperature", "tail", "alpha"):
        assert all(" # " in line for line in lines if line.strip().startswith(f"{key}:"))
    code, _, err = init("--output", str(output))
    assert (code, err) == (2, f"bertkd: error: {output}: is there already; move it away or name another --output\n")


def test_nothing_of_the_users_is_written_over(init, tmp_path, monkeypatch):
    link, elsewhere = tmp_path / "link.yaml", tmp_path / "elsewhere.yaml"
    link.symlink_to(elsewhere)
    code, _, err = init("--output", str(link))
    assert (code, err) == (2, f"bertkd: error: {link}: is there already; move it away or name another --output\n")
    assert not elsewhere.exists()
    code, _, err = init("--output", str(tmp_path / "none" / "mine.yaml"))
    assert (code, f"there is no directory {tmp_path / 'none'}" in err) == (2, True)
    # One that comes while the plan is made.
    came = tmp_path / "came.yaml"

    def slow_recommend(request: Request) -> recommendation.Recommendation:
        came.write_text("the user's")
        return recommend(request)

    monkeypatch.setattr(recommendation, "recommend", slow_recommend)
    assert init("--output", str(came))[0] == 2
    assert came.read_text() == "the user's"


@pytest.mark.parametrize(
    ("names", "option"),
    [
        (("t.de.txt", "t.en.txt"), "--src-lang"),
        (("t.src", "t.en"), "--src-lang"),
        (("a.en", "b.en"), "--src-lang"),
        (("t.de", "t.tgt"), "--tgt-lang"),
    ],
)
def test_an_ending_that_is_no_language_is_asked_for(init, project, names, option):
    """`txt`, `src` and `tgt` are codes of languages, too."""
    for name, side in zip(names, ("de", "en"), strict=True):
        (project / name).write_bytes(gzip.decompress((project / f"text/train.{side}.gz").read_bytes()))
    code, out, err = init(train=names)
    assert (code, out) == (2, "")
    assert err.startswith(f"bertkd: error: {option}: the name of the training text does not tell the language")
    assert init("--src-lang", "de", "--tgt-lang", "en", train=names)[0] == 0


def test_valid_and_test_are_held_out_where_they_are_not_named(init):
    code, out, _ = init("--valid", "text/valid.de.gz", "text/valid.en.gz")
    corpus = yaml.safe_load(out)["corpus"]
    # 1,000 of 244 pairs would be more than a tenth.
    assert (code, corpus["test"]) == (0, {"held_out": 0.1})
    assert corpus["valid"] == {"src": "text/valid.de.gz", "tgt": "text/valid.en.gz"}


def test_a_file_of_pairs_and_its_languages(init, project):
    sides = [gzip.decompress((project / f"text/train.{side}.gz").read_bytes()).decode() for side in ("de", "en")]
    rows = zip(*(side.splitlines() for side in sides), strict=True)
    (project / "pairs.tsv").write_text("".join(f"{src}\t{tgt}\n" for src, tgt in rows), encoding="utf-8")
    code, _, err = init(train=("pairs.tsv",))
    assert code == 2
    assert err.startswith("bertkd: error: --src-lang: the name of the training text does not tell the language")
    code, out, _ = init("--src-lang", "de", "--tgt-lang", "eng", train=("pairs.tsv",))
    corpus = yaml.safe_load(out)["corpus"]
    assert (code, corpus["train"], corpus["tgt_lang"]) == (0, {"tsv": "pairs.tsv"}, "eng")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--hours", "0"], "--hours 0: give hours above 0, at most 100000"),
        (["--hours", "0.0001"], "--hours 0.0001: without any training the pipeline takes"),
        (["--teacher", "./nowhere"], "teacher.model: there is no directory ./nowhere"),
        (["--device", "abacus"], "--device abacus: known are h100, h200, slow; leave it out for this machine"),
        (["--valid", "text/valid.de.gz"], "valid: text/valid.de.gz: give two files, source and target, or one .tsv"),
        (["--src-lang", "german"], "bertkd init: src_lang: no language code of ISO 639"),
    ],
)
def test_what_cannot_be_chosen_for_is_one_line(init, options, message):
    code, out, err = init(*options)
    assert (code, out) == (2, "")
    assert err.startswith(f"bertkd: error: {message}")
    assert err.count("\n") == 1


def test_a_larger_text_gets_a_larger_student(project, monkeypatch):
    """Of the table, the largest student whose text is large enough and whose epochs fit into the hours."""
    monkeypatch.chdir(project)
    train = {"src": "text/train.de.gz", "tgt": "text/train.en.gz"}
    corpus = {"train": train, "src_lang": "de", "tgt_lang": "en"}
    shape_of_text = recommendation.shape_of_text

    def of(pairs: int, hours: float) -> int:
        def shape(corpus, bert):
            found = shape_of_text(corpus, bert)
            train = found.splits["train"]
            splits = {**found.splits, "train": type(train)(pairs, train.src, train.tgt)}
            return type(found)(splits, found.vocabulary, found.bytes, found.basis, found.is_estimate)

        monkeypatch.setattr(recommendation, "shape_of_text", shape)
        return recommend(Request("mine", corpus, hours, "bert", "h100")).config.student.encoder_layers

    assert [of(pairs, 100.0) for pairs in (10_000, 30_000, 200_000)] == [2, 3, 6]
    assert of(20_000_000, 2.0) == 2


@pytest.mark.parametrize("hours", [0.2, 1.0])
def test_on_a_gpu_steps_are_as_many_as_can_be_launched(project, monkeypatch, hours):
    monkeypatch.chdir(project)
    monkeypatch.setattr(recommendation, "STUDENT_EPOCHS", 10**6)
    train = {"src": "text/train.de.gz", "tgt": "text/train.en.gz"}
    found = recommend(Request("mine", {"train": train, "src_lang": "de", "tgt_lang": "en"}, hours, "bert", "h100"))
    student = found.config.student
    # An update is one pass of 238 launches a layer, 28 µs each, and there are two arms.
    launched = 2 * student.steps * 238 * (student.encoder_layers + student.decoder_layers) * 28e-6
    assert 0.5 * 3600 * hours < launched < 3600 * hours
    assert found.plan.wall_seconds <= 3600 * hours


def test_a_small_text_gets_a_small_vocabulary(init, monkeypatch, tmp_path):
    """Where its own is larger, and its characters are fewer."""
    monkeypatch.setattr(recommendation, "_SMALL_VOCABULARY", 300)
    code, out, _ = init("--hours", "1")
    plan = planned(out, tmp_path / "mine.yaml")
    assert (code, yaml.safe_load(out)["corpus"]["max_vocabulary"]) == (0, 300)
    assert plan.corpus.vocabulary == 300
    for vocabulary, pairs in ((10**6, 20_000), (50, 20_000), (300, 100)):
        monkeypatch.setattr(recommendation, "_SMALL_VOCABULARY", vocabulary)
        monkeypatch.setattr(recommendation, "_FEW_PAIRS", pairs)
        code, out, _ = init("--hours", "1")
        assert (code, "max_vocabulary" in out) == (0, False)


def test_a_teacher_that_can_read_the_source(project, monkeypatch, bertkd):
    """An English BERT is chosen for sources in Latin letters alone."""
    monkeypatch.chdir(project)
    named: list[str] = []

    def resolve(model: str) -> str:
        named.append(model)
        return str(project / "bert")

    monkeypatch.setattr(recommendation, "resolve_model", resolve)
    monkeypatch.setattr("bertkd_ray.plan.costs.resolve_model", resolve)
    monkeypatch.setattr(recommendation.importlib.util, "find_spec", lambda package: object())
    options = ("--device", "h100", "--hours", "9")
    assert bertkd("init", "text/train.de.gz", "text/train.en.gz", *options)[0] == 0
    assert named[0] == recommendation.SMALL_BERT
    named.clear()
    lines = gzip.decompress((project / "text/train.de.gz").read_bytes()).decode()
    cyrillic = lines.translate(
        {ord(latin): chr(0x430 + index) for index, latin in enumerate("abcdefghijklmnopqrstuvwxyz")}
    )
    (project / "text/train.ru.gz").write_bytes(gzip.compress(cyrillic.encode()))
    assert bertkd("init", "text/train.ru.gz", "text/train.en.gz", *options)[0] == 0
    assert named[0] == recommendation.MULTILINGUAL_BERT
    named.clear()
    assert bertkd("init", "text/train.en.gz", "text/train.de.gz", *options)[0] == 0
    assert named[0] == recommendation.MULTILINGUAL_BERT


@pytest.mark.slow
def test_what_is_written_runs_to_its_table(project, bertkd, monkeypatch):
    """On this machine, whose speed is measured."""
    monkeypatch.chdir(project)
    files = ["--valid", "text/valid.de.gz", "text/valid.en.gz", "--test", "text/test.de.gz", "text/test.en.gz"]
    text = ["text/train.de.gz", "text/train.en.gz"]
    code, _, err = bertkd("init", *text, *files, "--teacher", "bert", "--hours", "0.02", "--output", "mine.yaml")
    assert (code, "bertkd run mine.yaml" in err) == (0, True)
    code, out, _ = bertkd("run", "mine.yaml", "runtime=local", "tracking=none", "device=cpu", "student.width=32")
    assert code == 0
    assert "distilled" in out
    assert "control" in out
