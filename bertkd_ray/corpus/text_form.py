"""In which form and which languages the text of a corpus is."""

from dataclasses import dataclass
from typing import Self

from bertkd_ray.artifacts.artifact import Artifact
from bertkd_ray.config.languages import language_code


@dataclass(frozen=True)
class TextForm:
    """How a corpus is written: `corpus.text`, and the languages (ISO 639-1, or 639-3 where a language has no such code;
    other codes become these). The defaults are those of earlier manifests and stay; the configuration has its own.

    text: `raw`, `moses` or `paper`.
    """

    text: str = "raw"
    src_lang: str = "de"
    tgt_lang: str = "en"

    @classmethod
    def of(cls, corpus: Artifact) -> Self:
        """The form of a corpus artifact's text."""
        return cls(**{key: str(value) for key, value in corpus.info.items() if key in cls.__dataclass_fields__})

    def __post_init__(self) -> None:
        for key in ("src_lang", "tgt_lang"):
            object.__setattr__(self, key, language_code(getattr(self, key)))
