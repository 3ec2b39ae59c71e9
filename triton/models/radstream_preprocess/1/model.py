"""Preprocessing, the same in production and on CPU."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[3]))  # stubs ignore PYTHONPATH

from radstream.preprocess_model import PreprocessModel  # noqa: E402


class TritonPythonModel:
    """What Triton's Python backend looks for."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read the pod's name."""
        del args
        self._preprocessing = PreprocessModel()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Decode one batch of requests."""
        return self._preprocessing.execute(requests)
