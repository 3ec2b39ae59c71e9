"""One chest X-ray file -> the tensors that the models expect. Pure: numpy, Pillow, pydicom, no Triton.

Version 1. Golden tensors in the tests pin it; whoever changes a pixel changes PREPROCESSING_VERSION.

1. The format is told from the first bytes: DICOM ("DICM" at 128), PNG, JPEG. Anything else is refused.
2. The size in the header is held against MAX_PIXELS before a pixel is decoded (decompression bombs).
3. Grey levels become 8 bit: DICOM through modality LUT, VOI LUT or window and MONOCHROME1 inversion; 16-bit PNG, and
   DICOM without a window, from their darkest to their brightest pixel; 8-bit files stay as they are (no CT window).
4. The image is squashed (aspect ratio not kept) to 512 x 512, and that to 224 x 224.
5. `image_512` is grey / 255 in three equal channels; `image_224` is normalised with the ImageNet mean and deviation.
"""

import io
import struct
import warnings
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pydicom
from PIL import Image
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from radstream import BadInputError

PREPROCESSING_VERSION = 1

MAX_PIXELS = 32_000_000
"""Twice the largest chest detectors (about 15 million pixels); decoding this many takes about 100 MB."""

MAX_FILE_BYTES = 4 * MAX_PIXELS

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)

_LARGE, _SMALL = 512, 224
_GREY = np.arange(256, dtype=np.float32) / np.float32(255)
_NORMALISED = (
    (_GREY[None, :] - np.array(IMAGENET_MEAN, np.float32)[:, None]) / np.array(IMAGENET_DEVIATION, np.float32)[:, None]
).astype(np.float32)

# A deflated data set inflates in full while it is read, before its size can be checked.
_DEFLATED = b"1.2.840.10008.1.2.1.99"

# What Pillow and pydicom have been seen to raise on hostile bytes; all mean "this file cannot be decoded".
_DECODER_ERRORS = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
    pydicom.errors.InvalidDicomError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """The two tensors made from one image, channels first, FP32."""

    image_224: npt.NDArray[np.float32]
    """[3, 224, 224], ImageNet-normalised: classifier and encoder."""

    image_512: npt.NDArray[np.float32]
    """[3, 512, 512], 0..1: detector."""


def preprocess(data: bytes, max_pixels: int = MAX_PIXELS) -> ModelInputs:
    """Decode one DICOM, PNG or JPEG file and shape it for the models.

    Raises:
        BadInputError: the file is of another kind, broken, too large or not a single grey-scale frame.
    """
    large = _decoded(data, max_pixels).resize((_LARGE, _LARGE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    small = large.resize((_SMALL, _SMALL), Image.Resampling.BILINEAR, reducing_gap=2.0)
    image_512 = np.empty((3, _LARGE, _LARGE), np.float32)
    image_512[:] = _GREY[np.asarray(large)]
    return ModelInputs(image_224=_NORMALISED[:, np.asarray(small)], image_512=image_512)


def _decoded(data: bytes, max_pixels: int) -> Image.Image:
    """Return the image in 8-bit grey (mode L), possibly already reduced by the JPEG decoder."""
    if len(data) > MAX_FILE_BYTES:
        message = f"image of {len(data)} bytes is larger than the {MAX_FILE_BYTES} bytes accepted"
        raise BadInputError(message)
    if data[128:132] == b"DICM":
        kind, decode = "DICOM", _decode_dicom
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        kind, decode = "PNG", _decode_png
    elif data.startswith(b"\xff\xd8\xff"):
        kind, decode = "JPEG", _decode_jpeg
    else:
        message = f"image of {len(data)} bytes is neither DICOM (DICM at byte 128), PNG nor JPEG"
        raise BadInputError(message)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom warns of every irregular element
            return decode(data, max_pixels)
    except MemoryError as error:
        message = f"{kind} image needs more memory than there is"
        raise BadInputError(message) from error
    except _DECODER_ERRORS as error:
        message = f"{kind} image cannot be decoded: {type(error).__name__}: {str(error)[:200]}"
        raise BadInputError(message) from error


def _decode_jpeg(data: bytes, max_pixels: int) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=("JPEG",))
    _check_size(*image.size, max_pixels)
    image.draft("L", (_LARGE, _LARGE))  # the decoder itself reduces by 2, 4 or 8, never below this size
    return image.convert("L")


def _decode_png(data: bytes, max_pixels: int) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=("PNG",))
    _check_size(*image.size, max_pixels)
    if image.mode.startswith("I"):  # 16-bit grey
        return _stretched(np.asarray(image, dtype=np.uint16))
    return image.convert("L")


def _decode_dicom(data: bytes, max_pixels: int) -> Image.Image:
    if _DEFLATED in data[:2048]:
        message = "DICOM image is in the deflated transfer syntax, which is not accepted; send it uncompressed"
        raise BadInputError(message)
    dataset = pydicom.dcmread(io.BytesIO(data))
    if "PixelData" not in dataset:
        message = "DICOM file has no pixel data"
        raise BadInputError(message)
    _check_size(int(dataset.Columns), int(dataset.Rows), max_pixels)
    frames = int(dataset.get("NumberOfFrames") or 1)
    interpretation = str(dataset.PhotometricInterpretation)
    if frames != 1 or interpretation not in {"MONOCHROME1", "MONOCHROME2"}:
        message = (
            f"DICOM image has {frames} frame(s) of {interpretation}; "
            "a chest X-ray is one frame of MONOCHROME1 or MONOCHROME2"
        )
        raise BadInputError(message)
    if int(dataset.BitsAllocated) not in {8, 16}:
        message = f"DICOM image has {dataset.BitsAllocated} bits a pixel; 8 and 16 are accepted"
        raise BadInputError(message)
    return Image.fromarray(_grey_levels(dataset, np.atleast_2d(dataset.pixel_array)))


def _grey_levels(dataset: pydicom.Dataset, pixels: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    """Apply the LUTs of a data set.

    They map each stored value alike, so they are worked out once for each value that can occur, not for each pixel.
    """
    lowest, highest = int(pixels.min()), int(pixels.max())
    levels = apply_modality_lut(np.arange(lowest, highest + 1), dataset).astype(np.float64)
    if dataset.get("WindowCenter") is not None or dataset.get("VOILUTSequence"):
        # The two ends tell what the window maps "darkest" and "brightest" to, whatever this image holds.
        dark, *windowed, bright = apply_voi_lut(np.concatenate(([-1e9], levels, [1e9])), dataset)
        levels = np.array(windowed)
    else:
        dark, bright = levels.min(), levels.max()
    table = _to_bytes(levels, float(dark), float(bright))
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        table = 255 - table
    return _looked_up(table, pixels, lowest)


def _stretched(pixels: npt.NDArray[np.uint16]) -> Image.Image:
    """Map the darkest pixel to 0 and the brightest to 255: 16-bit files seldom use their full range."""
    lowest, highest = int(pixels.min()), int(pixels.max())
    table = _to_bytes(np.arange(lowest, highest + 1, dtype=np.float64), lowest, highest)
    return Image.fromarray(_looked_up(table, pixels, lowest))


def _to_bytes(levels: npt.NDArray[np.float64], dark: float, bright: float) -> npt.NDArray[np.uint8]:
    if bright == dark:  # one flat grey: no contrast to stretch
        return np.zeros(levels.shape, np.uint8)
    return np.clip(np.rint((levels - dark) * (255 / (bright - dark))), 0, 255).astype(np.uint8)


def _looked_up(table: npt.NDArray[np.uint8], pixels: npt.NDArray[np.integer], lowest: int) -> npt.NDArray[np.uint8]:
    """Index with the difference in 32 bits: that of two 16-bit signed values may need 17."""
    return table[pixels.astype(np.int32) - lowest] if lowest < 0 else table[pixels - lowest]


def _check_size(columns: int, rows: int, max_pixels: int) -> None:
    if columns < 1 or rows < 1 or columns * rows > max_pixels:
        message = f"image of {columns} x {rows} pixels is outside the 1 to {max_pixels} pixels accepted"
        raise BadInputError(message)
