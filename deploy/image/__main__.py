"""Makes the local image of RadStream and brings it to where it runs: `python -m deploy.image`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.image import IMAGE_NAME, ImageError, cache_directory
from deploy.image.build import ensure_image
from deploy.image.contents import content_tag
from deploy.image.layout import Layout, write_archive
from deploy.image.pin import OVERLAYS, kustomization, pin
from deploy.image.registry import push

EXAMPLES = """\
examples:
  python -m deploy.image tag                          the tag of this checkout, of what the image is made of
  python -m deploy.image build                        make the image (15 s, 120 MB to download; later 1 s)
  python -m deploy.image push http://127.0.0.1:5000   make it, upload what that registry lacks
  python -m deploy.image archive image.tar            make it, write a file for `docker load`, `k3s ctr images import`
  python -m deploy.image pin                          name this checkout's tag in deploy/kubernetes/overlays

Needs Debian 12 for its packages, and uv; no Docker, no root. This is the image for one machine without a GPU;
production builds deploy/image/Dockerfile.
"""


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.image",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("tag", help="print the tag of this checkout's image")
    build = verbs.add_parser("build", help="make the image; print its directory, an OCI layout")
    pushing = verbs.add_parser("push", help="make the image, upload it to a registry; print its name there")
    pushing.add_argument("url", metavar="URL", help="the registry, like http://127.0.0.1:5000")
    archive = verbs.add_parser("archive", help="make the image, write it as one file that Docker and containerd load")
    archive.add_argument("file", metavar="FILE", type=Path)
    for verb in (build, pushing, archive):
        verb.add_argument(
            "--cache",
            type=Path,
            default=cache_directory(),
            metavar="DIR",
            help="where layers are kept (default: RADSLO_CACHE_DIR, else %(default)s)",
        )
    verbs.add_parser("pin", help=f"make the overlays {' and '.join(OVERLAYS)} deploy this checkout's tag")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    """Do what was asked for.

    Raises:
        ImageError: it cannot be done.
    """
    tag = content_tag()
    match options.verb:
        case "tag":
            print(tag)
        case "build":
            print(ensure_image(options.cache, _say))
        case "push":
            push(ensure_image(options.cache, _say), options.url, IMAGE_NAME, tag, _say)
            print(f"{options.url.rstrip('/').partition('://')[2]}/{IMAGE_NAME}:{tag}")
        case "archive":
            layout = Layout(ensure_image(options.cache, _say))
            write_archive(layout, f"docker.io/library/{IMAGE_NAME}:{tag}", options.file)
            print(f"{IMAGE_NAME}:{tag}")
        case "pin":
            for overlay in OVERLAYS:
                print(f"{'pinned' if pin(tag, overlay) else 'unchanged'}: {kustomization(overlay)} {tag}")


def _say(message: str) -> None:
    print(f"image: {message}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what was asked for; return 2 with one sentence on standard error when that cannot be."""
    try:
        run(parse_arguments(arguments))
    except ImageError as error:
        print(f"image: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("image: interrupted; complete layers are kept, start again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
