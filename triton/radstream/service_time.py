"""How long the emulated accelerator takes for a batch: `a + b*n` milliseconds, per model. Pure."""

import re
from dataclasses import dataclass

from radstream import RadstreamError

MODELS = ("classifier", "detector", "encoder")
"""The models that share the one device of a server, by the part of their name after `radstream_`."""

_TERM = re.compile(r"(\d+(?:\.\d+)?)\+(\d+(?:\.\d+)?)")
_LONGEST_MS = 60_000.0


@dataclass(frozen=True, slots=True)
class ServiceTime:
    """Service time of one batch: a fixed part plus a part for each item in it."""

    fixed_ms: float
    per_item_ms: float

    def batch_ns(self, items: int) -> int:
        """Nanoseconds that the device needs for a batch of `items`."""
        return round((self.fixed_ms + self.per_item_ms * items) * 1e6)

    def __str__(self) -> str:
        """Return the form that `parse_service_time` reads."""
        return f"{self.fixed_ms:g}+{self.per_item_ms:g}"


def parse_service_time(text: str) -> ServiceTime:
    """Read `a+b`, both in milliseconds: `20+5` is 20 ms a batch plus 5 ms an item.

    Raises:
        RadstreamError: the text is not two non-negative numbers joined by `+`, or they exceed a minute.
    """
    match = _TERM.fullmatch(text.strip())
    if match is None:
        message = f"device time {text!r} is not a+b in milliseconds; write for example 20+5 (20 a batch, 5 an item)"
        raise RadstreamError(message)
    fixed_ms, per_item_ms = (float(number) for number in match.groups())
    if max(fixed_ms, per_item_ms) > _LONGEST_MS:
        message = f"device time {text!r} is longer than {_LONGEST_MS:g} ms; the unit is milliseconds"
        raise RadstreamError(message)
    return ServiceTime(fixed_ms, per_item_ms)


def parse_device_times(text: str) -> dict[str, ServiceTime]:
    """Read `classifier=20+5,detector=60+10,encoder=30+5`; models that are left out keep their configured time.

    Raises:
        RadstreamError: an unknown or repeated model, or a time that `parse_service_time` refuses.
    """
    times: dict[str, ServiceTime] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        model, equals, term = part.partition("=")
        model = model.strip()
        if not equals or model not in MODELS:
            message = f"device times {text!r}: {part!r} is not MODEL=a+b with MODEL one of {', '.join(MODELS)}"
            raise RadstreamError(message)
        if model in times:
            message = f"device times {text!r}: {model} is given twice; keep one"
            raise RadstreamError(message)
        times[model] = parse_service_time(term)
    return times
