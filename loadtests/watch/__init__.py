"""The watcher: an own process that records what the servers say of themselves while the load runs.

``python -m loadtests.watch DIRECTORY`` reads the target as one JSON line from its standard input, prints ``ready``
after the first round of samples, and ends, after a last round, when its standard input closes.
"""
