"""The images that requests carry: real DICOM files out of the pydicom package, and drawn chest X-rays.

======================  =======================================================================================
id                      image
======================  =======================================================================================
``dicom-...``           a file that pydicom ships inside its package: no network is needed. Grey, one frame, each
                        in another transfer syntax that pydicom and Pillow decode without further plugins
``chest-...``           a synthetic chest X-ray in a file of about the size that the name says
``chest-...#5``         another patient: ``#0`` to ``#63`` differ in anatomy, so a model's answers differ too; the
                        bare name is ``#0``
======================  =======================================================================================

A drawn image is determined by its id. Only arithmetic that IEEE 754 fixes is used, so that its pixels are the same on
every machine; its bytes are the same for one version of numpy and Pillow.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from io import BytesIO
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from scenarios.strict import ScenarioError, unknown_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scenarios.scenario import Scenario

    Plane = NDArray[np.floating]

PATIENTS: Final = 64
"""Different images in each synthetic family."""


class PayloadError(ScenarioError):
    """An image that is asked for does not exist."""


@dataclass(frozen=True, slots=True)
class Payload:
    """One image file as it is sent."""

    id: str
    media_type: str
    data: bytes
    sha256: str
    width_px: int
    height_px: int


@dataclass(frozen=True, slots=True)
class _Shipped:
    """A file in pydicom's ``data/test_files``."""

    file: str
    width_px: int
    height_px: int


@dataclass(frozen=True, slots=True)
class _Drawn:
    """How to encode a drawn chest of `size_px` squared; `quality` is JPEG's, None for a 16-bit PNG."""

    size_px: int
    quality: int | None


_SHIPPED: Final = {
    "dicom-ct-spine": _Shipped("CT_small.dcm", 128, 128),  # uncompressed, 39 KB
    "dicom-ct-head": _Shipped("J2K_pixelrep_mismatch.dcm", 512, 512),  # JPEG 2000 lossless, 139 KB
    "dicom-mr-vessel": _Shipped("MR_small_RLE.dcm", 64, 64),  # RLE lossless, 8 KB
    "dicom-mr-abdomen": _Shipped("examples_overlay.dcm", 484, 300),  # uncompressed, 322 KB, two display windows
    "dicom-nm-body": _Shipped("JPEG2000.dcm", 256, 1024),  # JPEG 2000 lossy, 3 KB
}
_DRAWN: Final = {
    "chest-jpeg-20kb": _Drawn(512, 75),
    "chest-jpeg-100kb": _Drawn(1024, 84),
    "chest-jpeg-400kb": _Drawn(2048, 84),
    "chest-png-16bit": _Drawn(512, None),
}


def catalogue() -> tuple[str, ...]:
    """Every id, synthetic families by their bare name. Draws and reads nothing."""
    return (*_SHIPPED, *_DRAWN)


@cache
def load_payload(payload_id: str) -> Payload:
    """The image of that id, kept in memory from the first call on.

    Raises `PayloadError` for an id that is not in the catalogue.
    """
    problem = _problem(payload_id)
    if problem:
        raise PayloadError(problem)
    if payload_id in _SHIPPED:
        shipped = _SHIPPED[payload_id]
        return _payload(payload_id, "application/dicom", _read_shipped(shipped), shipped.width_px, shipped.height_px)
    family, _, patient = payload_id.partition("#")
    drawn = _DRAWN[family]
    data = _encoded(_chest(drawn.size_px, int(patient or 0)), drawn.quality)
    media_type = "image/png" if drawn.quality is None else "image/jpeg"
    return _payload(payload_id, media_type, data, drawn.size_px, drawn.size_px)


def check_payloads(scenario: Scenario) -> None:
    """Refuse a scenario that asks for images which do not exist.

    Raises `PayloadError` with one line for each.
    """
    found = (_problem(payload.id) for payload in scenario.payloads)
    lines = [f"{scenario.name}: payloads: {problem}" for problem in found if problem]
    if lines:
        raise PayloadError("\n".join(lines))


def _problem(payload_id: str) -> str | None:
    """What is wrong with an id, None if nothing."""
    name, mark, patient = payload_id.partition("#")
    if name not in catalogue():
        return unknown_name("image", name, catalogue())
    if mark and name in _SHIPPED:
        return f"'{payload_id}': '{name}' is a single file; leave out `images` and '#'"
    if mark and patient not in {str(number) for number in range(PATIENTS)}:
        return f"'{payload_id}': '{name}' has images #0 to #{PATIENTS - 1}"
    return None


def _payload(payload_id: str, media_type: str, data: bytes, width_px: int, height_px: int) -> Payload:
    return Payload(payload_id, media_type, data, hashlib.sha256(data).hexdigest(), width_px, height_px)


def _read_shipped(shipped: _Shipped) -> bytes:
    path = files("pydicom").joinpath("data", "test_files", shipped.file)
    try:
        return path.read_bytes()
    except OSError as error:
        raise PayloadError(f"pydicom does not ship {shipped.file}: {error.strerror}; install the locked one") from None


def _encoded(brightness: Plane, quality: int | None) -> bytes:
    """A JPEG with 8 bits, or a PNG with 16, of brightness 0..1."""
    out = BytesIO()
    if quality is None:
        # Detectors give 12 bits: the lower four stay 0.
        Image.fromarray((brightness * 4095).astype(np.uint16) << 4).save(out, format="PNG")
    else:
        Image.fromarray((brightness * 255).astype(np.uint8)).save(out, format="JPEG", quality=quality)
    return out.getvalue()


def _chest(size_px: int, patient: int) -> Plane:
    """A chest from the front, brightness 0..1: air is dark, bone is bright, and no two patients are alike."""
    chance = np.random.default_rng(patient)
    y, x = np.meshgrid(*[np.linspace(-1, 1, size_px, dtype=np.float32)] * 2, indexing="ij")
    wide, tall, tilt = (np.float32(value) for value in chance.uniform([0.9, 0.9, -0.04], [1.1, 1.1, 0.04]))
    x = x / wide - tilt * y

    trunk = _band(x, 1.05) * _soft((y + 0.85 - 0.25 * x * x) * 8)  # the shoulders slope
    body = np.maximum(_soft(trunk * 4), _soft(_band(x, 0.35) * 4))  # and the neck reaches the upper edge
    lungs = np.maximum(*(_blob(x - side * 0.42, (y + 0.02) / tall, 0.34, 0.68, 0.25) for side in (-1, 1)))
    image = 0.04 + 0.58 * body - 0.40 * lungs * body
    image += 0.16 * _band(x, 0.13) + 0.03 * _band(x, 0.07) * _wave(y * 9)  # spine and its vertebrae
    image += 0.30 * lungs * _blob(x - 0.16, y - 0.28, chance.uniform(0.28, 0.40), 0.34, 0.5)  # heart
    image += 0.11 * _wave(y * 5.5 - 2.5 * x * x + chance.uniform(0, 1)) * (0.3 * body + 0.7 * lungs)  # ribs
    image += 0.14 * _band(y + 0.62 + 0.25 * np.abs(x), 0.05) * _band(x, 0.8)  # collar bones
    for _ in range(int(chance.integers(0, 4))):  # opacities, what the models look for
        across, down, radius = chance.uniform([-0.6, -0.5, 0.04], [0.6, 0.4, 0.16]).tolist()
        image += 0.22 * lungs * _blob(x - across, y - down, radius, radius, 1.0)
    image += 0.03 * (chance.random(x.shape, dtype=np.float32) + chance.random(x.shape, dtype=np.float32) - 1)
    brightness: Plane = np.clip(image, 0, 1, dtype=np.float32)
    return brightness


def _blob(x: Plane, y: Plane, radius_x: float, radius_y: float, edge: float) -> Plane:
    """1 inside an ellipse, 0 outside, soft at the edge."""
    x, y = x / np.float32(radius_x), y / np.float32(radius_y)
    return _soft((1 - (x * x + y * y)) / np.float32(edge))


def _band(distance: Plane, half_width: float) -> Plane:
    """1 on a line, 0 beyond `half_width`."""
    return _soft(1 - np.abs(distance) / np.float32(half_width))


def _wave(turns: Plane) -> Plane:
    """A soft wave, 0..1, once per turn."""
    return _soft(np.abs(2 * (turns - np.floor(turns)) - 1))


def _soft(value: Plane) -> Plane:
    """From 0 to 1 without corners."""
    value = np.clip(value, 0, 1, dtype=np.float32)
    return value * value * (3 - 2 * value)
