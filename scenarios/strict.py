"""Strict models: an unknown key is refused with the nearest known one, and every problem reads as one line."""

from __future__ import annotations

import difflib
from collections import Counter
from typing import TYPE_CHECKING, Annotated, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic_core import ErrorDetails


Location = tuple[int | str, ...]

A_LIST: Final = Field(strict=False)
"""Lets a YAML list become a tuple, which strict validation would refuse; its items stay strict."""

Text = Annotated[str, Field(min_length=1)]


class ScenarioError(Exception):
    """A scenario cannot be used as it stands; the message says where, what is wrong and what is allowed."""


class Strict(BaseModel):
    """A frozen value that takes exactly the keys it names, in exactly their types."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, serialize_by_alias=True
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, given: object) -> object:
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


def refuse_repeats(what: str, names: list[str]) -> None:
    """Raise `ValueError`, which pydantic turns into a problem, if a name occurs twice."""
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ValueError(f"{what} named more than once: {', '.join(repeated)}")


def problems(error: ValidationError) -> list[str]:
    """One line for each problem: `phases[1].duration_s: should be greater than 0, but is -3`."""
    details = error.errors()
    locations = [detail["loc"] for detail in details]
    return [_line(detail) for detail in details if not _only_follows(detail, locations)]


def _only_follows(detail: ErrorDetails, locations: list[Location]) -> bool:
    """Whether pydantic reports this only because of another problem: a list is short of its refused items."""
    place = detail["loc"]
    inside = any(len(other) > len(place) and other[: len(place)] == place for other in locations)
    return detail["type"] == "default_factory_not_called" or (detail["type"] == "too_short" and inside)


def _line(detail: ErrorDetails) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"])
    path = "".join(parts).removeprefix(".")
    return f"{path}: {_what_is_wrong(detail)}" if path else _what_is_wrong(detail)


def _what_is_wrong(detail: ErrorDetails) -> str:
    match detail["type"]:
        case "missing":
            return "is missing"
        case "value_error":  # our own words
            return detail["msg"].removeprefix("Value error, ")
        case "model_type":
            wanted = "be a group of named values"
        case "tuple_type":
            wanted = "be a list"
        case "too_short":
            wanted = f"have entries, at least {detail['ctx']['min_length']}"
        case "too_long":
            wanted = f"have entries, at most {detail['ctx']['max_length']}"
        case _:
            wanted = detail["msg"].partition(" should ")[2] or detail["msg"]
    return f"should {wanted}, but is {_shown(detail['input'])}"


def _shown(given: object, longest: int = 60) -> str:
    text = "empty" if given is None else repr(given)
    return text if len(text) <= longest else f"{text[:longest]}..."
