"""Stand-in networks: what a client may rely on in their answers."""

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "triton"))

from radstream.stand_ins import CLASSES, classify, detect, encode


def image(seed: int, side: int) -> npt.NDArray[np.float32]:
    """Return a blotchy picture of three equal channels."""
    blotches = np.random.default_rng(seed).random((8, 8), dtype=np.float32)
    return np.broadcast_to(np.kron(blotches, np.ones((side // 8, side // 8), np.float32)), (3, side, side))


@settings(max_examples=50)
@given(st.integers(0, 10_000))
def test_answers_are_well_formed_for_any_image(seed: int) -> None:
    predictions, confidence = classify(image(seed, 224))
    assert predictions.shape == (len(CLASSES),)
    assert predictions.sum() == pytest.approx(1, abs=1e-5)
    assert confidence[0] == predictions.max()
    boxes, scores, labels = detect(image(seed, 512))
    assert len(boxes) == len(scores) == len(labels)
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    assert ((boxes >= 0) & (boxes <= 1)).all()
    assert ((scores > 0.5) & (scores <= 1)).all()
    assert (np.diff(scores) <= 0).all()
    assert np.isin(labels, range(1, len(CLASSES))).all()
    for vector in encode(image(seed, 224), b"cough"):
        assert vector.shape == (768,)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_answers_depend_on_the_image_and_on_nothing_else() -> None:
    assert (classify(image(1, 224)).predictions == classify(image(1, 224)).predictions).all()
    assert (classify(image(1, 224)).predictions != classify(image(2, 224)).predictions).any()
    assert (encode(image(1, 224), b"a").image_features == encode(image(1, 224), b"b").image_features).all()
    assert len({len(detect(image(seed, 512)).boxes) for seed in range(20)}) > 1


def test_the_text_changes_text_and_joint_features_and_may_be_missing() -> None:
    first, other, none = (encode(image(1, 224), text) for text in (b"clear lungs", b"effusion", None))
    assert (first.text_features != other.text_features).any()
    assert (first.joint_features != other.joint_features).any()
    assert (none.text_features == encode(image(2, 224), b"").text_features).all()


def test_a_flat_image_gives_finite_answers() -> None:
    flat = np.zeros((3, 512, 512), np.float32)
    assert np.isfinite(classify(flat[:, :224, :224]).predictions).all()
    assert np.isfinite(detect(flat).boxes).all()
    assert all(np.isfinite(vector).all() for vector in encode(flat[:, :224, :224], None))
