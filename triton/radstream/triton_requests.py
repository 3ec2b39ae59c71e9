"""Triton's requests and responses as plain arrays.

Importable only in Triton's Python backend: `triton_python_backend_utils` exists in a stub process and nowhere else.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]

from radstream import BadInputError

Request = Any
"""A `pb_utils.InferenceRequest`; the module has no types."""

Response = Any
"""A `pb_utils.InferenceResponse`."""

Outputs = Mapping[str, npt.NDArray[Any]]
"""The outputs of one item, without batch dimension."""


def tensor(request: Request, name: str) -> npt.NDArray[Any]:
    """Return an input that the configuration requires, with its batch dimension."""
    array: npt.NDArray[Any] = pb_utils.get_input_tensor_by_name(request, name).as_numpy()
    return array


def optional_texts(request: Request, items: int) -> list[bytes | None]:
    """Return the optional `text` of each item; None where the request has none."""
    found = pb_utils.get_input_tensor_by_name(request, "text")
    return [None] * items if found is None else list(found.as_numpy().ravel())


def batch_size(request: Request) -> int:
    """Return how many items a request holds."""
    return int(pb_utils.get_input_tensor_by_name(request, "image").shape()[0])


def respond(answer: Callable[[], list[Outputs]]) -> Response:
    """Turn the outputs of each item into one response; bad input fails this request only, and not its neighbours."""
    try:
        items = answer()
        arrays = {name: _stacked(name, [item[name] for item in items]) for name in items[0]}
    except BadInputError as error:
        return pb_utils.InferenceResponse([], pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG))
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in arrays.items()])


def _stacked(name: str, arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    if len({array.shape for array in arrays}) > 1:
        message = f"the images of this request differ in their number of {name}; send one image a request"
        raise BadInputError(message)
    return np.stack(arrays)
