"""The real tritonserver with our model repository: what its clients get."""

import io
import itertools
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException

from tests.integration.embedded import CHECKOUT, EmbeddedServers, embedded_servers

sys.path.insert(0, str(CHECKOUT / "triton"))

from radstream.preprocessing import preprocess
from radstream.stand_ins import classify, detect, encode

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

GROUPS = {
    "classifier": ("predictions", "confidence"),
    "detector": ("boxes", "scores", "labels"),
    "encoder": ("image_features", "text_features", "joint_features"),
    "preprocess": ("served_by",),
}
ALL = tuple(itertools.chain.from_iterable(GROUPS.values()))
USEFUL_SUBSETS = [
    tuple(itertools.chain.from_iterable(GROUPS[name] for name in chosen))
    for size in range(1, len(GROUPS) + 1)
    for chosen in itertools.combinations(GROUPS, size)
]
QUICK = "classifier=0+1,detector=0+1,encoder=0+1"
DEADLINE_S = 60.0


def picture(seed: int) -> bytes:
    """Return a small JPEG; different seeds look different."""
    blotches = np.random.default_rng(seed).integers(0, 255, (8, 8)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.kron(blotches, np.ones((64, 64), np.uint8))).save(file, "JPEG")
    return file.getvalue()


class Client:
    """Asks one server."""

    def __init__(self, address: str) -> None:
        self._client = triton.InferenceServerClient(address)

    def ask(
        self, images: bytes | Sequence[bytes], text: bytes | None = None, outputs: Sequence[str] = ALL
    ) -> dict[str, Any]:
        rows = [images] if isinstance(images, bytes) else images
        inputs = [_bytes_input("image", rows)]
        if text is not None:
            inputs.append(_bytes_input("text", [text] * len(rows)))
        wanted = [triton.InferRequestedOutput(name) for name in outputs]
        result = self._client.infer("radstream_ensemble", inputs, outputs=wanted, client_timeout=DEADLINE_S)
        return {name: result.as_numpy(name) for name in outputs}

    def close(self) -> None:
        self._client.close()


def _bytes_input(name: str, rows: Sequence[bytes]) -> Any:
    tensor = triton.InferInput(name, [len(rows), 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[row] for row in rows], dtype=np.object_))
    return tensor


@pytest.fixture(scope="module")
def keeper() -> Iterator[EmbeddedServers]:
    with embedded_servers(device_times=QUICK) as running:
        yield running


@pytest.fixture(scope="module")
def client(keeper: EmbeddedServers) -> Iterator[Client]:
    server = keeper.servers()[0]
    asking = Client(f"{server['address']}:{server['grpc_port']}")
    yield asking
    asking.close()


def metric(keeper: EmbeddedServers, name: str) -> float:
    return keeper.metrics()[name]


def test_a_study_comes_back_with_all_nine_outputs_as_the_pure_functions_compute_them(client: Client) -> None:
    data = (CHECKOUT / "triton/models/radstream_preprocess/warmup/chest.jpeg.bytes").read_bytes()[4:]
    answer = client.ask(data, text=b"portable AP, effusion?")
    tensors = preprocess(data)
    expected = {
        **classify(tensors.image_224)._asdict(),
        **detect(tensors.image_512)._asdict(),
        **encode(tensors.image_224, b"portable AP, effusion?")._asdict(),
    }
    assert set(answer) == {*expected, "served_by"}
    for name, array in expected.items():
        assert answer[name].dtype == array.dtype
        assert answer[name].shape == (1, *array.shape)
        np.testing.assert_allclose(answer[name][0], array, rtol=1e-4, atol=1e-5)
    assert answer["served_by"].tolist() == [[b"triton-0"]]


@pytest.mark.parametrize("text", [None, b"clear lungs"], ids=["without text", "with text"])
@pytest.mark.parametrize("outputs", sorted({*USEFUL_SUBSETS, *((name,) for name in ALL)}), ids="+".join)
def test_any_subset_of_outputs_can_be_asked_for(client: Client, outputs: tuple[str, ...], text: bytes | None) -> None:
    """Fails with "unexpected deadlock" when the consumer of `text` is not the ensemble's first step."""
    assert set(client.ask(picture(0), text, outputs)) == set(outputs)


@contextmanager
def batched(keeper: EmbeddedServers) -> Iterator[None]:
    """Devices so slow that requests wait and are served together; that some were is checked at the end."""
    before = keeper.metrics(url="metrics_url")
    with keeper.devices_take("classifier=50+0,detector=50+0,encoder=50+0"):
        yield
    after = keeper.metrics(url="metrics_url")
    counters = ("nv_inference_count_total", "nv_inference_exec_count_total")
    inferences, executions = (after[name] - before[name] for name in counters)
    assert inferences > executions


def test_an_answer_does_not_depend_on_what_shares_its_batch(keeper: EmbeddedServers, client: Client) -> None:
    alone = [client.ask(picture(seed)) for seed in range(8)]
    with batched(keeper), ThreadPoolExecutor(24) as pool:
        together = list(pool.map(lambda seed: client.ask(picture(seed % 8)), range(48)))
    for number, answer in enumerate(together):
        for name in ALL:
            np.testing.assert_array_equal(answer[name], alone[number % 8][name])


def test_a_bad_image_fails_alone_and_says_why(keeper: EmbeddedServers, client: Client) -> None:
    def ask(number: int) -> InferenceServerException | dict[str, Any]:
        try:
            return client.ask(b"not an image" if number % 4 == 0 else picture(number))
        except InferenceServerException as error:
            return error

    with batched(keeper), ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(32)))
    for number, answer in enumerate(answers):
        if number % 4 == 0:
            assert isinstance(answer, InferenceServerException)
            assert answer.status() == "StatusCode.INVALID_ARGUMENT"
            assert "neither DICOM" in answer.message()
        else:
            assert isinstance(answer, dict), answer


def test_several_images_in_one_request_come_back_in_order(client: Client) -> None:
    outputs = ("predictions", "served_by")
    together = client.ask([picture(1), picture(2), picture(3)], outputs=outputs)
    for row, seed in enumerate((1, 2, 3)):
        np.testing.assert_array_equal(together["predictions"][row], client.ask(picture(seed))["predictions"][0])


def test_the_capacity_of_a_server_is_what_its_device_times_say(keeper: EmbeddedServers, client: Client) -> None:
    """30 studies of 20 + 60 + 20 ms: the device is busy for exactly 3 s, and no faster way through it exists."""
    with keeper.devices_take("classifier=0+20,detector=0+60,encoder=0+20"):
        _thirty_studies(keeper, client)


def _thirty_studies(keeper: EmbeddedServers, client: Client) -> None:
    client.ask(picture(0))
    busy_s, items = (metric(keeper, f"radstream_emulated_device_{name}_total") for name in ("busy_seconds", "items"))
    began = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda seed: client.ask(picture(seed)), range(30)))
    wall_s = time.monotonic() - began
    assert metric(keeper, "radstream_emulated_device_items_total") - items == 90
    busy_s = metric(keeper, "radstream_emulated_device_busy_seconds_total") - busy_s
    assert busy_s == pytest.approx(3.0, abs=1e-6)
    assert busy_s <= wall_s
    assert busy_s / wall_s > 0.4, "a saturated device should hardly ever wait, unless this machine stands still"


def test_a_saturated_device_reports_full_utilisation_and_an_idle_one_none(
    keeper: EmbeddedServers, client: Client
) -> None:
    seen = threading.Event()

    def keep_asking(seed: int) -> None:
        while not seen.is_set():
            client.ask(picture(seed), None, GROUPS["detector"])

    with keeper.devices_take("detector=500+0"), ThreadPoolExecutor(4) as pool:
        askers = [pool.submit(keep_asking, seed) for seed in range(4)]
        try:
            until_readings(keeper, 1.0)
        finally:
            seen.set()
        for asker in askers:
            asker.result()
    until_readings(keeper, 0.0)


def until_readings(keeper: EmbeddedServers, ratio: float) -> None:
    """Wait until one scrape has both readings of the device's utilisation at a value."""
    names = ("DCGM_FI_PROF_GR_ENGINE_ACTIVE", "DCGM_FI_DEV_GPU_UTIL")
    deadline = time.monotonic() + 60
    while True:
        scraped = keeper.metrics()
        found = tuple(scraped[name] for name in names)
        if found == pytest.approx((ratio, 100 * ratio), abs=1e-6):
            return
        assert time.monotonic() < deadline, f"{names} stayed at {found}"
        time.sleep(0.1)


def test_administration_over_grpc_is_closed(keeper: EmbeddedServers) -> None:
    server = keeper.servers()[0]
    with triton.InferenceServerClient(f"{server['address']}:{server['grpc_port']}") as outsider:
        assert outsider.is_model_ready("radstream_ensemble")
        with pytest.raises(InferenceServerException, match="restricted"):
            outsider.get_model_repository_index()


def test_every_emulated_sample_says_so(keeper: EmbeddedServers) -> None:
    families = list(text_string_to_metric_families(keeper.metrics_text()))
    samples = [sample for family in families for sample in family.samples]
    assert len(samples) > 5
    for sample in samples:
        assert sample.labels["emulated"] == "true", sample.name
