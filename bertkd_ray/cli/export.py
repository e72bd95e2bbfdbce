"""`bertkd export`: a finished student as a directory for CTranslate2 or for plain transformers."""

import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from bertkd_ray.cli.arguments import EXIT_CODES, add_json, add_overrides, configuration, is_config, print_result
from bertkd_ray.core.errors import UserError

HELP = "take a student with you: a directory for CTranslate2 or for plain transformers"
EPILOG = f"""\
The student must be finished. ctranslate2 (pip install '.[export]' in the checkout) is measured: BLEU and speed beside
the student in PyTorch, on the corpus' test text. Both directories hold the tokenizer and a model card, README.md.

  bertkd export configs/demo.yaml --to ctranslate2 --quantization int8
  bertkd export s3://bucket/store/student-4ef9fb1b8af97cbe --to huggingface --license cc-by-4.0 --output model

{EXIT_CODES}"""


def add_options(parser: ArgumentParser) -> None:
    """The student, the form, and where it goes."""
    add = parser.add_argument
    add("config", metavar="MODEL", help="a student artifact's DIR or URI, or a CONFIG.yaml")
    add_overrides(parser)
    add("--arm", metavar="NAME", help="of the configuration (default: the first with a teacher)")
    add("--to", required=True, choices=("ctranslate2", "huggingface"), help="the form")
    add("--output", metavar="DIR", help="or a URI: what is made (default: named for MODEL, in this directory)")
    add("--force", action="store_true", help="replace an earlier export")
    add("--license", metavar="ID", help="of the model card, as the hub calls it: apache-2.0, cc-by-4.0, …")
    add("--quantization", metavar="TYPE", help="ctranslate2: int8, int16, float16, … (default: float32)")
    add("--sentences", type=int, metavar="N", help="ctranslate2: how many to measure with (default: 200; 0: none)")
    add_json(parser)


def call(options: Namespace) -> None:
    """Exports one student and says where it is."""
    from bertkd_ray.pipeline.session import student_of
    from bertkd_ray.student.lineage import distilled_arm
    from bertkd_ray.translation.export import QUANTIZATIONS, SENTENCES, default_output, export_student

    config = configuration(options) if is_config(options.config) else None
    _check(options, config is not None, QUANTIZATIONS)
    student, output, quantization = options.config, options.output, options.quantization or "float32"
    arm_config = None
    if config is not None:
        arm = options.arm or distilled_arm(config)
        student = student_of(config, arm, shlex.join([options.config, *options.overrides]))
        arm_config = config.arm_configs()[arm]
        output = output or default_output(f"{config.name}-{arm}", options.to, quantization)
    exported = export_student(
        student,
        output,
        config=arm_config,
        to=options.to,
        quantization=quantization,
        sentences=SENTENCES if options.sentences is None else options.sentences,
        license=options.license,
        force=options.force,
    )
    print_result(options, exported.as_json(), exported.text())


def _check(options: Namespace, has_config: bool, quantizations: Sequence[str]) -> None:
    """Raises UserError for options that do not fit each other."""
    if not has_config and (options.arm is not None or options.overrides):
        given = options.overrides[0] if options.overrides else f"--arm {options.arm}"
        raise UserError(f"{given}: a finished student is what it is; only a CONFIG.yaml has arms and keys")
    for name in ("quantization", "sentences"):
        if options.to == "huggingface" and getattr(options, name) is not None:
            raise UserError(f"--{name} belongs to --to ctranslate2; remove it")
    if options.quantization is not None and options.quantization not in quantizations:
        raise UserError(f"--quantization {options.quantization}: give one of {', '.join(quantizations)}")
    if options.sentences is not None and options.sentences < 0:
        raise UserError(f"--sentences {options.sentences}: give a number of sentences, or 0 to measure nothing")
