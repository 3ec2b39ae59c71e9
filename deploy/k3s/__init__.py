"""A real Kubernetes for Docker users: K3s in one container, for as long as one run takes.

None of this has been run: where it was written there was no Docker daemon. What can be proven without one is tested.
"""


class K3sError(Exception):
    """Why there is no K3s cluster, where, and what to do next, in one sentence fit for a user."""
