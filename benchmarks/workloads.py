"""What the clients ask for in a benchmark, the same for each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from loadtests.messages import OUTPUTS, SERVED_BY
from loadtests.payloads import load_payload
from scenarios.scenario import Kind


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of question. ``image_id`` names an image of the catalogue; None is 64 bytes that are no image."""

    name: str
    kind: Kind
    image_id: str | None

    def image(self) -> bytes:
        return bytes(64) if self.image_id is None else load_payload(self.image_id).data

    @property
    def outputs(self) -> tuple[str, ...]:
        return (*OUTPUTS[self.kind], SERVED_BY)


SMALL: Final = Workload("small", Kind.CLASSIFIER, None)
"""64 bytes in, 28 out."""
STUDY: Final = Workload("study", Kind.ENSEMBLE, "chest-jpeg-100kb")
"""A chest image of about 100 KB in, all tensors of a study (9 KB) out."""
NULL: Final = Workload("null", Kind.ENCODER, None)
"""For the null server, which answers with the encoder's tensors (9 KB) whatever it is asked."""

WORKLOADS: Final = {workload.name: workload for workload in (SMALL, STUDY, NULL)}
