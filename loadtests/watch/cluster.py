"""The only module that asks an API server: which pods match, now and from now on. It reads and changes nothing.

The official client finds the server and its credentials and sends the requests. Its ``Watch`` is not used: it ends
with an exception or hangs at most faults of a connection, and skips a line that was cut off.
"""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import urllib3
from kubernetes.client import ApiClient, ApiException, Configuration, CoreV1Api
from kubernetes.config import ConfigException, kube_config, load_incluster_config, load_kube_config

from loadtests.target import Kubernetes, TargetError
from loadtests.watch.pods import Pod, running_pod

_YAMLError: Final[type[Exception]] = kube_config.yaml.YAMLError  # type: ignore[attr-defined]  # it lets it through

_CONNECT_S: Final = 5.0
_LIST_S: Final = 30.0
_METRICS_S: Final = 5.0
_CONNECTIONS: Final = 65
"""As many metrics as the watcher asks for at a time, and the watch."""
_PAGE_PODS: Final = 500
# The server ends each watch after this time and we take it up again where it ended. So a watch that says nothing for
# longer is no quiet one: its connection is dead.
_WATCH_S: Final = 10
_SILENCE_S: Final = 15.0
_WATCH_LEAST_S: Final = 1.0
_RETRY_S: Final = 0.5
_RETRY_MOST_S: Final = 5.0


class ApiError(TargetError):
    """The API server did not tell what it was asked. The message says what, where and what to do next."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something about the connection to the API server: a row of the watcher's. ``at`` is in Unix seconds."""

    at: float
    event: str
    detail: str


def check_access(kubernetes: Kubernetes) -> None:
    """Find out whether the pods can be listed from here.

    Raises:
        TargetError: they cannot.
    """
    _Api(kubernetes).list()


class PodFollower:
    """Knows the pods that run. While the API server is lost, they are those that ran when it was last heard.

    A watch that is silent for ``silence_s`` counts as lost.
    """

    def __init__(self, kubernetes: Kubernetes, *, silence_s: float = _SILENCE_S) -> None:
        self._kubernetes = kubernetes
        self._silence_s = silence_s
        self._ending = threading.Event()
        self._notes: queue.SimpleQueue[Note] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._follow, daemon=True, name="pods")
        # Replaced, never changed: another thread reads it.
        self._pods: dict[str, Pod] = {}
        self._position = ""
        self._heard_at = 0.0

    def start(self) -> None:
        """Return when the pods are known and will be followed.

        Raises:
            TargetError: they cannot be listed or watched, or there are none.
        """
        self._begin()
        if not self._pods:
            msg = (
                f"no pod that runs in namespace {self._kubernetes.namespace} has the labels "
                f"'{self._kubernetes.selector}': name those of the Triton pods in a target file, under kubernetes"
            )
            raise TargetError(msg)
        self._thread.start()

    def pods(self) -> tuple[Pod, ...]:
        if not self._thread.is_alive():
            raise RuntimeError("the thread that follows the pods ended; its traceback is above")
        return tuple(self._pods.values())

    def metrics(self, pod: str, port: int) -> str:
        """What a pod says of itself, fetched by the API server; any thread may ask.

        Raises:
            TargetError: it could not be fetched.
        """
        return self._api.metrics(pod, port)

    def take_notes(self) -> list[Note]:
        """What happened to the connection since the last call."""
        return [self._notes.get_nowait() for _ in range(self._notes.qsize())]

    def close(self) -> None:
        self._ending.set()

    def _follow(self) -> None:
        while not self._ending.is_set():
            began_s = time.monotonic()
            try:
                self._read()
                self._ending.wait(began_s + _WATCH_LEAST_S - time.monotonic())
                self._watch = self._api.watch(self._position, self._silence_s)
            except ApiError as error:
                self._notes.put(Note(self._heard_at, "api_lost", str(error)))
                self._recover()

    def _recover(self) -> None:
        wait_s = _RETRY_S
        while not self._ending.wait(wait_s):
            wait_s = min(2 * wait_s, _RETRY_MOST_S)
            try:
                self._begin()
            except TargetError:
                continue  # the row that says it is lost stands until it is back
            self._notes.put(Note(time.time(), "api_back", f"pods that run: {len(self._pods)}"))
            return

    def _begin(self) -> None:
        """List anew, with the credentials of now, and watch from there."""
        self._api = _Api(self._kubernetes)
        documents, self._position = self._api.list()
        self._pods = {pod.uid: pod for document in documents if (pod := running_pod(document)) is not None}
        self._watch = self._api.watch(self._position, self._silence_s)
        self._heard_at = time.time()

    def _read(self) -> None:
        """Take in events until the server ends the watch in good order."""
        line = b""
        try:
            for piece in self._watch.stream():
                self._heard_at = time.time()
                *lines, line = (line + piece).split(b"\n")
                for whole in filter(None, lines):
                    self._take_in(json.loads(whole))
        except (urllib3.exceptions.HTTPError, ValueError, KeyError, TypeError) as error:
            raise ApiError(f"the watch of pods broke off: {_short(error)}") from error
        finally:
            self._watch.close()
        if line:
            raise ApiError("the watch of pods broke off within a line")

    def _take_in(self, event: dict[str, Any]) -> None:
        kind, document = event["type"], event["object"]
        if kind == "ERROR":
            raise ApiError(f"the API server ended the watch of pods: {document.get('message') or document}")
        if kind != "BOOKMARK":
            pod = running_pod(document) if kind != "DELETED" else None
            uid = document["metadata"]["uid"]
            others = {other: known for other, known in self._pods.items() if other != uid}
            self._pods = others if pod is None else others | {uid: pod}
        self._position = document["metadata"]["resourceVersion"]


class _Api:
    """Requests for the pods of one namespace and selector; each may raise ApiError."""

    def __init__(self, kubernetes: Kubernetes) -> None:
        self._kubernetes = kubernetes
        configuration = _configuration(kubernetes)
        self._host = configuration.host
        self._pods: Any = CoreV1Api(ApiClient(configuration))  # its stubs do not know of raw responses

    def list(self) -> tuple[list[dict[str, Any]], str]:
        """All pods as the API writes them, and the place in its history from which to watch."""
        documents: list[dict[str, Any]] = []
        rest: dict[str, str] = {}
        while True:
            response = self._ask(_LIST_S, limit=_PAGE_PODS, **rest)
            try:
                page = json.loads(response.data)
                documents += page["items"]
                metadata = page["metadata"]
                position, token = str(metadata["resourceVersion"]), metadata.get("continue")
            except (urllib3.exceptions.HTTPError, ValueError, KeyError, TypeError) as error:
                raise ApiError(f"{self._host} sent no list of pods: {_short(error)}; is it an API server?") from error
            if not token:
                return documents, position
            rest = {"_continue": token}

    def watch(self, position: str, silence_s: float) -> urllib3.BaseHTTPResponse:
        """The stream of events from there on."""
        return self._ask(
            silence_s, watch=True, resource_version=position, allow_watch_bookmarks=True, timeout_seconds=_WATCH_S
        )

    def metrics(self, pod: str, port: int) -> str:
        """``/metrics`` at a port of a pod."""
        try:
            response: urllib3.BaseHTTPResponse = self._pods.connect_get_namespaced_pod_proxy_with_path(
                f"{pod}:{port}",
                self._kubernetes.namespace,
                "metrics",
                _preload_content=False,
                _request_timeout=(_CONNECT_S, _METRICS_S),
            )
            return response.data.decode()
        except ApiException as error:
            if not error.status:
                raise ApiError(self._no_answer(error)) from error
            what = f"the API server cannot fetch the metrics of {pod}:{port} (HTTP {error.status}: {_said(error)})"
            todo = f"; this account has to get pods/proxy in namespace {self._kubernetes.namespace}"
            raise ApiError(what + (todo if error.status == HTTPStatus.FORBIDDEN else "")) from error
        except (urllib3.exceptions.HTTPError, ConfigException, OSError) as error:
            raise ApiError(self._no_answer(error)) from error

    def _ask(self, read_s: float, **settings: object) -> urllib3.BaseHTTPResponse:
        try:
            response: urllib3.BaseHTTPResponse = self._pods.list_namespaced_pod(
                self._kubernetes.namespace,
                label_selector=self._kubernetes.selector,
                _preload_content=False,
                _request_timeout=(_CONNECT_S, read_s),
                **settings,
            )
        except ApiException as error:
            raise ApiError(self._refusal(error) if error.status else self._no_answer(error)) from error
        except (urllib3.exceptions.HTTPError, ConfigException, OSError) as error:
            raise ApiError(self._no_answer(error)) from error
        return response

    def _no_answer(self, error: Exception) -> str:
        what = f"the API server {self._host} does not answer: {_short(error)}"
        return f"{what}; check the kubeconfig and the way from here to the cluster"

    def _refusal(self, error: ApiException) -> str:
        what = f"the API server {self._host} refuses to tell of pods (HTTP {error.status}: {_said(error)})"
        match error.status:
            case 401:
                todo = "renew the credentials that the kubeconfig names"
            case 403:
                todo = f"this account has to list and watch pods in namespace {self._kubernetes.namespace}"
            case _:
                todo = f"'kubectl get pods -n {self._kubernetes.namespace}' has to work from here"
        return f"{what}; {todo}"


def _said(error: ApiException) -> str:
    try:
        return str(json.loads(error.body or "")["message"])
    except (ValueError, KeyError, TypeError):  # whoever wrote that is no API server, as a pod behind one
        return str(error.reason)


def _configuration(kubernetes: Kubernetes) -> Configuration:
    """Where the API server is and what to show it, found as kubectl does: in a pod, without a file, its own account.

    Raises:
        TargetError: no kubeconfig, no such context, or it cannot be understood.
    """
    configuration = Configuration()
    configuration.retries = False
    configuration.connection_pool_maxsize = _CONNECTIONS  # type: ignore[attr-defined]  # unknown to its stubs
    place = str(kubernetes.kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config")
    there = any(Path(part).expanduser().is_file() for part in place.split(os.pathsep) if part)
    try:
        if there:
            load_kube_config(place, kubernetes.context, configuration, persist_config=False)
        elif kubernetes.kubeconfig is None and kubernetes.context is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            place = "of this pod's account"
            load_incluster_config(configuration)
        else:
            msg = f"there is no kubeconfig at {place}: set KUBECONFIG, or name the file in a target file"
            raise TargetError(msg)
    # A file that is no kubeconfig ends the client's loader in one of these ways.
    except (ConfigException, OSError, ValueError, AttributeError, TypeError, _YAMLError) as error:
        raise TargetError(_why_no_kubeconfig(place, kubernetes.context, error)) from error
    return configuration


def _why_no_kubeconfig(place: str, context: str | None, error: Exception) -> str:
    if str(error).endswith("contexts list"):
        named = f"context '{context}'" if context else "such context as its current-context"
        return f"kubeconfig {place} has no {named}: 'kubectl config get-contexts' lists those that it has"
    return f"kubeconfig {place} cannot be used: {_short(error)}; 'kubectl get pods' has to work with it"


def _short(error: BaseException) -> str:
    """One line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__
