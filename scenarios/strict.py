"""Strict models: an unknown key is refused with the nearest known one, and every problem reads as one line."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

if TYPE_CHECKING:
    from collections.abc import Iterable


Location = tuple[int | str, ...]

A_LIST: Final = Field(strict=False)
"""Lets a YAML list become a tuple, which strict validation would refuse; its items stay strict."""


class ScenarioError(Exception):
    """A scenario cannot be used as it stands; the message says where, what is wrong and what is allowed."""


class Strict(BaseModel):
    """A frozen value that takes exactly the keys it names, in exactly their types."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, serialize_by_alias=True
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, given: Any) -> Any:  # noqa: ANN401  anything may come out of a YAML file
        """Runs first, so that a misspelt key is not reported as a missing one as well."""
        if isinstance(given, dict):
            allowed = [field.alias or name for name, field in cls.model_fields.items()]
            unknown = [unknown_name("key", str(key), allowed) for key in given if key not in allowed]
            if unknown:
                raise ValueError("; ".join(unknown))
        return given


def unknown_name(what: str, name: str, allowed: Iterable[str]) -> str:
    """Say that `name` is not one of the `allowed`, and which of them was probably meant."""
    allowed = tuple(allowed)
    nearest = difflib.get_close_matches(name, allowed, n=1)
    hint = f"did you mean '{nearest[0]}'? " if nearest else ""
    return f"unknown {what} '{name}': {hint}allowed are {', '.join(allowed)}"


def problems(error: ValidationError) -> list[str]:
    """One line for each problem: `phases[1].duration_s: should be greater than 0, but is -3`."""
    details = error.errors()
    return [
        _problem(detail["loc"], detail["type"], detail["msg"], detail["input"])
        for detail in details
        if not _only_follows(detail["loc"], detail["type"], [other["loc"] for other in details])
    ]


def _only_follows(location: Location, kind: str, all_locations: list[Location]) -> bool:
    """Whether pydantic reports this only because of another problem: a list is short of its refused items."""
    inside = any(len(other) > len(location) and other[: len(location)] == location for other in all_locations)
    return kind == "default_factory_not_called" or (kind == "too_short" and inside)


def _problem(location: Location, kind: str, message: str, given: object) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")
    match kind:
        case "missing":
            text = "is missing"
        case "value_error":  # our own words
            text = message.removeprefix("Value error, ")
        case "model_type" | "dict_type":
            text = f"should be a group of named values, but is {_shown(given)}"
        case "tuple_type":
            text = f"should be a list, but is {_shown(given)}"
        case _:
            text = f"{message.removeprefix('Input ')}, but is {_shown(given)}"
    return f"{path}: {text}" if path else text


def _shown(given: object, longest: int = 60) -> str:
    text = "empty" if given is None else repr(given)
    return text if len(text) <= longest else f"{text[:longest]}..."
