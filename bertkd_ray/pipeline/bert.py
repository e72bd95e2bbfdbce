"""The BERT of a configuration, resolved and hashed when it is first needed."""

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class PretrainedBert:
    """A BERT by its source, see `execution.stage.Bert`."""

    source: str
    """A directory, package or hub id, as `teacher.model`."""
    needs_weights: bool

    @cached_property
    def directory(self) -> str:
        """The local directory. Raises UserError for a model that no teacher can be made of."""
        from bertkd_ray.teacher.source import check_bert, resolve_model

        directory = resolve_model(self.source)
        check_bert(directory, weights=self.needs_weights)
        return directory

    @cached_property
    def tokenizer_hash(self) -> str:
        """sha256 of its tokenizer's files, as hex."""
        from bertkd_ray.teacher.source import tokenizer_hash

        return tokenizer_hash(self.directory)

    @cached_property
    def model_hash(self) -> str:
        """sha256 of all its files, as hex."""
        from bertkd_ray.teacher.source import model_hash

        return model_hash(self.directory)
