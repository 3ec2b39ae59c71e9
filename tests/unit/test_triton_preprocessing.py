"""What becomes of an image file before a model sees it."""

import hashlib
import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "triton"))

from radstream import BadInputError
from radstream.preprocessing import MAX_PIXELS, PREPROCESSING_VERSION, preprocess

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


def ramp(width: int = 640, height: int = 512, top: int = 255) -> npt.NDArray[np.float64]:
    """Return a picture that is dark on the left, bright on the right, and the same from top to bottom."""
    return np.tile(np.linspace(0, top, width), (height, 1))


def encoded(pixels: Pixels, kind: str) -> bytes:
    """Write pixels as a PNG or JPEG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def dicom(pixels: Pixels, transfer_syntax: str = ExplicitVRLittleEndian, **elements: object) -> bytes:
    """Write pixels as a DICOM file of 12 bits stored, with more elements or others instead."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(transfer_syntax)
    dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.ComputedRadiographyImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.UID("1.2.3")
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.add_new("PixelData", "OW", pixels.tobytes())
    for name, value in elements.items():
        setattr(dataset, name, value)
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def shipped(name: str) -> bytes:
    """Return a file that pydicom ships."""
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str), f"pydicom no longer ships {name}"
    return Path(path).read_bytes()


def png_claiming(width: int, height: int) -> bytes:
    """Return a PNG whose header claims a size and whose body holds next to nothing."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encoded(ramp().astype(np.uint8), "PNG"), id="8-bit PNG"),
        pytest.param(encoded(ramp(top=4095).astype(np.uint16), "PNG"), id="16-bit PNG"),
        pytest.param(encoded(ramp().astype(np.uint8), "JPEG"), id="JPEG"),
        pytest.param(encoded(np.stack([ramp()] * 3, axis=-1).astype(np.uint8), "JPEG"), id="colour JPEG"),
        pytest.param(dicom(ramp(top=4095).astype(np.uint16)), id="DICOM without window"),
        pytest.param(dicom(ramp(top=4095).astype(np.uint16), WindowCenter=2048, WindowWidth=4096), id="DICOM window"),
        pytest.param(
            dicom(ramp(top=4095)[:, ::-1].astype(np.uint16), PhotometricInterpretation="MONOCHROME1"), id="MONOCHROME1"
        ),
    ],
)
def test_every_format_gives_the_same_picture(data: bytes) -> None:
    tensors = preprocess(data)
    assert tensors.image_224.shape == (3, 224, 224)
    assert tensors.image_512.shape == (3, 512, 512)
    assert tensors.image_224.dtype == tensors.image_512.dtype == np.float32
    np.testing.assert_allclose(tensors.image_512[0, 256], np.linspace(0, 1, 512), atol=0.02)
    assert (tensors.image_512[0] == tensors.image_512[2]).all()


@pytest.mark.parametrize(
    "name",
    ["CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "JPEG2000.dcm", "693_J2KI.dcm", "MR_small_bigendian.dcm"],
)
def test_real_dicom_files_are_decoded(name: str) -> None:
    tensors = preprocess(shipped(name))
    assert np.isfinite(tensors.image_224).all()
    assert 0 <= tensors.image_512.min() < tensors.image_512.max() <= 1


def test_a_compressed_dicom_gives_the_same_tensors_as_the_uncompressed() -> None:
    plain, packed = preprocess(shipped("MR_small.dcm")), preprocess(shipped("MR_small_RLE.dcm"))
    assert (plain.image_512 == packed.image_512).all()


def test_monochrome1_is_inverted() -> None:
    pixels = ramp(top=4095).astype(np.uint16)
    usual, inverted = preprocess(dicom(pixels)), preprocess(dicom(pixels, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_allclose(usual.image_512 + inverted.image_512, 1, atol=1e-6)


def test_a_dicom_window_clips_what_lies_outside_it() -> None:
    row = preprocess(dicom(ramp(top=4095).astype(np.uint16), WindowCenter=2048, WindowWidth=1024)).image_512[0, 256]
    assert row[:180].max() == 0  # below 1536 of 4095
    assert row[330:].min() == 1  # above 2560
    assert row[256] == pytest.approx(0.5, abs=0.01)


def test_signed_pixels_over_the_whole_16_bit_range_do_not_wrap_round() -> None:
    pixels = np.linspace(-32768, 32767, 512 * 512).astype(np.int16).reshape(512, 512).T.copy()
    data = dicom(pixels.view(np.uint16), BitsStored=16, HighBit=15, PixelRepresentation=1)
    column = preprocess(data).image_512[0, :, 256]
    assert np.ptp(column) < 0.01
    np.testing.assert_allclose(preprocess(data).image_512[0, 0], np.linspace(0, 1, 512), atol=0.01)


def test_an_8_bit_file_keeps_its_grey_levels() -> None:
    grey = preprocess(encoded(np.full((600, 600), 100, np.uint8), "PNG"))
    assert np.unique(grey.image_512) == pytest.approx([100 / 255])
    assert grey.image_224[:, 0, 0] == pytest.approx(
        [(100 / 255 - 0.485) / 0.229, (100 / 255 - 0.456) / 0.224, (100 / 255 - 0.406) / 0.225], abs=1e-6
    )


def test_a_flat_16_bit_image_is_black_rather_than_an_error() -> None:
    assert preprocess(encoded(np.full((64, 64), 700, np.uint16), "PNG")).image_512.max() == 0


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "image of 0 bytes is neither DICOM", id="empty"),
        pytest.param(b"GIF89a" + bytes(500), "neither DICOM .* PNG nor JPEG", id="another format"),
        pytest.param(encoded(ramp().astype(np.uint8), "JPEG")[:2000], "JPEG image cannot be decoded", id="cut JPEG"),
        pytest.param(encoded(ramp().astype(np.uint8), "PNG")[:900], "PNG image cannot be decoded", id="cut PNG"),
        pytest.param(dicom(ramp().astype(np.uint16))[:9000], "DICOM image cannot be decoded", id="cut DICOM"),
        pytest.param(bytes(128) + b"DICM" + b"\xff" * 300, "DICOM", id="rubbish after DICM"),
        pytest.param(b"\xff\xd8\xff" + b"\x00" * 300, "JPEG image cannot be decoded", id="rubbish after the JPEG mark"),
        pytest.param(shipped("rtplan.dcm"), "no pixel data", id="DICOM without pixels"),
        pytest.param(shipped("examples_rgb_color.dcm"), "of RGB; a chest X-ray is one frame", id="colour DICOM"),
        pytest.param(dicom(ramp().astype(np.uint16), NumberOfFrames=3), r"3 frame\(s\)", id="several frames"),
        pytest.param(
            dicom(ramp().astype(np.uint16), transfer_syntax=DeflatedExplicitVRLittleEndian),
            "deflated transfer syntax",
            id="deflated DICOM",
        ),
    ],
)
def test_an_unusable_file_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BadInputError, match=reason):
        preprocess(data)


@pytest.mark.parametrize("size", [(100_000, 100_000), (MAX_PIXELS + 1, 1), (65_000, 65_000)])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    with pytest.raises(BadInputError, match=f"{size[0]} x {size[1]} pixels|{size[0] * size[1]} pixels"):
        preprocess(png_claiming(*size))


def test_a_dicom_that_claims_too_many_pixels_is_refused() -> None:
    with pytest.raises(BadInputError, match="65535 x 65535 pixels"):
        preprocess(dicom(ramp().astype(np.uint16), Rows=65535, Columns=65535))


def test_the_pixel_limit_is_exact() -> None:
    data = encoded(np.zeros((40, 50), np.uint8), "PNG")
    preprocess(data, max_pixels=2000)
    with pytest.raises(BadInputError, match="50 x 40 pixels is outside the 1 to 1999"):
        preprocess(data, max_pixels=1999)


def test_refusals_do_not_repeat_the_file() -> None:
    secret = b"PATIENT^SECRET"
    with pytest.raises(BadInputError) as refused:
        preprocess(secret * 20)
    assert "SECRET" not in str(refused.value)


GOLDEN = {
    "CT_small.dcm": "a9b91ba0140cbfe3",
    "MR_small.dcm": "7248f5f1eaaeb34c",
    "JPEG2000.dcm": "de0b7b5f8c601095",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_tensors(name: str) -> None:
    """If this fails, the models see other pixels than before: raise PREPROCESSING_VERSION and sign off anew."""
    assert PREPROCESSING_VERSION == 1
    tensors = preprocess(shipped(name))
    assert hashlib.sha256(tensors.image_224.tobytes() + tensors.image_512.tobytes()).hexdigest()[:16] == GOLDEN[name]
