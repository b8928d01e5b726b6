"""The parser's process: reads requests, parses one file after another, writes the sections.

A message is its length in eight bytes and that many bytes of msgpack. Memory and CPU time are
limited by the system, so that a hostile file can end this process and nothing else.
"""

from __future__ import annotations

import math
import os
import resource
import sys
from pathlib import Path
from typing import BinaryIO, TypeAlias

import msgspec

from adjoin.functions.ingest.documents import Section
from adjoin.functions.ingest.formats import Unreadable, parse

LENGTH = 8


class Request(msgspec.Struct, frozen=True, array_like=True):
    path: str
    suffix: str
    max_file_bytes: int
    max_text_bytes: int
    cpu_s: float


class Parsed(msgspec.Struct, frozen=True, array_like=True, tag=True):
    sections: tuple[Section, ...]


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """``exhausted`` says that this process may lack memory for the next file."""

    reason: str
    skipped: bool
    exhausted: bool = False


Answer: TypeAlias = Parsed | Refused


def main(memory_mb: int) -> None:
    """Serve until the end of the input."""
    import markdown_it  # noqa: F401 - before the limits, which are for documents
    import pypdfium2  # noqa: F401
    import selectolax.lexbor  # noqa: F401

    requests, answers = _take_streams()
    _limit(memory_mb)
    decoder = msgspec.msgpack.Decoder(Request)
    while header := requests.read(LENGTH):
        request = decoder.decode(requests.read(int.from_bytes(header, "little")))
        data = msgspec.msgpack.encode(_answer(request))
        answers.write(len(data).to_bytes(LENGTH, "little") + data)
        answers.flush()


def _answer(request: Request) -> Answer:
    _limit_cpu(request.cpu_s)
    try:
        with Path(request.path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > request.max_file_bytes:
                return Refused(f"the file is larger than {request.max_file_bytes} bytes", False)
            data = file.read(size)
        sections = parse(data, request.suffix)
    except Unreadable as error:
        return Refused(error.reason, error.skipped)
    except MemoryError:
        return Refused("it needs too much memory to parse", False, exhausted=True)
    except RecursionError:
        return Refused("it is nested too deeply", False)
    except OSError as error:
        return Refused(f"it cannot be read: {error.strerror or error}", False)
    except Exception as error:  # noqa: BLE001 - a parser may raise anything for a bad file
        # Libraries in C have names of their own for a lack of memory.
        reason = f"it cannot be parsed: {type(error).__name__}: {error}"
        return Refused(reason, False, exhausted=True)
    if sum(len(section.text) for section in sections) > request.max_text_bytes:
        return Refused(f"its text is longer than {request.max_text_bytes} characters", False)
    return Parsed(tuple(sections))


def _take_streams() -> tuple[BinaryIO, BinaryIO]:
    """The pipes, out of the way of libraries that print."""
    answers = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    return sys.stdin.buffer, answers


def _limit(memory_mb: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory = pages * resource.getpagesize() + memory_mb * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit_cpu(seconds: float) -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = usage.ru_utime + usage.ru_stime
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used + seconds), hard))


if __name__ == "__main__":
    main(int(sys.argv[1]))
