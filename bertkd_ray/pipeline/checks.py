"""What can be checked without training: a configuration before hours are spent, and a store against its manifests."""

from collections.abc import Iterator
from contextlib import closing

import pyarrow as pa
import pyarrow.compute as pc

from bertkd_ray.artifacts import artifact as artifacts
from bertkd_ray.artifacts.manifest import MANIFEST
from bertkd_ray.artifacts.store import Store
from bertkd_ray.config import Config
from bertkd_ray.config.corpus import SPLITS, CorpusConfig
from bertkd_ray.core.console import log
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.redaction import redacted
from bertkd_ray.corpus.bert_tokenizer import load_bert_tokenizer
from bertkd_ray.corpus.sources import read_monolingual, read_sources
from bertkd_ray.corpus.swapped_sides import repeated_text, swapped_names, swapped_splits
from bertkd_ray.execution.ray import cluster_address
from bertkd_ray.student.start import check_start
from bertkd_ray.teacher.source import check_bert, naming_teacher, require_one_vocabulary, resolve_model
from bertkd_ray.tracking import check_tracking, default_uri


def check_config(config: Config) -> Iterator[str]:
    """One line for every check that holds: storage, tracking, cluster, BERT, vocabulary, device, text. Raises UserError
    at the first that does not.
    """
    Store(config.storage).require_writable()
    yield f"storage    {redacted(config.storage)} can be written"
    uri = config.tracking.uri or default_uri(config.storage)
    yield f"tracking   {check_tracking(uri, config.tracking.experiment or config.name)}"
    if config.runtime == "ray" and cluster_address() is not None:
        yield f"cluster    {_nodes(config)} node(s), which see the storage"
    yield from _teachers(config)
    for arm, of_arm in config.arm_configs().items():
        check_start(of_arm.student)
        if of_arm.student.start is not None:
            yield f"start      {arm}: {redacted(of_arm.student.start)} has the student's shape"
    yield f"device     {_device(config)}"
    samples: dict[str, pa.Table] = {}
    for split in SPLITS:
        yield f"{split:<10} {_pairs(config.corpus, split, samples)}"
    if config.corpus.monolingual is not None:
        sentences = sum(len(table) for tables in read_monolingual(config.corpus) for table in tables)
        yield f"{'text':<10} {sentences:,} monolingual sentences"
    texts = (*swapped_names(config.corpus), *swapped_splits(samples), *repeated_text(samples))
    for remark in (*texts, *_plan_warnings(config)):
        log(f"warning: {remark}", stage="validate")


def _plan_warnings(config: Config) -> list[str]:
    """What is unreasonable about the time that all this takes; of a cluster's devices this machine knows nothing."""
    from bertkd_ray.plan.costs import plan_pipeline
    from bertkd_ray.plan.warnings import epoch_warnings, time_warnings

    plan = plan_pipeline(config)
    is_elsewhere = config.runtime == "ray" and cluster_address() is not None
    return [*([] if is_elsewhere else time_warnings(plan)), *epoch_warnings(plan)]


def _teachers(config: Config) -> Iterator[str]:
    directories: dict[str, str] = {}
    for name, of_teacher in config.teacher_configs().items():
        model, weights = of_teacher.teacher.model, of_teacher.teacher.pretrained
        with naming_teacher(name):
            directory = directories[name] = resolve_model(model)
            bert = check_bert(directory, weights=weights, **of_teacher.needs_of_bert())
        vocabulary = load_bert_tokenizer(directory).tokenizer.get_vocab_size()
        size = f"{bert['num_hidden_layers']} layers, {vocabulary:,} pieces"
        yield f"teacher    {f'{name}, ' if name else ''}{model}: {size}"
    require_one_vocabulary(directories)


def _nodes(config: Config) -> int:
    from bertkd_ray.execution.ray.cluster import require_shared_storage
    from bertkd_ray.execution.ray.session import RayRuntime

    with closing(RayRuntime(config)) as runtime:
        runtime.start()
        return require_shared_storage(config.storage)


def _pairs(corpus: CorpusConfig, split: str, samples: dict[str, pa.Table]) -> str:
    """What a split holds; every line of it is read, and the first ones become its sample."""
    share = corpus.held_out().get(split)
    if share is not None:
        return f"{share:.2%} of train, held out"
    counts, full = [], False
    for tables in read_sources(corpus, split):
        counts.append(0)
        for table in tables:
            counts[-1] += len(table)
            samples.setdefault(split, table)
            if not full:
                sides = [pc.not_equal(pc.utf8_trim_whitespace(table[side]), "") for side in ("src", "tgt")]
                full = bool(pc.any(pc.and_(*sides)).as_py())
    if not full:
        reason = f"each of the {sum(counts)} pairs has an empty side" if sum(counts) else "the files are empty"
        raise UserError(f"corpus.{split}: {reason}; give at least one pair")
    sources = f" in {len(counts)} sources" if len(counts) > 1 else ""
    return f"{sum(counts):,} pairs{sources}"


def _device(config: Config) -> str:
    # Takes seconds to import and is needed for this one answer.
    import torch

    from bertkd_ray.core.devices import best_device, resolve_precision

    gpus = torch.cuda.device_count()
    least, most = config.worker_range
    if config.device == "gpu" and gpus < least:
        raise UserError(
            f"device: gpu with workers: {least}, but this machine has {gpus} GPUs; lower workers or set device=auto"
        )
    device = torch.device("cpu") if config.device == "cpu" else best_device()
    precision = resolve_precision(config.precision, device)
    workers = str(least) if least == most else f"{least} to {most}"
    return f"{device.type}, {precision}, {workers} worker{'' if workers == '1' else 's'}; as seen from this machine"


def check_store(storage: str) -> tuple[int, list[str]]:
    """Every finished artifact of a store against its manifest: how many there are, and one line a problem."""
    store = Store(storage)
    directories = [name for name in store.directories() if store.exists(name, MANIFEST)]
    if not directories:
        raise UserError(f"{redacted(storage)}: no finished artifact is here; give the storage directory of a pipeline")
    problems = []
    for directory in directories:
        try:
            problems += list(artifacts.load(store, directory).problems(checksums=True))
        except UserError as error:
            problems.append(str(error))
    return len(directories), problems
