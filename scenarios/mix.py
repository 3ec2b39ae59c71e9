"""What requests ask for and which images they carry, as shares of all requests."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from scenarios.strict import Strict, Text, refuse_repeats


class Kind(StrEnum):
    """What a request asks of the ensemble: the outputs of one model, or of all."""

    CLASSIFIER = "classifier"
    DETECTOR = "detector"
    ENCODER = "encoder"
    ENSEMBLE = "ensemble"

    @property
    def reads_text(self) -> bool:
        """Whether a text sent along has any effect."""
        return self in {Kind.ENCODER, Kind.ENSEMBLE}


class Mix(Strict):
    """How requests divide among the kinds, as relative weights: `ensemble: 7, detector: 3` is 70 % and 30 %."""

    classifier: NonNegativeFloat = 0.0
    detector: NonNegativeFloat = 0.0
    encoder: NonNegativeFloat = 0.0
    ensemble: NonNegativeFloat = 0.0

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not sum(self._weights):
            raise ValueError(f"all weights are 0; give one of {', '.join(Kind)} a weight above 0")
        return self

    @property
    def _weights(self) -> tuple[float, ...]:
        return (self.classifier, self.detector, self.encoder, self.ensemble)

    @property
    def shares(self) -> dict[Kind, float]:
        """Share of each kind, 0..1, in the order of `Kind`; they sum to 1."""
        return {kind: weight / sum(self._weights) for kind, weight in zip(Kind, self._weights, strict=True)}


class PayloadShare(Strict):
    """Images to send, by their id in the payload catalogue, and their relative weight among all.

    `images: 8` asks for eight different ones of a synthetic family; the weight is for all eight together.
    """

    id: Text
    share: PositiveFloat = 1.0
    images: Annotated[int, Field(ge=1, le=64)] = 1


def one_per_image(payloads: tuple[PayloadShare, ...]) -> tuple[PayloadShare, ...]:
    """Spell families out, so that the index of a payload says which image was sent."""
    single = tuple(
        PayloadShare(id=f"{family.id}#{image}", share=family.share / family.images) if family.images > 1 else family
        for family in payloads
        for image in range(family.images)
    )
    refuse_repeats("image", [payload.id for payload in single])
    return single
