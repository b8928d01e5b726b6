"""The parser's process, seen from outside: one child for many files, replaced when it dies."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import IO, Self

import msgspec

from adjoin.functions.ingest.documents import Document, Limits, ParseFailure
from adjoin.functions.ingest.scan import Found
from adjoin.functions.ingest.worker import LENGTH, Answer, Refused, Request

_START_S = 60.0
_CHUNK = 1 << 20


class _Died(Exception):
    """The child is gone; ``reason`` says why, for the file it was at."""


class Parser:
    """Parses files one at a time. Use as a context manager; not for several threads at once."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._child: subprocess.Popen[bytes] | None = None
        self._fresh = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def parse(self, source: str, found: Found) -> Document | ParseFailure:
        """One document, or why there is none; never raises for a bad file."""
        limits = self._limits
        request = Request(
            path=str(found.path.absolute()),
            suffix=found.path.suffix.lower(),
            max_file_bytes=limits.max_file_bytes,
            max_text_bytes=limits.max_text_bytes,
            cpu_s=limits.timeout_s,
        )
        try:
            answer = self._ask(request)
        except _Died as error:
            self.close()
            return ParseFailure(source, str(error))
        except BaseException:
            self.close()  # an answer may be on its way: the next file must not get it
            raise
        if isinstance(answer, Refused):
            if answer.exhausted:
                self.close()
            return ParseFailure(source, answer.reason, answer.skipped)
        return Document(source, found.digest, answer.sections)

    def close(self) -> None:
        """End the child, whatever it is doing."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                stream.close()

    def _ask(self, request: Request) -> Answer:
        if self._child is not None and self._child.poll() is not None:
            self.close()  # it died after its last answer; this file is not to blame
        child = self._child or self._start()
        data = msgspec.msgpack.encode(request)
        if child.stdin is None or child.stdout is None:
            raise _Died("the parser could not be started")
        # The first answer may have to wait for the child's imports as well.
        deadline = time.monotonic() + self._limits.timeout_s + (_START_S if self._fresh else 0)
        try:
            child.stdin.write(len(data).to_bytes(LENGTH, "little") + data)
            child.stdin.flush()
        except BrokenPipeError:
            raise _Died(self._cause(child)) from None
        size = int.from_bytes(self._read(child, child.stdout, LENGTH, deadline), "little")
        # Text, with room for the frames around it.
        if size > 8 * self._limits.max_text_bytes + _CHUNK:
            raise _Died("it gave too much text")
        answer = self._read(child, child.stdout, size, deadline)
        self._fresh = False
        return msgspec.msgpack.decode(answer, type=Answer)  # type: ignore[no-any-return]

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "adjoin.functions.ingest.worker"]
        self._child = subprocess.Popen(
            [*command, str(self._limits.memory_mb)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C is for us; we end the child
        )
        self._fresh = True
        return self._child

    def _read(
        self, child: subprocess.Popen[bytes], stream: IO[bytes], size: int, deadline: float
    ) -> bytes:
        data = bytearray()
        while len(data) < size:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([stream], [], [], left)[0]:
                raise _Died(f"parsing took longer than {self._limits.timeout_s:g} s")
            piece = os.read(stream.fileno(), min(size - len(data), _CHUNK))
            if not piece:
                raise _Died(self._cause(child))
            data += piece
        return bytes(data)

    def _cause(self, child: subprocess.Popen[bytes]) -> str:
        code = child.wait()
        if code == -signal.SIGXCPU:
            return f"parsing took longer than {self._limits.timeout_s:g} s"
        if code < 0:
            return f"the parser was ended by signal {-code}: damaged, or too large to parse"
        return f"the parser ended with code {code}"


def parse_files(
    files: Mapping[str, Found], limits: Limits | None = None
) -> Iterator[Document | ParseFailure]:
    """Parse documents in one child, in the order given; blocks, so run it in a thread.

    The child ends with the iterator.
    """
    with Parser(limits) as parser:
        for source, found in files.items():
            yield parser.parse(source, found)
