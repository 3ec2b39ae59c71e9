"""CPU stand-ins for the three networks: deterministic outputs of the right shape that depend on the input. Pure.

Each takes one image, so an answer cannot depend on what shared its batch. They cost well under a millisecond; the
time that a real network would need is the emulated device's (device.py).
"""

import hashlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

CLASSES = ("no finding", "consolidation", "effusion", "cardiomegaly", "pneumothorax")
FEATURES = 768
_GRID = 16
_CANDIDATES = 12


class Classification(NamedTuple):
    """Softmax over CLASSES and its largest value."""

    predictions: FloatArray
    """[5], sums to 1."""
    confidence: FloatArray
    """[1]."""


class Detections(NamedTuple):
    """Zero to twelve findings, best first."""

    boxes: FloatArray
    """[n, 4]: left, top, right, bottom as ratios 0..1 of the image, left < right, top < bottom."""
    scores: FloatArray
    """[n], 0.5..1."""
    labels: npt.NDArray[np.int32]
    """[n], 1..4: index into CLASSES."""


class Encoding(NamedTuple):
    """Three vectors of unit length."""

    image_features: FloatArray
    """[768]."""
    text_features: FloatArray
    """[768]; without a text, the vector of the empty text."""
    joint_features: FloatArray
    """[768], the normalised sum of the other two."""


def _projection(seed: int, outputs: int) -> FloatArray:
    """Return a fixed matrix from the pooled image to `outputs` values of about unit size."""
    matrix = np.random.default_rng(seed).standard_normal((outputs, _GRID * _GRID))
    return (matrix / _GRID).astype(np.float32)


_CLASSIFIER = _projection(1, len(CLASSES))
_DETECTOR = _projection(2, _CANDIDATES)
_ENCODER = _projection(3, FEATURES)
_ANCHORS = np.random.default_rng(4).uniform((0.1, 0.1, 0.05, 0.05), (0.9, 0.9, 0.3, 0.3), (_CANDIDATES, 4))
_LABELS = (np.arange(_CANDIDATES, dtype=np.int32) % (len(CLASSES) - 1)) + 1


def _pooled(image: FloatArray) -> FloatArray:
    """Average one channel of a square image over a 16 x 16 grid, with mean 0 and deviation 1; a flat image gives 0."""
    side = image.shape[-1] // _GRID
    cells = image[0].reshape(_GRID, side, _GRID, side).mean(axis=(1, 3)).ravel()
    centred = cells - cells.mean()
    return np.asarray(centred / max(float(centred.std()), 1e-6), np.float32)


def classify(image_224: FloatArray) -> Classification:
    """Answer like the classifier: a softmax over five classes."""
    logits = _CLASSIFIER @ _pooled(image_224)
    weights = np.exp(logits - logits.max())
    predictions = (weights / weights.sum()).astype(np.float32)
    return Classification(predictions, predictions.max(keepdims=True))


def detect(image_512: FloatArray) -> Detections:
    """Answer like the detector: the anchors whose score passes one half, sized by the score."""
    scores = 1 / (1 + np.exp(-2 * (_DETECTOR @ _pooled(image_512))))
    kept = np.flatnonzero(scores > 0.5)  # noqa: PLR2004 - the usual detection threshold
    kept = kept[np.argsort(-scores[kept], kind="stable")]
    centres, sizes = _ANCHORS[kept, :2], _ANCHORS[kept, 2:] * scores[kept, None]
    boxes = np.clip(np.hstack((centres - sizes / 2, centres + sizes / 2)), 0, 1)
    return Detections(boxes.astype(np.float32), scores[kept].astype(np.float32), _LABELS[kept])


def encode(image_224: FloatArray, text: bytes | None) -> Encoding:
    """Answer like the encoder; the text is hashed, so equal texts have equal vectors."""
    image_features = _unit(_ENCODER @ _pooled(image_224) + np.float32(1e-3))
    seed = int.from_bytes(hashlib.sha256(text or b"").digest()[:8], "little")
    text_features = _unit(np.random.default_rng(seed).standard_normal(FEATURES).astype(np.float32))
    return Encoding(image_features, text_features, _unit(image_features + text_features))


def _unit(vector: FloatArray) -> FloatArray:
    return np.asarray(vector / np.linalg.norm(vector), np.float32)
