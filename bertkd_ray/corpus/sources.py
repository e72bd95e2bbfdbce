"""The raw pairs of each split that a configuration names, and their part of the fingerprint."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from bertkd_ray.config.corpus import SPLITS, CorpusConfig, Files, MonolingualFiles, SplitFiles
from bertkd_ray.core.console import log
from bertkd_ray.core.errors import UserError
from bertkd_ray.core.paths import expand_home
from bertkd_ray.corpus import download, iwslt14
from bertkd_ray.corpus.columnar import dataset_hash, parquet_hash, read_dataset, read_parquet
from bertkd_ray.corpus.demo import demo_pairs
from bertkd_ray.corpus.moses_zip import moses_zip_hash, read_moses_zip
from bertkd_ray.corpus.po import read_po
from bertkd_ray.corpus.readers import content_hash, read_jsonl, read_text_pairs, read_tsv, stored_hash, tables_of
from bertkd_ray.corpus.tmx import read_tmx
from bertkd_ray.corpus.xliff import read_xliff

_CACHE = "~/.cache/bertkd_ray"
_DATASET_SPLITS = {"train": "train", "valid": "validation", "test": "test", "monolingual": "train"}
MONOLINGUAL = "monolingual"
"""The key of monolingual text in the configuration and among inputs."""


def read_sources(
    corpus: CorpusConfig, split: str, left_out: Counter[str] | None = None
) -> Iterator[Iterator[pa.Table]]:
    """The raw pairs of every source of a split, streamed as tables with the string columns `src` and `tgt`.

    None for a split that is held out of train.
    left_out: gains what the readers leave out, by reason; it is logged too. Raises UserError, while it is read, for
    text that cannot be had or read.
    """
    if corpus.source == "demo":
        yield tables_of(demo_pairs()[split])
    elif corpus.source == "iwslt14":
        yield tables_of(iwslt14.read_iwslt14(_archive(corpus), split, **corpus.languages(), text=corpus.text))
    for files in corpus.sources(split):
        yield _read(corpus, split, files, left_out)


def read_monolingual(corpus: CorpusConfig, left_out: Counter[str] | None = None) -> Iterator[Iterator[pa.Table]]:
    """The sentences of every source of monolingual text, each as a pair with itself, as `read_sources`."""
    for files in corpus.monolingual_sources():
        yield _read(corpus, MONOLINGUAL, files, left_out)


def source_hashes(corpus: CorpusConfig) -> dict[str, str]:
    """The content hashes by which the text enters the fingerprint, by split (and number, in a list) and key."""
    if corpus.source == "demo":
        return {"demo": hashlib.sha256(json.dumps(demo_pairs(), sort_keys=True).encode()).hexdigest()}
    if corpus.source == "iwslt14":
        return {"archive": iwslt14.archive_hash(_archive(corpus))}
    return _hashes(corpus, _named_sources(corpus))


def monolingual_hashes(corpus: CorpusConfig) -> dict[str, str]:
    """The content hashes of monolingual text, as `source_hashes`."""
    return _hashes(corpus, _named(MONOLINGUAL, corpus.monolingual_sources()))


def _hashes(corpus: CorpusConfig, named: Iterable[tuple[str, SplitFiles | MonolingualFiles]]) -> dict[str, str]:
    hashes = {}
    for name, files in named:
        for key, path in files.paths():
            if key == "moses_zip":
                hashes[f"{name}.{key}"] = moses_zip_hash(path, *_names(corpus, files))
            else:
                hashes[f"{name}.{key}"] = parquet_hash(path) if key == "parquet" else content_hash(path)
        if files.dataset is not None:
            hashes[f"{name}.dataset"] = dataset_hash(files.dataset, files.revision)
    return hashes


def source_settings(corpus: CorpusConfig) -> dict[str, object]:
    """The settings of the sources that shape the corpus: columns, subsets, weights and held-out shares; no paths."""
    settings = _settings(corpus, _named_sources(corpus))
    # Versions before this one took other pairs for test where both are held out.
    order = {"held_out_first": "test"} if len(held_out := corpus.held_out()) > 1 else {}
    return {**settings, "weights": weights(corpus), "held_out": held_out, **order}


def monolingual_settings(corpus: CorpusConfig) -> dict[str, object]:
    """The settings of the sources of monolingual text that shape it, as `source_settings`."""
    return _settings(corpus, _named(MONOLINGUAL, corpus.monolingual_sources()))


def _settings(corpus: CorpusConfig, named: Iterable[tuple[str, SplitFiles | MonolingualFiles]]) -> dict[str, object]:
    settings: dict[str, object] = {}
    for name, files in named:
        if files.form != "text":
            settings[f"{name}.columns"] = corpus.columns_of(files)
        if files.tmx is not None:
            settings[f"{name}.variants"] = files.variants or "all"
        if files.xliff is not None:
            settings[f"{name}.approved"] = _is_approved(files)
        if files.form == "datasets":
            settings[f"{name}.dataset"] = [files.subset, _dataset_split(name.partition(".")[0], files)]
    return settings


def _names(corpus: CorpusConfig, files: SplitFiles | MonolingualFiles) -> tuple[str, str]:
    src, tgt = files.columns(corpus.src_lang, corpus.tgt_lang)
    return str(src), str(tgt)


def _is_approved(files: SplitFiles | MonolingualFiles) -> bool:
    return isinstance(files, SplitFiles) and files.approved


def weights(corpus: CorpusConfig) -> list[float]:
    """The weight of every source of train."""
    return [files.weight for files in corpus.sources("train")] or [1.0]


def _named_sources(corpus: CorpusConfig) -> Iterator[tuple[str, SplitFiles]]:
    for split in SPLITS:
        yield from _named(split, corpus.sources(split))


def _named(key: str, sources: Sequence[Files]) -> Iterator[tuple[str, Files]]:
    for number, files in enumerate(sources):
        yield (key if len(sources) == 1 else f"{key}.{number}"), files


def _read(
    corpus: CorpusConfig, split: str, files: SplitFiles | MonolingualFiles, left_out: Counter[str] | None
) -> Iterator[pa.Table]:
    """The pairs of a source; what its reader leaves out is logged after the last one."""
    counts: Counter[str] = Counter()
    yield from _tables(corpus, split, files, counts)
    if counts:
        listed = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in sorted(counts.items()))
        log(f"{', '.join(path for _, path in files.paths())}: left out: {listed}")
    if left_out is not None:
        left_out.update(counts)


def _tables(
    corpus: CorpusConfig, split: str, files: SplitFiles | MonolingualFiles, left_out: Counter[str]
) -> Iterator[pa.Table]:
    columns = files.columns(corpus.src_lang, corpus.tgt_lang)
    names = _names(corpus, files)
    if files.tsv is not None:
        return read_tsv(files.tsv, int(columns[0]), int(columns[1]))
    if files.jsonl is not None:
        return read_jsonl(files.jsonl, *names)
    if files.parquet is not None:
        return read_parquet(files.parquet, *names)
    if files.tmx is not None:
        return read_tmx(files.tmx, *names, left_out, variants=files.variants or "all")
    if files.moses_zip is not None:
        return read_moses_zip(files.moses_zip, *names)
    if files.xliff is not None:
        return read_xliff(files.xliff, *names, left_out, approved=_is_approved(files))
    if files.po is not None:
        return read_po(files.po, *names, left_out)
    if files.src is not None and files.tgt is not None:
        return read_text_pairs(files.src, files.tgt)
    assert files.dataset is not None
    return read_dataset(files.dataset, files.subset, _dataset_split(split, files), files.revision, *names)


def _dataset_split(split: str, files: SplitFiles | MonolingualFiles) -> str:
    return files.split or _DATASET_SPLITS[split]


def _archive(corpus: CorpusConfig) -> str:
    """The archive's path, its checksum compared; one on the web is downloaded first, once."""
    assert corpus.archive is not None
    if corpus.archive.startswith(("http://", "https://")):
        cache = corpus.cache or expand_home(_CACHE)
        return str(download.fetch(corpus.archive, cache, sha256=corpus.archive_sha256))
    path = corpus.whole(corpus.archive)
    if (sha256 := corpus.archive_sha256) is not None and (digest := stored_hash(path)) != sha256:
        raise UserError(f"{path}: has SHA-256 {digest}, not {sha256}; correct archive or archive_sha256")
    return path
