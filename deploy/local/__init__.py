"""A real Kubernetes on this one machine: `radslo cluster up`, `status`, `exec`, `down`.

Its processes live in a network, a mount and a process namespace of their own (`holder`). So nothing clashes with
the machine or with a second cluster, there is no route out, and when the namespace's first process ends, the kernel
ends all others and takes their mounts, interfaces and addresses with them.
"""


class LocalClusterError(Exception):
    """What is wrong with the local cluster, where, and what to do next, in one sentence fit for a user."""
