"""The image's tag in the Kubernetes manifests, so that a checkout names the image that it makes."""

import re
from pathlib import Path

from deploy.image import CHECKOUT, IMAGE_NAME, ImageError
from deploy.image.contents import content_tag

OVERLAYS = ("eks", "local")
_ENTRY = re.compile(rf"^(\s*)- name:\s*[\"']?{IMAGE_NAME}[\"']?\s*$")
_TAG = re.compile(r"^(\s+newTag:\s*)[\"']?([^\"'#\s]*)[\"']?(.*)$")


def kustomization(overlay: str, checkout: Path = CHECKOUT) -> Path:
    """Return the file of an overlay that names the image's tag."""
    return checkout / "deploy/kubernetes/overlays" / overlay / "kustomization.yaml"


def pinned_tag(overlay: str, checkout: Path = CHECKOUT) -> str:
    """Return the tag that an overlay deploys.

    Raises:
        ImageError: it names none.
    """
    path = kustomization(overlay, checkout)
    lines = _read(path)
    match = _TAG.match(lines[_tag_line(path, lines)])
    assert match is not None  # noqa: S101 - _tag_line found it with this
    return match[2]


def checked_tag(overlay: str, checkout: Path = CHECKOUT) -> str:
    """Return the tag that an overlay deploys, which is the one that this checkout makes.

    Raises:
        ImageError: it deploys another one.
    """
    pinned, made = pinned_tag(overlay, checkout), content_tag(checkout)
    if pinned != made:
        message = (
            f"the overlays name image {pinned}, but triton/ has changed and makes {made}; "
            "run: python -m deploy.image pin"
        )
        raise ImageError(message)
    return made


def pin(tag: str, overlay: str, checkout: Path = CHECKOUT) -> bool:
    """Make an overlay deploy this tag; return whether that changed it. No other line changes.

    Raises:
        ImageError: the overlay names no tag of this image.
    """
    path = kustomization(overlay, checkout)
    lines = _read(path)
    number = _tag_line(path, lines)
    # In quotes: twelve hexadecimal digits can be a number to YAML, like 123456789012 or 12e456789012.
    pinned = _TAG.sub(lambda match: f'{match[1]}"{tag}"{match[3]}', lines[number])
    changed = pinned != lines[number]
    if changed:
        path.write_text("\n".join([*lines[:number], pinned, *lines[number + 1 :]]))
    return changed


def _read(path: Path) -> list[str]:
    try:
        return path.read_text().split("\n")
    except FileNotFoundError as error:
        message = f"{path} is missing; pin the tag in a complete checkout"
        raise ImageError(message) from error


def _tag_line(path: Path, lines: list[str]) -> int:
    """Return the index of the line newTag in the image's entry."""
    indent = None
    for number, line in enumerate(lines):
        if entry := _ENTRY.match(line):
            indent = len(entry[1])
        elif indent is not None and _TAG.match(line):
            return number
        elif indent is not None and line.strip() and len(line) - len(line.lstrip()) <= indent:
            indent = None  # the next entry, or the end of the list
    message = f"{path} has no newTag for the image {IMAGE_NAME}; add an entry with name, newName and newTag to images:"
    raise ImageError(message)
