"""Pods that come, go and are lost sight of; over real HTTP, from an API server with faults."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from loadtests.target import Kubernetes, Target, TargetError
from loadtests.watch.__main__ import Watcher
from loadtests.watch.cluster import Note, PodFollower, check_access
from loadtests.watch.endpoints import Endpoint
from loadtests.watch.pods import Pod, pod_endpoints, running_pod
from tests.unit.api_server import ApiServer, api_server, pod
from tests.unit.test_watch_metrics import DCGM, TRITON
from tests.unit.test_watcher import HANG_S, Page, serving


def until(true: Callable[[], bool]) -> bool:
    """Whether it becomes true before a broken follower has to be given up."""
    gave_up_s = time.monotonic() + HANG_S
    while not true() and time.monotonic() < gave_up_s:
        time.sleep(0.01)
    return true()


class Following:
    """A follower and all that it noted."""

    def __init__(self, follower: PodFollower) -> None:
        self._follower = follower
        self._noted: list[Note] = []

    def names(self) -> list[str]:
        return sorted(pod.name for pod in self._follower.pods())

    def noted(self) -> list[Note]:
        self._noted += self._follower.take_notes()
        return self._noted

    def events(self) -> list[str]:
        return [note.event for note in self.noted()]


@contextmanager
def following(api: ApiServer, **settings: float) -> Iterator[Following]:
    with closing(PodFollower(api.kubernetes, **settings)) as follower:
        follower.start()
        yield Following(follower)


# --- from API objects to addresses [pure] ----------------------------------------------------------------------------


def test_a_pod_that_runs_and_has_an_address_is_sampled_under_its_name() -> None:
    found = running_pod(pod("triton-5d8f-abcde", uid="8b1c", address="10.0.3.7"))
    assert found == Pod("8b1c", "triton-5d8f-abcde", "10.0.3.7")
    assert pod_endpoints([found], Kubernetes()) == [
        Endpoint("triton", "triton-5d8f-abcde", "http://10.0.3.7:8002/metrics")
    ]
    assert pod_endpoints([Pod("u", "p", "fd00::7")], Kubernetes(metrics_port=80, gpu_metrics_port=9400)) == [
        Endpoint("triton", "p", "http://[fd00::7]:80/metrics"),
        Endpoint("gpu", "p", "http://[fd00::7]:9400/metrics"),
    ]


def test_where_only_the_api_server_reaches_pods_it_is_told_their_ports() -> None:
    kubernetes = Kubernetes(gpu_metrics_port=9400, through_api_server=True)
    asked = pod_endpoints([Pod("u", "p", "10.0.0.1")], kubernetes)
    assert [(each.kind, each.server, each.pod_port) for each in asked] == [("triton", "p", 8002), ("gpu", "p", 9400)]


@pytest.mark.parametrize("phase", ["Pending", "Succeeded", "Failed", "Unknown"])
def test_a_pod_that_does_not_run_or_has_no_address_is_not_sampled(phase: str) -> None:
    assert running_pod(pod("a", phase=phase)) is None
    assert running_pod(pod("a", address=None)) is None
    assert running_pod({"metadata": {"name": "a", "uid": "u"}}) is None


def test_a_pod_that_is_being_deleted_still_answers_and_counts() -> None:
    leaving = pod("a")
    leaving["metadata"]["deletionTimestamp"] = "2026-11-24T12:00:00Z"
    assert running_pod(leaving) is not None


# --- list and watch --------------------------------------------------------------------------------------------------


def test_pods_come_and_go(tmp_path: Path) -> None:
    with api_server(tmp_path, [pod("a"), pod("waiting", phase="Pending", address=None)]) as api, following(api) as seen:
        assert seen.names() == ["a"]
        api.send("ADDED", pod("b", phase="Pending", address=None))
        api.send("MODIFIED", pod("b"))
        assert until(lambda: seen.names() == ["a", "b"])
        api.send("MODIFIED", pod("a", phase="Succeeded"))
        assert until(lambda: seen.names() == ["b"])
        api.send("DELETED", pod("b"))
        assert until(lambda: seen.names() == [])
        assert seen.noted() == []


def test_a_name_that_returns_is_another_pod(tmp_path: Path) -> None:
    with api_server(tmp_path, [pod("triton-0", uid="first")]) as api, following(api) as seen:
        api.send("ADDED", pod("triton-0", uid="second", address="10.0.0.2"))
        api.send("DELETED", pod("triton-0", uid="first"))
        api.send("ADDED", pod("last"))
        assert until(lambda: "last" in seen.names())
        assert seen.names() == ["last", "triton-0"]


def test_only_the_pods_that_the_target_names_are_asked_for(tmp_path: Path) -> None:
    with api_server(tmp_path, [pod("a")]) as api:
        api.kubernetes = api.kubernetes.model_copy(update={"namespace": "vision", "selector": "app=triton,tier=gpu"})
        with following(api):
            assert [query["path"] for query in api.asked] == ["/api/v1/namespaces/vision/pods"] * 2
            assert {query["labelSelector"] for query in api.asked} == {"app=triton,tier=gpu"}


def test_a_long_list_comes_in_pages(tmp_path: Path) -> None:
    with api_server(tmp_path, [pod(f"pod-{number}") for number in range(5)]) as api:
        api.page_pods = 2
        with following(api) as seen:
            assert seen.names() == [f"pod-{number}" for number in range(5)]
            assert [query.get("continue") for query in api.lists] == [None, "2", "4"]


def test_a_watch_that_ends_in_good_order_is_taken_up_where_it_ended(tmp_path: Path) -> None:
    with api_server(tmp_path, [pod("a")]) as api, following(api) as seen:
        api.send("ADDED", pod("b"))
        last = api.send("BOOKMARK", {"kind": "Pod"})
        api.end_watch()
        assert until(lambda: len(api.watches) == 2)
        assert [watch["resourceVersion"] for watch in api.watches] == ["100", last]
        assert all(0 < int(watch["timeoutSeconds"]) < 15 for watch in api.watches)
        api.send("ADDED", pod("c"))
        assert until(lambda: seen.names() == ["a", "b", "c"])
        assert len(api.lists) == 1
        assert seen.noted() == []


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (ApiServer.send_gone, "too old resource version"),
        (ApiServer.cut_watch, "broke off"),
        (ApiServer.end_watch_within_a_line, "broke off within a line"),
        (lambda api: api.send_line('{"type":"ADDED"}'), "broke off"),
        (lambda api: api.send_line("<html>"), "broke off"),
    ],
    ids=["gone", "cut", "cut_in_good_order", "not_an_event", "not_json"],
)
def test_after_a_fault_the_pods_are_listed_anew_and_the_gap_has_two_ends(
    tmp_path: Path, fault: Callable[[ApiServer], None], says: str
) -> None:
    began_at = time.time()
    with api_server(tmp_path, [pod("a"), pod("b")]) as api, following(api) as seen:
        api.pods = [pod("b"), pod("c")]
        fault(api)
        assert until(lambda: seen.events() == ["api_lost", "api_back"])
        assert seen.names() == ["b", "c"]
        lost, back = seen.noted()
        assert says in lost.detail
        assert began_at <= lost.at < back.at <= time.time()
        api.send("ADDED", pod("d"))
        assert until(lambda: seen.names() == ["b", "c", "d"])


def test_while_the_api_server_refuses_the_known_pods_stay(tmp_path: Path) -> None:
    with api_server(tmp_path, [pod("a")]) as api, following(api) as seen:
        api.refusal = (503, "etcd leader changed")
        api.end_watch()
        assert until(lambda: len(api.asked) >= 4)
        assert seen.names() == ["a"]
        assert seen.events() == ["api_lost"]
        assert "HTTP 503: etcd leader changed" in seen.noted()[0].detail
        api.pods, api.refusal = [pod("b")], None
        assert until(lambda: seen.names() == ["b"])
        assert until(lambda: seen.events() == ["api_lost", "api_back"])


def test_a_watch_that_says_nothing_is_lost(tmp_path: Path) -> None:
    with api_server(tmp_path, [pod("a")]) as api, following(api, silence_s=0.2) as seen:
        assert until(lambda: "api_lost" in seen.events())
        assert "timed out" in seen.noted()[0].detail


def test_a_list_that_takes_its_time_is_waited_for(tmp_path: Path) -> None:
    with api_server(tmp_path, [pod("a")]) as api:
        api.may_list.clear()
        follower = PodFollower(api.kubernetes, silence_s=0.2)
        with closing(follower):
            starting = threading.Thread(target=follower.start)
            starting.start()
            assert until(lambda: len(api.lists) == 1)
            starting.join(0.5)
            assert starting.is_alive()
            api.may_list.set()
            starting.join()
            assert [found.name for found in follower.pods()] == ["a"]


# --- what a person is told before anything begins --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refusal", "says"),
    [
        ((401, "Unauthorized"), r"HTTP 401: Unauthorized\); renew the credentials"),
        ((403, 'User "jo" cannot list pods'), r'User "jo" cannot list pods\); this account has to list and watch pods'),
        ((404, "no such thing"), "'kubectl get pods -n radstream' has to work from here"),
    ],
)
def test_a_refusal_is_one_sentence(tmp_path: Path, refusal: tuple[int, str], says: str) -> None:
    with api_server(tmp_path, [pod("a")]) as api:
        api.refusal = refusal
        with pytest.raises(TargetError, match=says) as refused:
            check_access(api.kubernetes)
        assert "\n" not in str(refused.value)
        with pytest.raises(TargetError, match=says):
            PodFollower(api.kubernetes).start()


def test_nobody_there_is_one_sentence(tmp_path: Path) -> None:
    with api_server(tmp_path, []) as api:
        pass
    with pytest.raises(TargetError, match=r"http://127\.0\.0\.1:\d+ does not answer: .*refused.*; check") as refused:
        check_access(api.kubernetes)
    assert "\n" not in str(refused.value)


def test_labels_that_no_pod_has_are_one_sentence(tmp_path: Path) -> None:
    with (
        api_server(tmp_path, [pod("a", phase="Pending")]) as api,
        pytest.raises(TargetError, match=r"namespace radstream has the labels 'app.kubernetes.io/name=triton'"),
    ):
        PodFollower(api.kubernetes).start()


def test_what_is_no_api_server_is_told(tmp_path: Path) -> None:
    with api_server(tmp_path, []) as something_else:
        something_else.refusal = (200, "welcome")
        with pytest.raises(TargetError, match=r"sent no list of pods: .*; is it an API server\?"):
            check_access(something_else.kubernetes)


def test_a_kubeconfig_that_is_not_there_or_has_no_such_context_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"there is no kubeconfig at .*/gone: set KUBECONFIG"):
        check_access(Kubernetes(kubeconfig=tmp_path / "gone"))
    with api_server(tmp_path, []) as api:
        lacking = api.kubernetes.model_copy(update={"context": "production"})
        with pytest.raises(TargetError, match=r"kubeconfig .* has no context 'production': 'kubectl config"):
            check_access(lacking)


@pytest.mark.parametrize("text", ["", "[1, 2]", "just text", "a: [", "clusters: 7", "current-context: x\ncontexts: []"])
def test_a_file_that_is_no_kubeconfig_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(TargetError, match=r"^kubeconfig .*/config ") as refused:
        check_access(Kubernetes(kubeconfig=tmp_path / "config"))
    assert "\n" not in str(refused.value)


def test_without_a_file_that_is_named_it_is_found_as_kubectl_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    with pytest.raises(TargetError, match=r"there is no kubeconfig at ~/\.kube/config"):
        check_access(Kubernetes())
    with api_server(tmp_path, []) as api:
        monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/gone:{tmp_path}/kubeconfig")
        check_access(Kubernetes())
        check_access(Kubernetes(context="here"))
        assert len(api.lists) == 2


def test_in_a_pod_its_account_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    with pytest.raises(
        TargetError, match=r"of this pod's account cannot be used|https://127\.0\.0\.1:1 does not answer"
    ):
        check_access(Kubernetes())
    with pytest.raises(TargetError, match="there is no kubeconfig"):
        check_access(Kubernetes(context="staging"))


# --- the watcher's rounds --------------------------------------------------------------------------------------------


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_the_watcher_samples_pods_by_their_names_also_while_the_api_server_is_lost(tmp_path: Path) -> None:
    with serving({"metrics": Page()}) as url_of, api_server(tmp_path, [pod("a", address="127.0.0.1")]) as api:
        port = int(url_of("metrics").split(":")[2].split("/")[0])
        kubernetes = api.kubernetes.model_copy(update={"metrics_port": port})
        with closing(Watcher(tmp_path, Target(name="k", grpc="nobody:1", kubernetes=kubernetes))) as watcher:
            watcher.start()
            api.refusal = (503, "starting")
            api.end_watch()

            def noted() -> bool:
                watcher.round()
                return any(row["event"] == "api_lost" for row in rows(tmp_path / "watch.jsonl"))

            assert until(noted)
            (lost,) = (row for row in rows(tmp_path / "watch.jsonl") if row["event"] == "api_lost")
            before = len(rows(tmp_path / "triton.jsonl"))
            watcher.round()
            assert len(rows(tmp_path / "triton.jsonl")) > before
            assert {row["server"] for row in rows(tmp_path / "triton.jsonl")} == {"a"}
            assert lost["at"] <= time.time()
            assert "secret-token" not in "".join(path.read_text() for path in tmp_path.glob("*.jsonl"))


def through_api_server(api: ApiServer, **more: int) -> Target:
    kubernetes = api.kubernetes.model_copy(update={"through_api_server": True, **more})
    return Target(name="k", grpc="nobody:1", kubernetes=kubernetes)


def test_metrics_that_the_api_server_fetches_are_those_of_each_pod(tmp_path: Path) -> None:
    """Addresses of pods lead nowhere from here."""
    with api_server(tmp_path, [pod("a", address="192.0.2.1"), pod("b", address="192.0.2.2")]) as api:
        api.metrics = {"a:8002": TRITON, "b:8002": TRITON, "a:9400": DCGM, "b:9400": DCGM}
        with closing(Watcher(tmp_path, through_api_server(api, gpu_metrics_port=9400))) as watcher:
            watcher.start()
            assert until(lambda: watcher.round() or len(rows(tmp_path / "gpu.jsonl")) > 0)  # type: ignore[func-returns-value]
        assert {row["server"] for row in rows(tmp_path / "triton.jsonl")} == {"a", "b"}
        assert {query["path"] for query in api.asked if "proxy" in query["path"]} == {
            f"/api/v1/namespaces/radstream/pods/{name}%3A{port}/proxy/metrics"
            for name in ("a", "b")
            for port in (8002, 9400)
        }


def test_metrics_that_the_api_server_cannot_fetch_are_a_row_that_says_why(tmp_path: Path) -> None:
    with api_server(tmp_path, [pod("a", address="192.0.2.1")]) as api:
        with closing(Watcher(tmp_path, through_api_server(api))) as watcher:
            watcher.start()
            watcher.round()
            api.refusal = (403, "pods/proxy is forbidden")
            assert until(lambda: watcher.round() or len(rows(tmp_path / "watch.jsonl")) > 1)  # type: ignore[func-returns-value]
        first, *_, last = [row["detail"] for row in rows(tmp_path / "watch.jsonl") if row["event"] == "scrape_failed"]
        assert first == ("triton: the API server cannot fetch the metrics of a:8002 (HTTP 503: no answer from a:8002)")
        assert last == (
            "triton: the API server cannot fetch the metrics of a:8002 (HTTP 403: pods/proxy is forbidden); "
            "this account has to get pods/proxy in namespace radstream"
        )


def test_an_api_server_that_is_gone_is_no_reason_to_end(tmp_path: Path) -> None:
    with api_server(tmp_path, [pod("a")]) as api, closing(PodFollower(api.kubernetes)) as follower:
        follower.start()
    with pytest.raises(TargetError, match=r"the API server http://127\.0\.0\.1:\d+ does not answer"):
        follower.metrics("a", 8002)
