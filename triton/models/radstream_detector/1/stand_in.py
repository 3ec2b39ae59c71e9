"""CPU stand-in for the detector; the CPU profile names this file, production brings its own weights."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[3]))  # stubs ignore PYTHONPATH

from radstream.stand_in_model import StandIn  # noqa: E402
from radstream.stand_ins import detect  # noqa: E402
from radstream.triton_requests import Outputs, tensor  # noqa: E402


class TritonPythonModel:
    """What Triton's Python backend looks for."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Join the emulated device."""
        self._stand_in = StandIn(args, _answer)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer one batch of requests."""
        return self._stand_in.execute(requests)


def _answer(request: Any) -> list[Outputs]:
    return [detect(image)._asdict() for image in tensor(request, "image")]
