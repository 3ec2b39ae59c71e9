"""A stand-in network as a Triton model, in the emulated device's time. Importable only in Triton's Python backend."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from radstream import RadstreamError
from radstream.device import Device, sleep_until
from radstream.lifetime import exit_without_parent
from radstream.service_time import parse_service_time
from radstream.triton_requests import Outputs, Request, Response, batch_size, respond

DEVICE_FILE = "RADSTREAM_DEVICE_FILE"


class StandIn:
    """Serves one network's stand-in in the emulated device's time."""

    def __init__(self, arguments: Mapping[str, str], answer: Callable[[Request], list[Outputs]]) -> None:
        """Join the server's device; `answer` turns one request into the outputs of each of its items.

        Raises:
            RadstreamError: the server has no device file, or the model no device time.
        """
        exit_without_parent()
        config = json.loads(arguments["model_config"])
        self._model = config["name"].removeprefix("radstream_")
        self._answer = answer
        path = os.environ.get(DEVICE_FILE)
        if path is None:
            message = f"{config['name']}: {DEVICE_FILE} is not set; start the server with serve.py"
            raise RadstreamError(message)
        self._device = Device(Path(path))
        parameter = config.get("parameters", {}).get("emulated_device_ms")
        if parameter is None:
            message = f"{config['name']}: no parameter emulated_device_ms in its configuration; give it a+b"
            raise RadstreamError(message)
        self._device.set_default_time(self._model, parse_service_time(parameter["string_value"]))

    def execute(self, requests: Sequence[Request]) -> list[Response]:
        """Answer a batch when the device has finished it.

        The stand-in's own computing happens inside the device's time, so it does not lower the capacity.
        """
        items = sum(batch_size(request) for request in requests)
        end_ns = self._device.submit(self._model, items)
        responses = [respond(partial(self._answer, request)) for request in requests]
        sleep_until(end_ns)
        return responses
