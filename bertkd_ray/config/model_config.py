"""The `config.json` of a model that others have made: which values a model can be built from."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo

from bertkd_ray.core.errors import UserError, brief_repr

ACTIVATIONS = (
    *("gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python", "gelu_pytorch_tanh", "hardswish"),
    *("laplace", "leaky_relu", "linear", "mish", "quick_gelu", "relu", "relu2", "relu6", "sigmoid", "silu", "swish"),
    "tanh",
)


def _whole_number(value: object) -> object:
    if type(value) is not int or value < 1:
        raise ValueError("it must be a whole number above 0")
    return value


def _of_transformers(activation: str) -> str:
    if activation not in ACTIVATIONS:
        raise ValueError("it must be an activation of transformers, such as gelu or relu")
    return activation


def _below_vocab_size(token: int, info: ValidationInfo) -> int:
    if token >= info.data.get("vocab_size", token + 1):
        raise ValueError(f"it must be below its vocab_size {info.data['vocab_size']}")
    return token


def dividing(width: str) -> AfterValidator:
    """Validator of a number of heads: it divides the width under an earlier key."""

    def check(heads: int, info: ValidationInfo) -> int:
        if info.data.get(width, heads) % heads:
            raise ValueError(f"they must divide its {width} {info.data[width]}")
        return heads

    return AfterValidator(check)


Count = Annotated[int, Field(le=10**8), BeforeValidator(_whole_number)]
Share = Annotated[float, Field(ge=0, le=1)]
TokenId = Annotated[int, Field(ge=0), AfterValidator(_below_vocab_size)]
Activation = Annotated[str, AfterValidator(_of_transformers)]


class ModelConfig(BaseModel):
    """The keys that matter; there may be others."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, validate_default=True)

    @classmethod
    def checked(cls, tree: Mapping[str, Any], origin: str, fix: str, name: Callable[[str], str] = str) -> Self:
        """The values of `tree`. name: what the file calls a key. Raises UserError for the first wrong one."""
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            wrong = error.errors()[0]
        key, value = name(str(wrong["loc"][0])), wrong["input"]
        if wrong["type"] == "missing" or value is None:
            raise UserError(f"{origin} lacks {key}; {fix}")
        must = wrong["msg"].removeprefix("Value error, ").replace("Input should be", "it must be")
        raise UserError(f"{origin} has {key} {brief_repr(value)}; {must}")
