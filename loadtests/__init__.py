"""Drives the load, watches the servers, writes one recording."""

import os

# Before anything here loads grpc: with its fork support on, one child in four that a load process starts (watcher,
# null server) is lost between fork and exec.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
