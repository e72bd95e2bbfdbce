"""What the README and the how-to pages tell a user to do works."""

from __future__ import annotations

import gzip
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bertkd_ray.cli import main, make_parser
from bertkd_ray.config import load_config
from bertkd_ray.config.study import load_study
from bertkd_ray.pipeline.checks import check_config
from bertkd_ray.student.lineage import distilled_arm
from bertkd_ray.translation.export import default_output
from tests.helpers.small_config import write_corpus, write_small_bert

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    README,
    *(
        (ROOT / "docs" / "howto" / f"{name}.md").read_text(encoding="utf-8")
        for name in ("models", "compare", "cluster")
    ),
]


def blocks(language: str) -> list[str]:
    """The fenced code blocks of a language."""
    return [
        block
        for page in PAGES
        for block in re.findall(rf"^```{language}\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    ]


def commands(program: str) -> list[list[str]]:
    """The pages' shell commands that begin with a program, without their comments."""
    lines = "".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [words[1:] for line in lines if (words := shlex.split(line, comments=True)) and words[0] == program]


@pytest.fixture(scope="module")
def mine(tmp_path_factory) -> Path:
    """The README's own configuration, with a corpus and a BERT where it says."""
    directory = tmp_path_factory.mktemp("mine")
    splits = write_corpus(directory / "data" / "mine")
    for path in (directory / "data" / "mine").glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    bert = write_small_bert(directory / "bert", splits)
    text = next(block for block in blocks("yaml") if "name: mine" in block)
    (directory / "mine.yaml").write_text(text.replace("bert-base-multilingual-cased", str(bert)), encoding="utf-8")
    return directory


@pytest.mark.parametrize("words", commands("bertkd"), ids=" ".join)
def test_every_bertkd_command_is_understood(words, mine, monkeypatch, tmp_path):
    options = make_parser().parse_args(words)
    if options.command == "init":
        monkeypatch.chdir(mine)
        output = str(tmp_path / options.output)
        elsewhere = [output if word == str(options.output) else word for word in words]
        # The BERT that it would choose is not everywhere, and this machine's speed is no matter here.
        assert main([*elsewhere, "--teacher", "bert", "--device", "h100"]) == 0
        assert load_config(output).corpus.tgt_lang == "en"
        return
    if options.command == "compare":
        demo = load_config(ROOT / "configs" / "demo.yaml")
        assert set(options.runs) <= {f"{demo.name}/{arm}" for arm in demo.arms}
        return
    monkeypatch.chdir(mine if options.config == "mine.yaml" else ROOT)
    if options.command == "study":
        assert load_study(options.config, options.overrides).trials
        return
    if options.command == "submit":
        assert load_config(options.config, options.overrides).storage == "s3://bucket/demo"
        return
    if options.command == "translate" and not options.config.endswith(".yaml"):
        assert options.config in exported()
        return
    config = load_config(options.config, options.overrides)
    assert getattr(options, "arm", None) in (None, *config.arms)


def exported() -> set[str]:
    """The directories that the README's exports of configurations make."""
    exports = [make_parser().parse_args(words) for words in commands("bertkd") if words[0] == "export"]
    configs = [load_config(ROOT / one.config, one.overrides) for one in exports]
    return {
        str(default_output(f"{config.name}-{distilled_arm(config)}", one.to, one.quantization or "float32"))
        for one, config in zip(exports, configs, strict=True)
    }


def test_the_example_configuration_validates(mine, monkeypatch):
    monkeypatch.chdir(mine)
    lines = list(check_config(load_config("mine.yaml")))
    assert any(line.startswith("train") and line.endswith("pairs") for line in lines)


def test_the_example_arms_load(mine, monkeypatch):
    monkeypatch.chdir(mine)
    arms = load_config("mine.yaml").arm_configs()
    assert set(arms) == {"distilled", "sharp", "control"}
    assert arms["sharp"].kd.temperature == 1


def test_the_readme_is_short():
    assert len(README.splitlines()) < 150


def test_every_make_target_exists():
    targets = set(re.findall(r"`?make ([a-z-]+)", README))
    assert {"demo", "test"} <= targets
    for target in targets:
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_python_example_is_python():
    for block in blocks("python"):
        compile(block, "README.md", "exec")


def test_the_table_and_the_comparison_of_the_demo_say_the_same():
    delta, p_value = re.search(r"^\| distilled \|.* \| (\S+) \| (\S+) \|$", README, flags=re.MULTILINE).groups()
    (comparison,) = [block for block in blocks("text") if "test BLEU against A" in block]
    assert re.search(rf"^B +{re.escape(delta)}  .*  {re.escape(p_value)}  ", comparison, flags=re.MULTILINE)


def test_the_job_of_the_readme_is_there():
    (words,) = [words for words in commands("ray") if words[:2] == ["job", "submit"]]
    script, config, *overrides = words[words.index("python") + 1 :]
    done = subprocess.run([sys.executable, ROOT / script, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert load_config(ROOT / config, overrides).storage == "s3://bucket/demo"
    assert yaml.safe_load((ROOT / words[words.index("--runtime-env") + 1]).read_text())["env_vars"]
