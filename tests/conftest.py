"""What holds for all tests."""

from hypothesis import settings

# A property says what is true, not how fast: on a busy machine any example may take a second.
settings.register_profile("radslo", deadline=None)
settings.load_profile("radslo")
