"""Pushes an image to a registry, over the HTTP API of the OCI distribution specification."""

from collections.abc import Mapping
from pathlib import Path
from typing import IO
from urllib.parse import urljoin

import urllib3

from deploy.image import ImageError, Say
from deploy.image.layout import MANIFEST_TYPE, Layout

_TIMEOUT = urllib3.Timeout(connect=10, read=120)


def push(layout: Path, registry_url: str, repository: str, tag: str, say: Say) -> str:
    """Upload what the registry lacks of an image, name it there, and return the digest of its manifest.

    `registry_url` is like http://127.0.0.1:5000. Logging in is not supported.

    Raises:
        ImageError: the registry is not there or refuses.
    """
    if not registry_url.startswith(("http://", "https://")):
        message = f"{registry_url} is no address of a registry; name it like http://127.0.0.1:5000"
        raise ImageError(message)
    image, registry = Layout(layout), _Registry(registry_url.rstrip("/") + "/")
    digest: str = image.descriptor["digest"]
    for blob in image.digests:
        path = image.blob(blob)
        if registry.ask("HEAD", f"v2/{repository}/blobs/{blob}", {200, 404}).status == 200:  # noqa: PLR2004
            continue
        say(f"uploading {path.stat().st_size / 1e6:.1f} MB of {repository}:{tag}")
        started = registry.ask("POST", f"v2/{repository}/blobs/uploads/", {202})
        with path.open("rb") as content:
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(path.stat().st_size)}
            registry.ask("PUT", _with_digest(started.headers["Location"], blob), {201}, headers, content)
    manifest = image.blob(digest).read_bytes()
    named = registry.ask("PUT", f"v2/{repository}/manifests/{tag}", {201}, {"Content-Type": MANIFEST_TYPE}, manifest)
    if named.headers.get("Docker-Content-Digest", digest) != digest:
        message = (
            f"{registry_url} stored {repository}:{tag} as something else than was sent; push it to another registry"
        )
        raise ImageError(message)
    say(f"{repository}:{tag} is in {registry_url}")
    return digest


class _Registry:
    """A registry at a URL that ends with a slash. Proxies of the environment are not used."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._http = urllib3.PoolManager(timeout=_TIMEOUT, retries=False)

    def ask(
        self,
        method: str,
        path: str,
        expected: set[int],
        headers: Mapping[str, str] | None = None,
        body: bytes | IO[bytes] | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """Send a request; `path` may be a whole URL, as in a registry's answers."""
        try:
            answer = self._http.request(method, urljoin(self._url, path), body=body, headers=headers)
        except urllib3.exceptions.HTTPError as error:
            message = f"the registry {self._url} does not answer: {error}; start it, or check the address"
            raise ImageError(message) from error
        if answer.status in {401, 403}:
            message = (
                f"the registry {self._url} wants a login, which this command cannot do; write a file with "
                "`python -m deploy.image archive FILE` and push that with `docker load`, `docker push`"
            )
            raise ImageError(message)
        if answer.status not in expected:
            words = " ".join(answer.data.decode(errors="replace").split())[:300]
            message = f"the registry {self._url} answered {method} {path} with {answer.status} {words}; see its log"
            raise ImageError(message)
        return answer


def _with_digest(location: str, digest: str) -> str:
    return f"{location}{'&' if '?' in location else '?'}digest={digest}"
