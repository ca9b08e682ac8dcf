"""What a run says goes on saying nothing where nobody listens any more, and the run goes on."""

import os
import sys
from typing import Any, TextIO


class _Outlet:
    """A stream that becomes silent when the other end of its pipe is closed, as by `| head`, and that shows
    what its encoding cannot say by escapes."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._silence()
        except UnicodeEncodeError:
            encoding = self._stream.encoding
            return self.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._silence()

    def _silence(self) -> None:
        # What libraries write to the descriptor itself goes there as well.
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self._stream.fileno())
        os.close(nothing)


def open_all() -> None:
    """Puts streams of that kind in the place of the process's output and errors."""
    for name in ("stdout", "stderr"):
        if (stream := getattr(sys, name)) is not None:  # which it is where the process began without one
            setattr(sys, name, _Outlet(stream))
