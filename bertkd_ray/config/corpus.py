"""The configuration of prepare: where the text comes from, what is dropped of it, how it becomes token ids."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from bertkd_ray.config.languages import DOTTED_I, covers, is_language_code, is_tag, language_code, language_range
from bertkd_ray.config.section import ONE_OR_MANY, Location, Section

SPLITS = ("train", "valid", "test")
Files = TypeVar("Files", "SplitFiles", "MonolingualFiles")
_FILE_KEYS = ("tsv", "jsonl", "parquet", "tmx", "moses_zip", "xliff", "po")
_ONE_KEY_FORMS = (*_FILE_KEYS, "dataset", "held_out")
TAGGED = ("tmx", "moses_zip", "xliff", "po")
"""Forms whose columns are the languages' tags."""


class SplitFiles(Section):
    """One source of sentence pairs, in one of the forms, or a share of the training pairs."""

    src: Location | None = None
    """Source text, one sentence a line, UTF-8, perhaps packed (gzip, zstd, xz, bzip2); a path or a storage URI."""
    tgt: Location | None = None
    """Target text, line-aligned with `src`."""
    tsv: Location | None = None
    """Instead of `src` and `tgt`: one tab-separated file without a header, perhaps packed."""
    jsonl: Location | None = None
    """Instead: one file with a JSON object a line, perhaps packed."""
    parquet: Location | None = None
    """Instead: a Parquet file, a directory of them, or a pattern (`part-*.parquet`)."""
    tmx: Location | None = None
    """Instead: a translation memory (TMX), perhaps packed."""
    moses_zip: Location | None = None
    """Instead: a Moses archive of OPUS, a ZIP with a file a language."""
    xliff: Location | None = None
    """Instead: an XLIFF file, 1.x or 2.x, perhaps packed."""
    approved: bool = False
    """Of an XLIFF file only the targets that are approved (1.x) or final (2.x)."""
    po: Location | None = None
    """Instead: a gettext catalogue (PO), perhaps packed; its messages are in the source language."""
    variants: Literal["all", "first"] | None = None
    """Of a unit of a TMX with several texts of a language: all of them, the default, or the first."""
    dataset: Location | None = None
    """Instead: a Hugging Face `datasets` name or a local dataset directory (extra `bertkd-ray[datasets]`)."""
    subset: str | None = None
    """Configuration of the dataset, for example `de-en`."""
    split: str | None = None
    """Split of the dataset; null is `train`, `validation` or `test`, after the key it stands under."""
    revision: str | None = None
    """Branch, tag or commit of the dataset on the hub; null is its main branch."""
    held_out: float | None = Field(None, gt=0, lt=1)
    """Instead, in valid and test: this share of the training pairs, chosen by a hash of the source sentence."""
    src_column: int | str | None = None
    """Column of the source text. TSV: counted from 0 (null: 0). JSONL and Parquet: its name, dots lead into objects
    (null: `src`). Datasets: likewise (null: `translation.` and the source language). TMX, Moses
    archives, XLIFF and PO: the language's BCP 47 tag or the beginning of it, `en-GB` or `zh-Hant` (null: the source
    language)."""
    tgt_column: int | str | None = None
    """Column of the target text, likewise (null: 1, `tgt`, `translation.` and the target language, or its tag)."""
    weight: float = Field(1.0, gt=0, le=100)
    """In train: how often each pair is taken; 2.5 is twice, and half of the pairs, chosen by a hash, a third time."""

    @property
    def form(self) -> str:
        """What the source is: a value of `corpus.source`, or `held_out`."""
        key = next((key for key in _ONE_KEY_FORMS if getattr(self, key) is not None), "text")
        return "datasets" if key == "dataset" else key

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        pair = (self.src is not None) + (self.tgt is not None)
        alone = [key for key in _ONE_KEY_FORMS if getattr(self, key) is not None]
        if len(alone) > 1 or pair != (0 if alone else 2):
            raise ValueError(f"give both src and tgt, or one of {_listing(_ONE_KEY_FORMS)} alone")
        _check_keys(self, ("src_column", "tgt_column"))
        if len(both := {*self.columns("src", "tgt")}) == 1:
            raise ValueError(f"src_column and tgt_column are the same, {both.pop()!r}; name both sides")
        return self

    def paths(self) -> list[tuple[str, str]]:
        """The files that are given, by their key; a dataset is no file."""
        return [(key, path) for key in ("src", "tgt", *_FILE_KEYS) if (path := getattr(self, key)) is not None]

    def columns(self, src_lang: str, tgt_lang: str) -> tuple[int | str, int | str]:
        """The columns of source and target, those that are not given by their defaults."""
        defaults: dict[str, tuple[int | str, int | str]] = {
            "tsv": (0, 1),
            "datasets": (f"translation.{src_lang}", f"translation.{tgt_lang}"),
            **dict.fromkeys(TAGGED, (src_lang, tgt_lang)),
        }
        src, tgt = defaults.get(self.form, ("src", "tgt"))
        return src if self.src_column is None else self.src_column, tgt if self.tgt_column is None else self.tgt_column


class MonolingualFiles(Section):
    """One source of text in the source language, without translations, in one of the forms."""

    src: Location | None = None
    """Text, one sentence a line, as that of a split."""
    tsv: Location | None = None
    """Instead: one tab-separated file without a header, perhaps packed."""
    jsonl: Location | None = None
    """Instead: one file with a JSON object a line, perhaps packed."""
    parquet: Location | None = None
    """Instead: a Parquet file, a directory of them, or a pattern."""
    tmx: Location | None = None
    """Instead: a translation memory (TMX), perhaps packed; every text in the source language is taken."""
    moses_zip: Location | None = None
    """Instead: a Moses archive of OPUS, of which the file in the source language is read."""
    xliff: Location | None = None
    """Instead: an XLIFF file, perhaps packed, of which the texts in the source language are read."""
    po: Location | None = None
    """Instead: a gettext catalogue (PO), perhaps packed, of which the messages are read."""
    variants: Literal["all", "first"] | None = None
    """Of a unit of a TMX with several texts of the language: all of them, the default, or the first."""
    dataset: Location | None = None
    """Instead: a Hugging Face `datasets` name or a local dataset directory."""
    subset: str | None = None
    """Configuration of the dataset."""
    split: str | None = None
    """Split of the dataset; null is `train`."""
    revision: str | None = None
    """Branch, tag or commit of the dataset on the hub; null is its main branch."""
    src_column: int | str | None = None
    """Column of the text, as that of the source text of a split."""

    @property
    def form(self) -> str:
        """What the source is: a value of `corpus.source`."""
        key = next((key for key in _ONE_KEY_FORMS[:-1] if getattr(self, key) is not None), "text")
        return "datasets" if key == "dataset" else key

    @property
    def tgt(self) -> str | None:
        """The text itself: it is read as pairs of a sentence with itself."""
        return self.src

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if sum(getattr(self, key) is not None for key in ("src", *_ONE_KEY_FORMS[:-1])) != 1:
            raise ValueError(f"give one of {_listing(('src', *_ONE_KEY_FORMS[:-1]))}")
        _check_keys(self, ("src_column",))
        return self

    def paths(self) -> list[tuple[str, str]]:
        """The files that are given, by their key; a dataset is no file."""
        return [(key, path) for key in ("src", *_FILE_KEYS) if (path := getattr(self, key)) is not None]

    def columns(self, src_lang: str, tgt_lang: str) -> tuple[int | str, int | str]:
        """The column of the text twice, by its default where none is given."""
        defaults: dict[str, int | str] = {"tsv": 0, "datasets": f"translation.{src_lang}"}
        defaults.update(dict.fromkeys(TAGGED, src_lang))
        column = defaults.get(self.form, "src") if self.src_column is None else self.src_column
        return column, column


def _check_keys(files: SplitFiles | MonolingualFiles, columns: tuple[str, ...]) -> None:
    """Raises ValueError for keys that do not belong to the form of a source; columns: the keys of those."""
    for key in ("subset", "split", "revision"):
        if getattr(files, key) is not None and files.dataset is None:
            raise ValueError(f"{key} belongs to dataset; remove it, or name a dataset")
    if files.variants is not None and files.tmx is None:
        raise ValueError("variants belongs to tmx; remove it, or name a TMX file")
    if isinstance(files, SplitFiles) and files.approved and files.xliff is None:
        raise ValueError("approved belongs to xliff; remove it, or name an XLIFF file")
    for key in columns:
        if (column := getattr(files, key)) is None:
            continue
        if files.form in ("text", "held_out"):
            raise ValueError(f"{key} has no meaning for {files.form}; remove it")
        if files.form == "tsv" and not (isinstance(column, int) and column >= 0):
            raise ValueError(f"{key}: the columns of a TSV are counted from 0, got {column!r}")
        if files.form != "tsv" and not isinstance(column, str):
            raise ValueError(f"{key}: the columns of {files.form} have names, got {column!r}")
        if files.form in TAGGED and not is_tag(str(column), any_name=files.moses_zip is not None):
            raise ValueError(f"{key}: the columns of {files.form} are tags of languages, as en-GB, got {column!r}")


def _listing(keys: Sequence[str]) -> str:
    return f"{', '.join(keys[:-1])} and {keys[-1]}"


class CleanConfig(Section):
    """Which pairs of train and valid are dropped besides empty and too long ones. Words are what stands between spaces.

    Pairs of a test set that has files of its own are never dropped.
    """

    duplicates: bool = False
    """Drop every pair that stood before in the same split, both sides equal."""
    test_overlap: bool = False
    """Drop pairs whose source sentence stands in test, whatever its case."""
    identical_sides: bool = False
    """Drop pairs whose two sides are equal."""
    min_words: int | None = Field(None, ge=1, le=10**9)
    """Drop pairs with a side of fewer words."""
    max_words: int | None = Field(None, ge=1, le=10**9)
    """Drop pairs with a side of more words."""
    max_ratio: float | None = Field(None, ge=1, le=10**9)
    """Drop pairs whose longer side has more than so many words for each word of the other."""

    @model_validator(mode="after")
    def _words_leave_room(self) -> Self:
        if self.min_words and self.max_words and self.min_words > self.max_words:
            raise ValueError(f"min_words {self.min_words} is more than max_words {self.max_words}; lower it")
        return self


def _listed(sources: Files | list[Files] | None) -> list[Files]:
    return sources if isinstance(sources, list) else [] if sources is None else [sources]


def _language(code: str) -> str:
    if not is_language_code(code):
        raise ValueError("no language code of ISO 639, such as de or deu, in lower case")
    return code


class CorpusConfig(Section):
    """The prepare stage: which text, and how it becomes token ids."""

    added_later = frozenset({"max_vocabulary", "monolingual"})

    text: Literal["raw", "moses", "paper"] = "raw"
    """`moses`: the text is Moses-tokenised; its escapes are undone, and it is detokenised for scoring. `paper`, with
    `archive`: tokenised and lower-cased, as the paper had it."""
    src_lang: Annotated[str, AfterValidator(_language)] = "de"
    """Language of the source, a code of ISO 639; it chooses direction and scoring, and says what is what in the tables.
    `deu` and `ger` are `de`."""
    tgt_lang: Annotated[str, AfterValidator(_language)] = "en"
    """Language of the target, a code of ISO 639."""
    directory: Location | None = None
    """Directory or URI that the files of the splits are relative to; null is the working directory. A `dataset` is
    never looked for in it."""
    train: (
        Annotated[
            Annotated[SplitFiles, Tag(ONE_OR_MANY[0])] | Annotated[list[SplitFiles], Tag(ONE_OR_MANY[1])],
            Discriminator(lambda value: ONE_OR_MANY[isinstance(value, list | tuple)]),
        ]
        | None
    ) = None
    """Training pairs: one source or a list of them, each with its weight (not with `demo` and `iwslt14`)."""
    valid: SplitFiles | None = None
    """Pairs for early stopping and the choice of the checkpoint."""
    test: SplitFiles | None = None
    """Pairs that are only ever scored."""
    monolingual: (
        Annotated[
            Annotated[MonolingualFiles, Tag(ONE_OR_MANY[0])] | Annotated[list[MonolingualFiles], Tag(ONE_OR_MANY[1])],
            Discriminator(lambda value: ONE_OR_MANY[isinstance(value, list | tuple)]),
        ]
        | None
    ) = None
    """Text in the source language without translations, one source or a list of them, in any of the forms: the teacher
    translates it, and the arms that learn from the teacher train on these pairs too (`kd.monolingual_weight`)."""
    archive: Location | None = None
    """Instead of the splits: IWSLT14's `de-en.tgz` or its unpacked directory, a path or an `https://` address."""
    archive_sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    """SHA-256 that the archive, no directory then, must have; null takes what comes."""
    source: Literal[
        "demo", "text", "tsv", "jsonl", "parquet", "datasets", "tmx", "moses_zip", "xliff", "po", "mixed", "iwslt14"
    ] = Field(None, validate_default=True)
    """`text`: line-aligned files; `tsv`, `jsonl`, `parquet`, `datasets`, `tmx`, `moses_zip`, `xliff`, `po`: that
    form; `mixed`: each source in a form of its own; `iwslt14`: the TED talks archive; `demo`: the embedded
    German-English pairs. Null is inferred from the keys above; only `demo` must be given."""
    cache: Location | None = None
    """Directory for downloads; null is `~/.cache/bertkd_ray`."""
    clean: CleanConfig = CleanConfig()
    """Pairs that are dropped."""
    lowercase: bool = False
    """Lower-case both sides first, as the paper did."""
    max_vocabulary: int | None = Field(None, ge=8, le=10**7)
    """Tokens of the student's vocabulary at most: the rarest are cut into shorter ones that BERT has. Null keeps all.
    See docs/corpora.md."""
    max_side_tokens: int = Field(150, ge=1, le=10**5)
    """Tokens: pairs with a longer side are dropped."""
    max_pair_tokens: int = Field(509, ge=2, le=2 * 10**5)
    """Tokens of both sides together; 509 and three special tokens fill BERT's 512 positions."""
    fragment_pairs: int = Field(2048, ge=1, le=10**7)
    """Pairs a Parquet file: the unit of work and of resumption in prepare and extract."""
    group_pairs: int = Field(1024, ge=1, le=10**7)
    """Pairs a Parquet row group: the unit that the batch plan shuffles."""

    @field_validator("source", mode="before")
    @classmethod
    def _inferred(cls, source: Any, info: ValidationInfo) -> Any:
        if source is not None:
            return source
        if info.data.get("archive") is not None:
            return "iwslt14"
        forms = {files.form for split in SPLITS for files in _listed(info.data.get(split))} - {"held_out"}
        return "mixed" if len(forms) > 1 else next(iter(forms), "text")

    @model_validator(mode="after")
    def _keys_fit_source(self) -> Self:
        if (self.source == "iwslt14") != (self.archive is not None):
            raise ValueError("archive and source: iwslt14 belong together; give archive, and no other source")
        if self.archive_sha256 is not None and self.archive is None:
            raise ValueError("archive_sha256 has no meaning without archive; remove it")
        if self.text != "raw" and self.source == "demo":
            raise ValueError("source: demo is raw text; remove text")
        if self.source == "demo" and self.languages() != {"src_lang": "de", "tgt_lang": "en"}:
            raise ValueError("source: demo is German to English; remove src_lang and tgt_lang")
        if self.text == {"iwslt14": "moses"}.get(self.source, "paper"):
            raise ValueError(
                "an archive has text: paper or raw" if self.archive else "text: paper needs an archive of IWSLT14"
            )
        return self

    @model_validator(mode="after")
    def _splits_fit_source(self) -> Self:
        if self.monolingual == []:
            raise ValueError("corpus.monolingual is an empty list; name a source, or remove it")
        given = {split: getattr(self, split) for split in SPLITS}
        if self.source in ("demo", "iwslt14"):
            if any(value is not None for value in given.values()):
                own = "source" if self.archive is None else "archive"
                raise ValueError(f"source: {self.source} brings its own text; remove train, valid and test, or {own}")
            return self
        for split, value in given.items():
            if value is None or value == []:
                raise ValueError(f"source: {self.source} needs corpus.{split}")
            for files in _listed(value):
                self._check_files(split, files)
        if sum(self.held_out().values()) >= 1:
            raise ValueError("valid.held_out and test.held_out leave nothing to train on; lower them")
        return self

    def _check_files(self, split: str, files: SplitFiles) -> None:
        if files.form == "held_out":
            if split == "train":
                raise ValueError("corpus.train cannot be held_out; valid and test are held out of it")
        elif self.source not in ("mixed", files.form):
            raise ValueError(f"corpus.{split} is {files.form}, which does not fit source: {self.source}; remove source")
        if files.form in TAGGED:
            src, tgt = map(str, files.columns(self.src_lang, self.tgt_lang))
            if covers(src, tgt) or covers(tgt, src):
                raise ValueError(
                    f"corpus.{split}: {src} and {tgt} are one language; name tags in src_column, tgt_column"
                )
        if split != "train" and files.weight != 1.0:
            raise ValueError(f"corpus.{split} has a weight; only sources of train have one")

    def languages(self) -> dict[str, str]:
        """`src_lang` and `tgt_lang` by their shortest codes, as artifacts have them."""
        return {"src_lang": language_code(self.src_lang), "tgt_lang": language_code(self.tgt_lang)}

    def dotted_i(self, side: str) -> bool:
        """Whether a side (`src`, `tgt`) is lower-cased as Turkish is: I to ı, İ to i."""
        return self.lowercase and self.languages()[f"{side}_lang"] in DOTTED_I

    def sources(self, split: str) -> list[SplitFiles]:
        """The sources of a split with their whole paths; none for a corpus of its own and for a held-out split."""
        return [self._whole(files) for files in _listed(getattr(self, split)) if files.form != "held_out"]

    def monolingual_sources(self) -> list[MonolingualFiles]:
        """The sources of monolingual text with their whole paths."""
        return [self._whole(files) for files in _listed(self.monolingual)]

    def _whole(self, files: Files) -> Files:
        return files.model_copy(update={key: self.whole(path) for key, path in files.paths()})

    def columns_of(self, files: SplitFiles | MonolingualFiles) -> list[int | str]:
        """The columns of both sides of a source; tags of languages in one spelling."""
        columns = files.columns(self.src_lang, self.tgt_lang)
        return [*columns] if files.form not in TAGGED else ["-".join(language_range(str(tag))) for tag in columns]

    def train_as_read(self) -> list[dict[str, Any]]:
        """The sources of train in one spelling: a list, all defaults as what they stand for."""
        read = []
        for files in self.sources("train"):
            variants = files.variants or ("all" if files.tmx else None)
            columns = dict(zip(("src_column", "tgt_column"), self.columns_of(files), strict=True))
            read.append({**files.model_dump(), **columns, "variants": variants})
        return read

    def held_out(self) -> dict[str, float]:
        """The splits that are held out of train, with their shares."""
        given = {"valid": self.valid, "test": self.test}
        return {split: files.held_out for split, files in given.items() if files is not None and files.held_out}

    def is_given_test(self, split: str) -> bool:
        """Whether no rule may drop a pair of the split: a score is over every line of a test set with its own files."""
        return split == "test" and "test" not in self.held_out()

    def whole(self, path: str) -> str:
        """A path of the configuration, with the directory in front unless it is absolute or a URI.

        The query of a directory's URI stays at the end.
        """
        if path.startswith("/") or "://" in path or self.directory is None:
            return path
        above, mark, query = self.directory.partition("?") if "://" in self.directory else (self.directory, "", "")
        return f"{above.rstrip('/')}/{path}{mark}{query}"
