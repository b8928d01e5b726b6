"""The error tree.

Every error a user can meet derives from :class:`AdjoinError` and reads as one line: what happened,
where, why, and what to do. Errors cross process boundaries as plain data (:func:`to_wire`,
:func:`from_wire`), never as pickles.

    AdjoinError
    ├── DefinitionError            the workflow is wrong
    │   ├── GraphError               its stages, types or references
    │   └── YamlError                its text, with file, line and column
    ├── PlanError                  no worker of the cluster is as the workflow demands
    ├── InputError                 the caller's values are wrong
    ├── NotFound                   a named thing does not exist
    ├── Conflict                   a named thing exists and differs
    ├── AuthError
    ├── QuotaExceeded              the caller's limit
    ├── Overloaded                 our limit
    ├── DeadlineExceeded
    ├── Cancelled
    ├── StageError                 a stage failed: run, stage, attempt, cause
    ├── EngineError                a replica or its engine failed
    ├── ModelError                 a model's files cannot be had or are refused
    ├── StateError                 a collection or a stored value is damaged or unavailable
    └── TransportError             a value could not be moved
"""

from __future__ import annotations

from typing import Any, ClassVar


class AdjoinError(Exception):
    """Base of all errors.

    Args:
        message: what happened and why, without a final full stop.
        where: the file, stage, model or address concerned.
        hint: what to do about it.
        details: further facts, JSON-encodable; they survive the wire.
    """

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 1
    #: Whether the same request may succeed when it is tried again elsewhere or later.
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, where: str = "", hint: str = "", **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint
        self.details = details

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}; {self.hint}" if self.hint else text

    def __reduce__(self) -> tuple[Any, ...]:
        return (from_wire, (to_wire(self),))


class DefinitionError(AdjoinError):
    code = "definition"
    exit_code = 2


class GraphError(DefinitionError):
    code = "graph"


class YamlError(DefinitionError):
    """The text of a workflow or settings file is wrong.

    ``details`` hold ``file``, ``line`` and ``column`` (both counted from one).
    """

    code = "yaml"

    @classmethod
    def at(cls, file: str, line: int, column: int, message: str, hint: str = "") -> YamlError:
        where = f"{file}:{line}:{column}"
        return cls(message, where=where, hint=hint, file=file, line=line, column=column)


class PlanError(AdjoinError):
    """Nowhere to run a stage. ``details`` hold ``stage`` and ``constraint``."""

    code = "plan"
    exit_code = 12


class InputError(AdjoinError):
    code = "input"
    exit_code = 3


class NotFound(AdjoinError):
    code = "not_found"
    exit_code = 4


class Conflict(AdjoinError):
    code = "conflict"
    exit_code = 4


class AuthError(AdjoinError):
    code = "auth"
    exit_code = 5


class QuotaExceeded(AdjoinError):
    code = "quota"
    exit_code = 6


class Overloaded(AdjoinError):
    code = "overloaded"
    exit_code = 6
    retryable = True


class DeadlineExceeded(AdjoinError):
    code = "deadline"
    exit_code = 7


class Cancelled(AdjoinError):
    code = "cancelled"
    exit_code = 130


class StageError(AdjoinError):
    """A stage failed for good. ``details`` hold ``run``, ``stage``, ``attempt`` and ``cause``."""

    code = "stage"
    exit_code = 8

    @classmethod
    def of(
        cls, run: str, stage: str, attempt: int, cause: AdjoinError, *, tries: int | None = None
    ) -> StageError:
        """``tries``: how often it was tried, when ``attempt`` did not begin at 1."""
        tries = attempt if tries is None else tries
        error = cls(
            f"{cause} after {tries} attempts" if tries > 1 else str(cause),
            where=f"stage {stage!r}",
            run=run,
            stage=stage,
            attempt=attempt,
            cause=cause.code,
        )
        error.__cause__ = cause
        return error


class EngineError(AdjoinError):
    code = "engine"
    exit_code = 8
    retryable = True


class ModelError(AdjoinError):
    code = "model"
    exit_code = 9


class StateError(AdjoinError):
    code = "state"
    exit_code = 10


class TransportError(AdjoinError):
    code = "transport"
    exit_code = 11
    retryable = True


class FunctionError(AdjoinError):
    """User code raised. ``details['type']`` is the exception's class name."""

    code = "function"
    exit_code = 8


def root_cause(error: AdjoinError) -> AdjoinError:
    """What made a stage fail, below however many stages that failed because of it."""
    while isinstance(error, StageError) and isinstance(error.__cause__, AdjoinError):
        error = error.__cause__
    return error


def _tree(root: type[AdjoinError]) -> dict[str, type[AdjoinError]]:
    found = {root.code: root} if "code" in vars(root) else {}  # not those that inherit it
    for child in root.__subclasses__():
        found.update(_tree(child))
    return found


def to_wire(error: BaseException) -> dict[str, Any]:
    """Plain data for any exception; foreign exceptions become :class:`FunctionError`."""
    if not isinstance(error, AdjoinError):
        error = wrap(error)
    return {
        "code": error.code,
        "message": error.message,
        "where": error.where,
        "hint": error.hint,
        "details": {k: v for k, v in error.details.items() if _is_plain(v)},
    }


def from_wire(data: dict[str, Any]) -> AdjoinError:
    """The inverse of :func:`to_wire`; an unknown code becomes a plain :class:`AdjoinError`."""
    kind = _tree(AdjoinError).get(data.get("code", ""), AdjoinError)
    return kind(
        str(data.get("message", "")),
        where=str(data.get("where", "")),
        hint=str(data.get("hint", "")),
        **{str(k): v for k, v in dict(data.get("details") or {}).items()},
    )


def wrap(error: BaseException) -> AdjoinError:
    """An :class:`AdjoinError` for any exception, keeping ours as they are."""
    if isinstance(error, AdjoinError):
        return error
    text = str(error).strip()
    name = type(error).__name__
    wrapped = FunctionError(f"{name}: {text}" if text else name, type=name)
    wrapped.__cause__ = error
    return wrapped


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)
