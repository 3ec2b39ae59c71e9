"""One emulated accelerator per server: a first-in first-out queue of batches whose busy time is exact.

The models of a server run in processes of their own but share one device, so its state is a small mapped file under
an `flock`. A batch starts when all earlier ones have ended; its service time comes from the table in the same file.
Nothing needs to run for the device to work: `busy_until_ns` is known as soon as a batch is submitted.

Run as a program it shows the state, or changes service times while the server runs (a device that became slow):

    python -m radstream.device FILE
    python -m radstream.device FILE classifier=200+50,detector=600+100
"""

import fcntl
import mmap
import os
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from radstream import RadstreamError
from radstream.service_time import MODELS, ServiceTime, parse_device_times

_MAGIC = b"RADDEV01"
_LAYOUT = struct.Struct(f"<8s4q{2 * len(MODELS)}d")
_UNSET = -1.0


@dataclass(frozen=True, slots=True)
class DeviceState:
    """What the file says at one instant. All times are nanoseconds of the monotonic clock."""

    busy_until_ns: int
    busy_total_ns: int
    batches: int
    items: int
    times: tuple[ServiceTime | None, ...]
    """One per entry of MODELS; None until the model has been loaded or a time was given."""

    def elapsed_busy_ns(self, now_ns: int) -> int:
        """Busy time up to `now_ns`: what was ever submitted, less what still lies ahead.

        Exact, because the queue never idles while work waits: all of [now, busy_until] is busy.
        """
        return self.busy_total_ns - max(0, self.busy_until_ns - now_ns)

    def submit(self, model: str, items: int, now_ns: int) -> Self:
        """Return the state after a batch has joined the queue at `now_ns`; it ends at the new `busy_until_ns`.

        Raises:
            RadstreamError: no service time is known for the model.
        """
        service = self.times[MODELS.index(model)]
        if service is None:
            message = f"no emulated device time for {model}: set `emulated_device_ms` in its config.pbtxt"
            raise RadstreamError(message)
        service_ns = service.batch_ns(items)
        return replace(
            self,
            busy_until_ns=max(now_ns, self.busy_until_ns) + service_ns,
            busy_total_ns=self.busy_total_ns + service_ns,
            batches=self.batches + 1,
            items=self.items + items,
        )

    def with_times(self, times: Mapping[str, ServiceTime]) -> Self:
        """Return the state with these service times in place of the present ones."""
        return replace(self, times=tuple(times.get(model, old) for model, old in zip(MODELS, self.times, strict=True)))


IDLE = DeviceState(busy_until_ns=0, busy_total_ns=0, batches=0, items=0, times=(None,) * len(MODELS))


class Device:
    """The device file, opened; every change is made under its lock."""

    def __init__(self, path: Path) -> None:
        """Open an existing device file.

        Raises:
            RadstreamError: there is no such file, or it is something else.
        """
        try:
            self._file = path.open("r+b", buffering=0)
        except OSError as error:
            message = f"emulated device file {path}: {error.strerror}; serve.py creates it when the server starts"
            raise RadstreamError(message) from error
        if os.fstat(self._file.fileno()).st_size != _LAYOUT.size or self._file.read(len(_MAGIC)) != _MAGIC:
            self._file.close()
            message = f"{path} is not an emulated device file of this version; remove it and start the server again"
            raise RadstreamError(message)
        self._map = mmap.mmap(self._file.fileno(), _LAYOUT.size)

    @classmethod
    def create(cls, path: Path, times: Mapping[str, ServiceTime]) -> Self:
        """Make (or reset) the file with an idle device, then open it."""
        path.write_bytes(_packed(IDLE.with_times(times)))
        return cls(path)

    def read(self) -> DeviceState:
        """Return the state as it is now."""
        with self._locked(fcntl.LOCK_SH):
            return self._load()

    def submit(self, model: str, items: int) -> int:
        """Queue a batch and return when it ends, in nanoseconds of the monotonic clock."""
        with self._locked(fcntl.LOCK_EX):
            state = self._load().submit(model, items, time.monotonic_ns())
            self._map[:] = _packed(state)
        return state.busy_until_ns

    def set_times(self, times: Mapping[str, ServiceTime]) -> None:
        """Change service times; batches already queued keep theirs."""
        with self._locked(fcntl.LOCK_EX):
            self._map[:] = _packed(self._load().with_times(times))

    def set_default_time(self, model: str, time_of_model: ServiceTime) -> None:
        """Give a model its configured time, unless one was set when the server was started."""
        with self._locked(fcntl.LOCK_EX):
            state = self._load()
            if state.times[MODELS.index(model)] is None:
                self._map[:] = _packed(state.with_times({model: time_of_model}))

    def close(self) -> None:
        """Unmap and close the file."""
        self._map.close()
        self._file.close()

    @contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        fcntl.flock(self._file, kind)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _load(self) -> DeviceState:
        _, busy_until_ns, busy_total_ns, batches, items, *numbers = _LAYOUT.unpack(self._map)
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        times = tuple(None if fixed == _UNSET else ServiceTime(fixed, per_item) for fixed, per_item in pairs)
        return DeviceState(busy_until_ns, busy_total_ns, batches, items, times)


def sleep_until(end_ns: int) -> None:
    """Sleep until the monotonic clock shows `end_ns`; return at once when it has passed."""
    remaining_ns = end_ns - time.monotonic_ns()
    if remaining_ns > 0:
        time.sleep(remaining_ns / 1e9)


def _packed(state: DeviceState) -> bytes:
    numbers = [
        number
        for service in state.times
        for number in ((_UNSET, _UNSET) if service is None else (service.fixed_ms, service.per_item_ms))
    ]
    return _LAYOUT.pack(_MAGIC, state.busy_until_ns, state.busy_total_ns, state.batches, state.items, *numbers)


def main(arguments: list[str]) -> int:
    """Show a device file, or change its service times."""
    if not 1 <= len(arguments) <= 2 or arguments[0].startswith("-"):  # noqa: PLR2004 - FILE and TIMES
        print(__doc__)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    try:
        device = Device(Path(arguments[0]))
        if arguments[1:]:
            device.set_times(parse_device_times(arguments[1]))
        state = device.read()
    except RadstreamError as error:
        print(error, file=sys.stderr)
        return 2
    busy_s = state.elapsed_busy_ns(time.monotonic_ns()) / 1e9
    times = ", ".join(f"{model}={service}" for model, service in zip(MODELS, state.times, strict=True))
    print(f"busy {busy_s:.3f} s, {state.batches} batches, {state.items} items; {times}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
