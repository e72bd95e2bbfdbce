"""Sentence pairs from tables: Parquet files, and data sets of the Hugging Face `datasets` library (an optional extra).

A column may lie in a struct: `translation.de`. Everything is streamed and given as tables with the string columns `src`
and `tgt`. Nothing that a data set brings as code is run.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from pyarrow import fs

from bertkd_ray.core.console import log
from bertkd_ray.core.errors import UserError, one_line
from bertkd_ray.core.timeouts import call_with_timeout
from bertkd_ray.corpus.readers import MAX_LINE_BYTES, PAIRS, content_hash, locate, stored_hash, unreadable_error

_BATCH_ROWS = 4096
_SETTINGS = ".huggingface.yaml"  # read beside the card
_TEXT_TYPES = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)


def read_parquet(path: str, src_column: str = "src", tgt_column: str = "tgt") -> Iterator[pa.Table]:
    """The pairs of Parquet files, in the order of their names: one file, all below a directory, or those of a pattern.

    A pattern has `*` in one or more parts of the path, each within one directory level. Below a directory, names that
    begin with `_` or `.` are left out. All of it may be a URI.

    Raises UserError where no file is found, for what is no Parquet file, an absent column, a column of another type
    than text, and a null (by its row, counted from 1).
    """
    filesystem, names = _parquet_files(path)
    for name in names:
        yield from _pairs(
            _batches(filesystem, name, list(dict.fromkeys([src_column, tgt_column]))), (src_column, tgt_column), name
        )


def parquet_rows(path: str) -> int:
    """The pairs that `read_parquet` gives, from the files' footers alone; raises as it does for files."""
    filesystem, names = _parquet_files(path)
    rows = 0
    for name in names:
        with _opening(name), filesystem.open_input_file(name) as stream:
            rows += pq.read_metadata(stream).num_rows
    return rows


def parquet_hash(path: str) -> str:
    """SHA-256 over the contents of the files that `read_parquet` reads, in their order; their names do not enter."""
    filesystem, names = _parquet_files(path)
    total = hashlib.sha256()
    for name in names:
        with _opening(name), filesystem.open_input_file(name) as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def read_dataset(
    name: str, subset: str | None, split: str, revision: str | None, src_column: str, tgt_column: str
) -> Iterator[pa.Table]:
    """The pairs of a split of a data set, streamed: from the hub, or from a local directory of data files.

    Raises UserError when `datasets` is not installed, the data set, subset or split cannot be had, for a file of a
    directory that has no part in `dataset_hash`, before it is opened, and as `read_parquet` for its columns. Not
    supported: data sets that need code of their own, `save_to_disk` directories.
    """
    where = f"dataset {name}, split {split}"
    try:
        from datasets import load_dataset_builder
    except ImportError:
        raise UserError(
            f"{where}: the datasets library is not installed; in the checkout: pip install '.[datasets]'"
        ) from None
    directory = Path(name)
    try:
        # First, since the library asks the web for what a card names there.
        named = _files_of_cards(directory)
        wrong = [file for file in named if ":" in file or not _is_hashed(directory / file, directory)]
        if not wrong:
            builder = load_dataset_builder(name, subset, revision=revision)
            files = [*chain.from_iterable(builder.config.data_files.values())] if directory.is_dir() else []
            wrong = [file for file in files if not _is_hashed(Path(file.rpartition("::")[2]), directory)]
            loaded = builder.as_streaming_dataset(split=split)
    except Exception as error:  # for a wrong name, subset, split or connection the library has no common class
        raise UserError(
            f"{where}: cannot be loaded ({one_line(error)[:300]}); correct dataset, subset or split"
        ) from error
    if wrong:
        raise UserError(
            f"{where}: {wrong[0]} is hidden, behind a link, or outside of the directory; move it into the directory"
        )
    yield from _pairs(_tables(loaded, where), (src_column, tgt_column), where)


def dataset_hash(name: str, revision: str | None) -> str:
    """The identity of a data set's content: its commit on the hub, or SHA-256 over the files of a local directory.

    Hidden files, and what lies in `__…__`, do not enter. Raises UserError when the hub cannot be asked or does not know
    the data set.
    """
    if Path(name).is_dir():
        digest = hashlib.sha256()
        for path in sorted(path for path in Path(name).rglob("*") if path.is_file()):
            if _is_hashed(path, Path(name)):
                hashed = content_hash if path.suffix in (".gz", ".zst") else stored_hash
                # Names tell the library which split a file belongs to.
                digest.update(f"{path.relative_to(name)}\0{hashed(str(path))}\0".encode())
        return digest.hexdigest()
    from huggingface_hub import HfApi

    try:
        commit = HfApi().dataset_info(name, revision=revision).sha
    except (OSError, ValueError) as error:
        offline = "HF_HUB_OFFLINE is set; " if os.environ.get("HF_HUB_OFFLINE") else ""
        raise UserError(
            f"dataset {name}: neither a directory nor a data set on the hub ({offline}{one_line(error)[:200]}); "
            "correct the name or the network"
        ) from error
    if commit is None:
        raise UserError(f"dataset {name}: the hub names no commit, so its content has no fingerprint; copy it first")
    return commit


def _files_of_cards(directory: Path) -> Iterator[str]:
    """The files, and patterns of files, that a data set's card names, or the settings beside it."""
    from datasets.data_files import sanitize_patterns
    from huggingface_hub import DatasetCard

    card, settings = directory / "README.md", directory / _SETTINGS
    trees = [DatasetCard.load(card).data.to_dict()] if card.is_file() else []
    trees += [yaml.safe_load(settings.read_bytes()) or {}] if settings.is_file() else []
    for config in chain.from_iterable(tree.get("configs") or () for tree in trees):
        yield f"{config.get('data_dir') or '.'}/*"
        yield from chain.from_iterable(sanitize_patterns(config.get("data_files") or "*").values())


def _is_hashed(file: Path, directory: Path) -> bool:
    """Whether a file lies in the directory, behind no link of a directory there, and is not hidden."""
    if any(above.is_symlink() for above in file.parents if directory in above.parents):
        return False
    parent, root = file.parent.resolve(), directory.resolve()
    parts = (*parent.relative_to(root).parts, file.name) if parent.is_relative_to(root) else ("..",)
    return parts == (_SETTINGS,) or not any(part.startswith((".", "__")) for part in parts)


def _parquet_files(path: str) -> tuple[fs.FileSystem, list[str]]:
    """A filesystem, and the names of the files in it that `path` stands for; at least one."""
    before, star, _ = path.partition("*")
    base = before[: before.rfind("/") + 1] or "." if star else path
    try:
        filesystem, inner, kind = call_with_timeout(lambda: locate(base))
        if kind == fs.FileType.NotFound:
            raise FileNotFoundError(path)
        if kind == fs.FileType.File:
            return filesystem, [inner]
        infos = filesystem.get_file_info(fs.FileSelector(inner, recursive=True))
    except (OSError, pa.ArrowException) as error:
        raise unreadable_error(path, error) from error
    below = {info.path[len(inner.rstrip("/")) + 1 :]: info.path for info in infos if info.type == fs.FileType.File}
    if star:
        pattern = re.compile(re.escape(path[before.rfind("/") + 1 :]).replace(r"\*", "[^/]*"))
        names = [name for inner, name in below.items() if pattern.fullmatch(inner)]
    else:
        hidden = re.compile(r"(^|/)[_.]")
        names = [name for inner, name in below.items() if inner.endswith(".parquet") and not hidden.search(inner)]
    if not names:
        raise UserError(f"{path}: no Parquet file is here; correct the path or the pattern")
    return filesystem, sorted(names)


def _batches(filesystem: fs.FileSystem, name: str, columns: list[str]) -> Iterator[pa.Table]:
    """The columns of a Parquet file in tables of bounded size; a struct holds the fields that were asked for alone."""
    with _opening(name), filesystem.open_input_file(name) as stream:
        file = pq.ParquetFile(stream)
        for column in columns:
            _column_path(file.schema_arrow, column, name)
        for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
            yield pa.Table.from_batches([batch])


@contextmanager
def _opening(name: str) -> Iterator[None]:
    try:
        yield
    except pa.ArrowInvalid as error:
        raise UserError(f"{name}: damaged, or no Parquet file ({one_line(error)}); write it again") from error
    except (OSError, pa.ArrowException) as error:
        raise unreadable_error(name, error) from error


def _tables(loaded: Any, where: str) -> Iterator[pa.Table]:
    """The rows of a streamed data set; what goes wrong on the way is the source's fault, whatever it is called."""
    try:
        yield from loaded.with_format("arrow").iter(batch_size=_BATCH_ROWS)
    except Exception as error:
        raise UserError(f"{where}: cannot be read ({one_line(error)[:300]}); check its files") from error


def _column_path(schema: pa.Schema, column: str, where: str) -> list[str]:
    """The names that lead to a column, from struct to struct. Raises UserError unless it is there and holds text."""
    fields, kind, path, rest = list(schema), pa.null(), list[str](), column
    while rest:
        names = [field.name for field in fields]
        name, _, below = (rest, "", "") if rest in names else rest.partition(".")
        if name not in names:
            inside = f" in {'.'.join(path)}" if path else ""
            held = f"only {', '.join(names)}" if names else f"which is of type {kind}"
            raise UserError(f"{where}: no column {name}{inside}, {held}; name a column of text")
        if names.count(name) > 1:
            raise UserError(f"{where}: {names.count(name)} columns are called {name}; rename all but one")
        kind, rest = fields[names.index(name)].type, below
        path.append(name)
        fields = list(kind) if pa.types.is_struct(kind) else []
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not any(is_text(plain) for is_text in _TEXT_TYPES):
        raise UserError(f"{where}: column {column} is of type {kind}, not text; name a text column")
    return path


def _pairs(tables: Iterable[pa.Table], columns: tuple[str, str], where: str) -> Iterator[pa.Table]:
    first_row = 1
    for table in tables:
        yield pa.table([_text(table, column, where, first_row) for column in columns], schema=PAIRS)
        first_row += len(table)


def _text(table: pa.Table, column: str, where: str, first_row: int) -> pa.StringArray:
    first, *others = _column_path(table.schema, column, where)
    values = table[first].combine_chunks()
    values = (pc.struct_field(values, others) if others else values).cast(pa.large_string())
    if values.null_count:
        row = first_row + pc.index(values.is_null(), True).as_py()
        raise UserError(f"{where}: row {row}: column {column} is null; remove such rows, or fill them")
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        rows = f"rows {first_row} to {first_row + len(values) - 1}"
        raise UserError(f"{where}: column {column} is not UTF-8 in one of {rows}; write it again") from None
    too_long = pc.greater(pc.binary_length(values), MAX_LINE_BYTES)
    if pc.any(too_long).as_py():
        log(f"warning: {where}: values over {MAX_LINE_BYTES:,} bytes are read as empty: {too_long.true_count}")
    return pc.if_else(too_long, "", values).cast(pa.string())
