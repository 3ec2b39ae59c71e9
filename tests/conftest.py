"""What holds for all tests."""

import os

from hypothesis import settings

# A property says what is true, not how fast: on a busy machine any example may take a second.
settings.register_profile("radslo", deadline=None)
settings.load_profile("radslo")

# Tests start processes while grpcio's threads run; with its fork support on, a child may be lost before its exec.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
