"""Requests to stop a run, by SIGTERM or SIGINT."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from triptych import launchers


class Stopped(KeyboardInterrupt):
    """A signal asked the run to stop, and what had to be saved is saved.

    Not an Exception, because libraries, and `checkpoints.writing`, take those for failures of their own.

    Args:
        number: the signal's number.
    """

    def __init__(self, number: int):
        self.number = number
        super().__init__(signal.Signals(number).name)


def end_at_once() -> None:
    """From here on a signal raises `Stopped` wherever the run is; see `Stop.waits` for where it does not."""
    signal.signal(signal.SIGTERM, _raise_stopped)
    signal.signal(signal.SIGINT, _raise_stopped)


def _raise_stopped(number: int, frame: Any) -> None:
    raise Stopped(number)


class Stop:
    """A request to stop that waits for a safe point.

    Args:
        world: the processes, which must stop together.

    Attributes:
        number: the signal's number; 0 if there was none.
    """

    def __init__(self, world: launchers.World) -> None:
        self.world, self.number = world, 0
        self._since = 0.0

    def _receive(self, number: int, frame: Any) -> None:
        """Handles a signal: the second ends the process at once, as if it had no handler."""
        if self.number and time.monotonic() - self._since < launchers.seconds_of_echo():
            return
        if self.number:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.number, self._since = number, time.monotonic()
        # Neither print nor a log: the signal may have interrupted either
        with suppress(OSError):  # nobody may be listening
            os.write(2, f"\n{signal.Signals(number).name}: stopping at the next step or batch.\n".encode())

    def check(self) -> None:
        """A safe point, which all processes must come to.

        Raises:
            Stopped: if any process was asked to.
        """
        # Only what the others were told as well: this process's number may change meanwhile.
        if number := max(self.world.gather([self.number])):
            raise Stopped(int(number))

    @contextmanager
    def waits(self, then: Callable[[], None]) -> Iterator[None]:
        """A block within which signals wait for the next safe point; elsewhere they end the run at once.

        Args:
            then: what to do when `Stopped` leaves the block, such as saving.
        """
        before = {number: signal.signal(number, self._receive) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        except Stopped:
            then()
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
