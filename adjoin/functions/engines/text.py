"""Text that grows, is cut at stop strings, and is only sent once it can no longer be cut."""

from __future__ import annotations


class StopText:
    """The text of one sample.

    :meth:`extend` returns what may be shown; a tail that could be the start of a stop string stays
    back until more text decides, or :meth:`flush`.
    """

    def __init__(self, stop: tuple[str, ...]) -> None:
        self._stop = stop
        self._text = ""
        self._sent = 0
        self.stopped = False

    @property
    def text(self) -> str:
        """Everything so far, without the stop string and what follows it."""
        return self._text

    def extend(self, piece: str) -> str:
        start = max(0, len(self._text) - max(map(len, self._stop), default=0) + 1)
        self._text += piece
        cut = min(
            (at for stop in self._stop if (at := self._text.find(stop, start)) >= 0), default=-1
        )
        if cut >= 0:
            self._text = self._text[:cut]
            self.stopped = True
            return self.flush()
        return self._send(len(self._text) - self._held())

    def flush(self) -> str:
        return self._send(len(self._text))

    def _send(self, end: int) -> str:
        piece = self._text[self._sent : end]
        self._sent = max(self._sent, end)
        return piece

    def _held(self) -> int:
        """Length of the longest tail that a stop string starts with."""
        return max(
            (
                size
                for stop in self._stop
                for size in range(1, min(len(stop), len(self._text) + 1))
                if self._text.endswith(stop[:size])
            ),
            default=0,
        )
