"""Preprocessing as a Triton model. Importable only in Triton's Python backend."""

import os
import socket
from collections.abc import Sequence
from functools import partial

import numpy as np

from radstream.admission import Admission
from radstream.lifetime import exit_without_parent
from radstream.preprocessing import ModelInputs, preprocess
from radstream.triton_requests import Outputs, Request, Response, respond, tensor

METRICS_URL = "RADSTREAM_METRICS_URL"
# Two batches: enough to keep a model busy, and few enough that what waits, waits where it can be refused.
MOST_PENDING = 16


class PreprocessModel:
    """Serves `preprocess`; a bad image fails its own request only."""

    def __init__(self) -> None:
        """Find out the name of this pod, which every answer carries as `served_by`."""
        exit_without_parent()
        name = os.environ.get("POD_NAME") or socket.gethostname()
        self._served_by = np.array([name.encode()], dtype=np.object_)
        metrics_url = os.environ.get(METRICS_URL)
        self._admission = None if metrics_url is None else Admission(metrics_url, MOST_PENDING)

    def execute(self, requests: Sequence[Request]) -> list[Response]:
        """Decode the images of each request, once the models behind have room for them."""
        if self._admission is not None:
            self._admission.wait()
        return [respond(partial(self._answer, request)) for request in requests]

    def _answer(self, request: Request) -> list[Outputs]:
        return [self._outputs(preprocess(data)) for data in tensor(request, "image").ravel()]

    def _outputs(self, inputs: ModelInputs) -> Outputs:
        return {"image_224": inputs.image_224, "image_512": inputs.image_512, "served_by": self._served_by}
