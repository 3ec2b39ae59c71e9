"""The container image of RadStream: tritonserver, its Python and the models of `triton/`.

`Dockerfile` makes the production image on NVIDIA's. The modules make the image for clusters on one machine, out of
Debian packages, wheels and this checkout, without Docker and without root: `python -m deploy.image`.
"""

import os
from collections.abc import Callable
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
IMAGE_NAME = "radstream-triton"

Say = Callable[[str], None]
"""Takes one sentence of progress."""


class ImageError(Exception):
    """What is wrong with the image, where, and what to do next, in one sentence fit for a user."""


def cache_directory() -> Path:
    """Return where built images and programs are kept: RADSLO_CACHE_DIR, else radslo/ in the user's cache."""
    named = os.environ.get("RADSLO_CACHE_DIR")
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(named or f"{root}/radslo").expanduser().absolute()
