"""How a command ends: one line on stderr and a documented exit code, never a traceback."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import typer

from adjoin.errors import AdjoinError, Cancelled, to_wire

#: The codes and what they mean; those of errors are :attr:`AdjoinError.exit_code`.
EXIT_CODES: dict[int, str] = {
    0: "success",
    1: "an error of adjoin itself, or `eval --verify` found answers that differ",
    2: "wrong command line, or a wrong workflow (its text, stages or types)",
    3: "wrong input values or settings",
    4: "a named thing does not exist, or exists and differs",
    5: "not authorised",
    6: "a quota is used up, or there is too much load",
    7: "a deadline passed",
    8: "a stage, an engine or a user's function failed",
    9: "a model cannot be had or is refused",
    10: "a collection or a stored value is damaged or unavailable",
    11: "a value could not be moved between processes",
    12: "no worker of the cluster is as a stage demands",
    130: "cancelled (Ctrl-C)",
    141: "the reader of the output went away",
    143: "terminated (SIGTERM)",
}
_USAGE = 2
_BROKEN_PIPE = 141
_TERMINATED = 143


def guarded(arguments: Sequence[str]) -> int:
    """Run the command line; whatever it raises becomes a line and a code."""
    debug = bool(os.environ.get("ADJOIN_DEBUG"))
    if not debug:
        _quiet()
    try:
        with _terminating():
            code = _invoke(arguments)
            sys.stdout.flush()
            return code
    except typer.Exit as ended:
        return ended.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return _fail(Cancelled("cancelled"), arguments, debug)
    except BrokenPipeError:
        _drop_output()
        return _BROKEN_PIPE
    except typer.TyperException as error:
        return _usage(error, arguments)
    except AdjoinError as error:
        return _fail(error, arguments, debug)
    except Exception as error:  # noqa: BLE001 - the last resort: a user never sees a traceback
        return _fail(_internal(error), arguments, debug)


def _invoke(arguments: Sequence[str]) -> int:
    from adjoin.cli.app import app

    # Not app(): that catches and prints errors in its own way.
    command = typer.main.get_command(app)
    with command.make_context("adjoin", list(arguments)) as context:
        result = command.invoke(context)
    return result if isinstance(result, int) else 0


def _quiet() -> None:
    """Leave stderr to what this program has to say."""
    warnings.filterwarnings("ignore")
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    logging.getLogger("tornado").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


@contextmanager
def _terminating() -> Iterator[None]:
    """SIGTERM leaves through the context managers, as Ctrl-C does, so that nothing stays behind."""

    def leave(_signal: int, _frame: FrameType | None) -> None:
        raise SystemExit(_TERMINATED)

    try:
        before = signal.signal(signal.SIGTERM, leave)
    except ValueError:  # not the main thread: whoever owns that decides
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _internal(error: Exception) -> AdjoinError:
    wrapped = AdjoinError(
        f"internal error: {type(error).__name__}: {error}",
        hint="ADJOIN_DEBUG=1 shows where; please report it",
    )
    wrapped.__cause__ = error
    return wrapped


def _usage(error: typer.TyperException, arguments: Sequence[str]) -> int:
    # typer's base of command line errors declares no more than that it is an exception
    context: Any = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "adjoin"
    message = getattr(error, "format_message", lambda: str(error))()
    if "--json" in arguments:
        facts: dict[str, Any] = {"message": message, "where": path, "hint": "", "details": {}}
        _print_json({"error": {"code": "usage", **facts}})
    if "\n" in message:  # no command was given: what there is, is the message
        print(message, file=sys.stderr)
    else:
        _line(f"error: {message.rstrip('.')}; see {path} --help")
    return _USAGE


def _fail(error: AdjoinError, arguments: Sequence[str], debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    if "--json" in arguments:
        _print_json({"error": to_wire(error)})
    _line(str(error) if isinstance(error, Cancelled) else f"error: {error}")
    return error.exit_code


def _print_json(value: Any) -> None:
    try:
        print(json.dumps(value, ensure_ascii=False), flush=True)
    except BrokenPipeError:
        _drop_output()


def _line(text: str) -> None:
    from adjoin.cli.terminal import one_line

    try:
        print(one_line(text), file=sys.stderr, flush=True)
    except BrokenPipeError:
        _drop_output()


def _drop_output() -> None:
    """Keep the interpreter's last flush from failing on the closed pipe again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            os.dup2(nowhere, stream.fileno())
        except (OSError, ValueError):  # no descriptor of its own, as under a test
            continue
