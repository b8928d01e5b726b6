"""What commands print, and how: text for people, JSON for programs, progress for terminals."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from adjoin.types import Progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

#: Columns of tables that go to a file or a pipe.
_WIDTH = 160
_CONTROLS = {code: None for code in [*range(32), *range(0x7F, 0xA0)] if code not in (9, 10)}


def printable(text: str) -> str:
    """Text of models and documents without what could steer a terminal."""
    return text.translate(_CONTROLS)


def one_line(text: str) -> str:
    return " ".join(printable(text).split())


def shorten(text: str, length: int) -> str:
    flat = one_line(text)
    return flat if len(flat) <= length else flat[: length - 1].rstrip() + "…"


def write(text: str) -> None:
    """Text to stdout at once, without a line break."""
    sys.stdout.write(printable(text))
    sys.stdout.flush()


def note(text: str) -> None:
    """A line beside the result: on stderr."""
    print(printable(text), file=sys.stderr, flush=True)


def plain(value: Any) -> Any:
    """Passages, events, vectors as plain data."""
    import msgspec

    return msgspec.to_builtins(value, enc_hook=_plain_foreign, str_keys=True)


def _plain_foreign(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy arrays and numbers
        return value.tolist()
    return str(value)


def print_json(value: Any) -> None:
    print(json.dumps(plain(value), ensure_ascii=False, indent=2), flush=True)


def console(*, stderr: bool = False) -> Console:
    """rich's console; it honours NO_COLOR and leaves colours out of files and pipes."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[str] = ()
) -> None:
    """A table on stdout; columns named in ``right`` are numbers."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    numbers = frozenset(right)
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(printable(cell) for cell in row))
    made = console()
    # Not printed by rich, which ends the program in its own way when the reader goes away.
    with made.capture() as text:
        made.print(table)
    sys.stdout.writelines(f"{line.rstrip()}\n" for line in text.get().splitlines())
    sys.stdout.flush()


def bytes_text(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit in ("B", "kB") else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError  # the last unit always returns


class Activity:
    """Progress on stderr, and only where that is a terminal.

    Call it with each :class:`Progress`; :meth:`say` names what is waited for. It is gone from the
    screen when it is left or hidden.
    """

    def __init__(self, label: str = "") -> None:
        self._label = label
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._shown = sys.stderr.isatty()

    def __enter__(self) -> Self:
        if self._label:
            self.say(self._label)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.hide()

    def __call__(self, progress: Progress) -> None:
        self._show(progress.label, progress.done, progress.total)

    def say(self, label: str) -> None:
        self._show(label, 0, 0)

    def hide(self) -> None:
        """Clear the line, so that stdout can have the terminal to itself."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None

    def _show(self, label: str, done: int, total: int) -> None:
        if not self._shown:
            return
        text = shorten(label, 60)
        if self._bar is None:
            self._bar = _bar()
            self._bar.start()
            self._task = self._bar.add_task(text, total=total or None)
        if self._task is not None:
            self._bar.update(self._task, description=text, completed=done, total=total or None)


def _bar() -> Bar:
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(30))
    amount = TextColumn("{task.percentage:>3.0f}%")
    return Bar(*columns, amount, TimeElapsedColumn(), console=console(stderr=True), transient=True)
