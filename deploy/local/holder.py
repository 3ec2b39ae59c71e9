"""The first process of a cluster's namespaces; run by its path, it needs the standard library only.

Makes the namespaces, tells its process id on standard output, sets up what the cluster's processes will see, tells
`ready`, then does what a first process must: it reaps whatever was left behind. When it is killed, the kernel kills
every process in its process namespace and dissolves mounts, interfaces and addresses with the last of them.
"""

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET = 0x00020000, 0x20000000, 0x40000000
INSIDE = Path("/run/radslo")
NODE_ADDRESS = "10.98.0.1"

# The kubelet sets these for the whole machine. It finds them set, in files of this mount namespace.
SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
HIDDEN = ("/run", "/var/lib", "/var/log")


def main() -> None:
    state = Path(sys.argv[1])
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET) != 0:
        sys.exit(f"no namespaces: {os.strerror(ctypes.get_errno())}")
    first = os.fork()
    if first:
        print(first, flush=True)
        return
    os.setsid()
    os.chdir("/")
    _mount(state)
    _address()
    print("ready", flush=True)
    if not sys.stdin.readline():
        return  # whoever started us is gone, and nobody would ever find us
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    _reap()


def _mount(state: Path) -> None:
    """Show the cluster's processes its own /run, /var/lib, /var/log, /proc and six sysctls.

    First cut off from the machine, so that no mount gets out; then shared among the cluster's own processes, as the
    kubelet expects.
    """
    _run("mount", "--make-rprivate", "/")
    _run("mount", "--make-rshared", "/")
    _run("mount", "-t", "proc", "proc", "/proc")
    for directory in HIDDEN:
        _run("mount", "-t", "tmpfs", "-o", "mode=0755,size=512m", "radslo", directory)
    INSIDE.mkdir()
    _run("mount", "--bind", str(state), str(INSIDE))
    for name, value in SYSCTLS.items():
        shield = INSIDE / "sysctl" / name.replace("/", "-")
        shield.parent.mkdir(exist_ok=True)
        shield.write_text(f"{value}\n")
        if Path(f"/proc/sys/{name}").exists():  # some kernels are built without keys
            _run("mount", "--bind", str(shield), f"/proc/sys/{name}")


def _address() -> None:
    """The node's own address; loopback is refused as one. There is no route out."""
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "address", "add", f"{NODE_ADDRESS}/32", "dev", "lo")


def _run(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}: {result.stderr.strip()}")


def _reap() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        signal.sigwait({signal.SIGCHLD})
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass


if __name__ == "__main__":
    main()
