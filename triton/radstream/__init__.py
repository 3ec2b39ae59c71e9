"""What runs inside a RadStream server next to Triton: preprocessing, CPU stand-ins, the emulated accelerator."""


class RadstreamError(Exception):
    """What is wrong, where, and what to do next, in one sentence fit for a user."""


class BadInputError(RadstreamError):
    """A client's input cannot be used; the message says why and never holds its bytes."""
