"""The images: real files, really decodable, the same every time, and no two alike."""

from __future__ import annotations

import hashlib
import re
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from loadtests.payloads import PayloadError, catalogue, check_payloads, load_payload
from scenarios.scenario import Scenario, ScenarioError

if TYPE_CHECKING:
    from numpy.typing import NDArray

DICOM = [name for name in catalogue() if name.startswith("dicom-")]
CHEST = [name for name in catalogue() if name.startswith("chest-")]
SMALL = "chest-jpeg-20kb"


def pixels_of(payload_id: str) -> NDArray[np.float64]:
    """Decode as a server would."""
    data = load_payload(payload_id).data
    decoded = dcmread(BytesIO(data)).pixel_array if payload_id in DICOM else np.asarray(Image.open(BytesIO(data)))
    return decoded.astype(np.float64)


@pytest.mark.parametrize("payload_id", catalogue())
def test_decodes_to_a_grey_picture_of_the_stated_size(payload_id: str) -> None:
    payload = load_payload(payload_id)
    pixels = pixels_of(payload_id)
    assert pixels.shape == (payload.height_px, payload.width_px)
    assert pixels.std() > 0
    assert payload.id == payload_id
    assert payload.sha256 == hashlib.sha256(payload.data).hexdigest()


@pytest.mark.parametrize("payload_id", DICOM)
def test_dicom_is_recognisable_and_needs_no_network(payload_id: str) -> None:
    payload = load_payload(payload_id)
    assert payload.data[128:132] == b"DICM"
    assert payload.media_type == "application/dicom"


def test_dicom_comes_in_several_transfer_syntaxes() -> None:
    syntaxes = {dcmread(BytesIO(load_payload(name).data)).file_meta.TransferSyntaxUID for name in DICOM}
    assert len(syntaxes) == len(DICOM) - 1


@pytest.mark.parametrize("payload_id", CHEST)
def test_a_chest_has_the_format_and_size_of_its_name(payload_id: str) -> None:
    payload = load_payload(payload_id)
    picture = Image.open(BytesIO(payload.data))
    assert picture.get_format_mimetype() == payload.media_type
    stated = re.search(r"(\d+)kb", payload_id)
    if stated:
        assert len(payload.data) == pytest.approx(int(stated[1]) * 1_000, rel=0.2)
    else:
        assert picture.mode == "I;16"
        assert pixels_of(payload_id).max() > 255


@pytest.mark.parametrize("payload_id", [f"{SMALL}#5", "chest-png-16bit"])
def test_bytes_are_the_same_every_time(payload_id: str) -> None:
    first = load_payload(payload_id)
    load_payload.cache_clear()
    again = load_payload(payload_id)
    assert again is not first
    assert again == first
    assert load_payload(payload_id) is again


def test_patients_differ_clearly() -> None:
    # As the models see them: small and smooth, so that noise alone would not count.
    seen = [pixels_of(f"{SMALL}#{patient}").reshape(32, 16, 32, 16).mean(axis=(1, 3)) for patient in range(64)]
    closest = min(np.abs(a - b).max() for index, a in enumerate(seen) for b in seen[:index])
    assert closest > 10  # of 255


def test_the_bare_name_is_patient_0() -> None:
    assert load_payload(SMALL).data == load_payload(f"{SMALL}#0").data


@pytest.mark.parametrize(
    ("payload_id", "message"),
    [
        (
            "chest-jpg-20kb",
            f"unknown image 'chest-jpg-20kb': did you mean '{SMALL}'? allowed are {', '.join(catalogue())}",
        ),
        ("dicom-ct-head#1", "'dicom-ct-head#1': 'dicom-ct-head' is a single file; leave out `images` and '#'"),
        (f"{SMALL}#64", f"'{SMALL}#64': '{SMALL}' has images #0 to #63"),
        (f"{SMALL}#", f"'{SMALL}#': '{SMALL}' has images #0 to #63"),
        (f"{SMALL}#01", f"'{SMALL}#01': '{SMALL}' has images #0 to #63"),
    ],
)
def test_an_image_that_does_not_exist(payload_id: str, message: str) -> None:
    with pytest.raises(PayloadError) as raised:
        load_payload(payload_id)
    assert str(raised.value) == message


def test_a_scenario_with_unknown_images_is_refused_one_line_each() -> None:
    scenario = Scenario.model_validate(
        {
            "name": "plain",
            "purpose": "a test",
            "expected_verdict": "none",
            "phases": [{"name": "main", "duration_s": 1, "rate": {"requests_per_s": 1}}],
            "payloads": [{"id": "chest"}, {"id": SMALL}, {"id": "dicom-nm-body", "images": 2}],
            "objectives": {"must_pass": ["latency_p95"]},
        }
    )
    with pytest.raises(ScenarioError) as raised:
        check_payloads(scenario)
    assert [line.split(": ")[:3] for line in str(raised.value).splitlines()] == [
        ["plain", "payloads", "unknown image 'chest'"],
        ["plain", "payloads", "'dicom-nm-body#0'"],
        ["plain", "payloads", "'dicom-nm-body#1'"],
    ]
