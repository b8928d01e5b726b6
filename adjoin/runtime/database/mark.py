"""How many writes of SQLite's database were acknowledged, in a file beside it.

SQLite reads its write-ahead log up to the first frame whose checksum is wrong, which is how a write
that was cut off by a crash is dropped (https://www.sqlite.org/fileformat2.html#wal_file_format). A
log that lost its tail later, or in which a bit flipped, looks the same: what was committed behind
that place is gone, and SQLite says nothing. The database counts its commits in a row of its own,
and the mark says how far that was when somebody was last told of one.

The mark is not synced: after a loss of power it may be behind the database, never before it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from adjoin.errors import StateError

_DIGITS = 20


class Mark:
    """For the thread that writes. ``path`` is made when there is none; raises OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(path, flags, 0o600)
        self._reached = self._read()

    def check(self, number: int, where: str) -> None:
        """Raise :class:`StateError` when the database has fewer commits than were acknowledged.

        Args:
            number: of its commits, read after the mark was.
        """
        if number < self._reached:
            raise StateError(
                f"the service's state is damaged: its last {self._reached - number} writes "
                "were acknowledged, and are gone",
                where=where,
                hint="its log (-wal) was cut, changed or removed: restore a backup; to go on "
                f"without them, or with a backup that you restored, delete {self.path}",
            )

    def reach(self, number: int) -> None:
        """So many commits are on the disk. What cannot be written down is not detected later."""
        if number > self._reached:
            self._reached = number
            with contextlib.suppress(OSError):
                os.pwrite(self._file, b"%0*d\n" % (_DIGITS, number), 0)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _read(self) -> int:
        """0 where nothing legible is: of a file that never reached the disk, zeros may be left."""
        try:
            return int(os.pread(self._file, _DIGITS, 0))
        except ValueError:
            return 0
