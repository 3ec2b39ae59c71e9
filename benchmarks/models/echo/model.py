"""A model that answers at once with the same tensors: what is left is the cost of asking."""

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]

_ANSWERS = {
    "predictions": np.full((1, 5), 0.2, np.float32),
    "confidence": np.full((1, 1), 0.2, np.float32),
    "boxes": np.zeros((1, 4, 4), np.float32),
    "scores": np.zeros((1, 4), np.float32),
    "labels": np.zeros((1, 4), np.int32),
    "image_features": np.zeros((1, 768), np.float32),
    "text_features": np.zeros((1, 768), np.float32),
    "joint_features": np.zeros((1, 768), np.float32),
    "served_by": np.array([[b"echo"]], dtype=object),
}


class TritonPythonModel:
    """What Triton's Python backend calls."""

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._answer(request.requested_output_names()) for request in requests]

    def _answer(self, names: list[str]) -> Any:  # noqa: ANN401 - Triton's
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, _ANSWERS[name]) for name in names])
