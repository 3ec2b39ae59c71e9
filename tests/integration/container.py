"""The image's root file system as a container has it: user 1000, read-only, /tmp and /dev/shm in memory.

Namespaces and chroot in place of a container runtime, so it needs root but nothing installed. The network is the
machine's.
"""

import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from deploy.embedded.ports import choose_free

_READY_S = 120.0
_ENTER = """\
set -e
root=$1; shift
mount --bind "$root" "$root"; mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777,size=256m tmpfs "$root/tmp"
mount -t tmpfs dev "$root/dev"; mkdir "$root/dev/shm"
for device in null zero random urandom; do
    : > "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"
done
mount -t tmpfs -o mode=1777,size=512m shm "$root/dev/shm"
exec chroot --userspec=1000:1000 --groups= "$root" "$@"
"""


@dataclass(frozen=True, slots=True)
class Container:
    """A running one."""

    process: subprocess.Popen[bytes]
    address: str
    grpc_port: int
    http_port: int
    log: Path

    def fetch(self, path: str) -> str:
        """Ask the server over HTTP."""
        with urllib.request.urlopen(f"http://{self.address}:{self.http_port}{path}", timeout=10) as answer:
            text: str = answer.read().decode()
        return text

    def server_pid(self) -> int:
        """Return the process that is 1 in the container."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return int(children.split()[0])

    def stop(self) -> int:
        """Stop it as Kubernetes does; return the exit code."""
        os.kill(self.server_pid(), signal.SIGTERM)
        return self.process.wait(60)

    def until_ready(self) -> None:
        deadline = time.monotonic() + _READY_S
        while not self._ready():
            assert self.process.poll() is None, f"the container ended:\n{self.log.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"not ready after {_READY_S:g} s:\n{self.log.read_text()[-3000:]}"
            time.sleep(0.1)

    def _ready(self) -> bool:
        try:
            self.fetch("/v2/models/radstream_ensemble/ready")
        except OSError:  # refused, or not ready yet
            return False
        return True


def why_not() -> str | None:
    """Return why this machine cannot run one, if so."""
    if os.geteuid() != 0:
        return "entering the image's root file system needs root"
    if shutil.which("unshare") is None:
        return "unshare (util-linux) is not on PATH"
    tried = subprocess.run(["unshare", "-m", "-p", "-i", "-f", "true"], capture_output=True, text=True, check=False)
    return f"namespaces cannot be made here: {tried.stderr.strip()}" if tried.returncode else None


@contextmanager
def container(root: Path, log: Path, *command: str) -> Iterator[Container]:
    """Run the command, then the ports, in the image; the container is gone after the `with` block."""
    address = "127.0.0.1"
    http, grpc, metrics, gpu = choose_free(4, [address])
    ports = [f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}", f"--gpu-metrics-port={gpu}"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *("unshare", "-m", "-p", "-i", "-f", "--kill-child", "sh", "-c", _ENTER, "enter", str(root)),
                *(*command, "--address", address, *ports),
            ],
            env={"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "POD_NAME": "triton-in-image"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Container(process, address, grpc, http, log)
    finally:
        if process.poll() is None:
            # Not by --kill-child alone: the kernel forgets that wish when chroot changes the user.
            firsts = psutil.Process(process.pid).children()
            for first in firsts:
                first.kill()  # and the namespace with its first process
            process.kill()
            process.wait()
            assert psutil.wait_procs(firsts, 30)[1] == []
