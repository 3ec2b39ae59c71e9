"""Starts one program inside a cluster's namespaces; run by its path, it needs the standard library only.

    spawn.py HOLDER_PID LOG PROGRAM [ARGUMENT ...]

Prints the process id that the program has for the machine. The environment is passed on as it is. The program becomes
a child of the namespaces' first process, so nobody here has to wait for it.
"""

import ctypes
import os
import sys

KINDS = ("net", "mnt", "pid")


def main() -> None:
    holder, log, *command = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    # All of them are opened first: in the other mount namespace /proc is another one.
    for namespace in [os.open(f"/proc/{holder}/ns/{kind}", os.O_RDONLY) for kind in KINDS]:
        if libc.setns(namespace, 0) != 0:
            sys.exit(f"cannot enter the namespaces of process {holder}: {os.strerror(ctypes.get_errno())}")
        os.close(namespace)
    child = os.fork()
    if child:
        print(child, flush=True)
        return
    os.setsid()
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        os._exit(127)


if __name__ == "__main__":
    main()
