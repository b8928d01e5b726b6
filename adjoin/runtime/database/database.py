"""One database, written by one thread in groups."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any, TypeAlias, TypeVar, cast, overload

from sqlalchemy import Connection, CursorResult, Engine, Executable, Row, Select

from adjoin.errors import AdjoinError, StateError
from adjoin.runtime.database.failures import DATABASE_ERRORS, failure, is_fatal
from adjoin.runtime.database.lease import Lease
from adjoin.runtime.database.mark import Mark

_T = TypeVar("_T")
#: A statement, or a function of a connection inside a transaction. A function may be called again
#: when another write of its group failed, so it does nothing but talk to the database.
Work: TypeAlias = Executable | Callable[[Connection], Any]

_MOST_IN_A_GROUP = 512
_COUNT = "UPDATE commits SET number = number + 1 RETURNING number"
_WRITING = {"adjoin_writes": True, "preserve_rowcount": True}

_log = logging.getLogger("adjoin.database")


class Database:
    """Reads and writes; made by :func:`.opening.open_database`.

    **Group commit:** one thread writes. It takes all writes that have come while it wrote the last
    ones into one transaction, which ends with one fsync. A write that comes alone waits for none.
    A group that fails is tried again one by one, so that nobody fails for somebody else's write.

    After an error that leaves it open what is on the disk (SQLite's ``IOERR`` and ``CORRUPT``)
    nothing is written any more: the database has to be opened again, which checks it.
    """

    def __init__(self, engine: Engine, lease: Lease, where: str, mark: Mark | None = None) -> None:
        self.where = where
        self._mark = mark
        self._engine = engine
        self._lease = lease
        self._writing: Connection | None = None
        self._broken: StateError | None = None
        self._queue: queue.SimpleQueue[tuple[Work, Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_all, name="adjoin-database", daemon=True)
        self._closed = False
        self._thread.start()

    @property
    def is_sqlite(self) -> bool:
        return self._engine.dialect.name == "sqlite"

    @property
    def broken(self) -> StateError | None:
        """Why nothing can be written until the database is opened again; None when it can."""
        return self._broken

    # -- writing --

    async def write(self, work: Work) -> Any:
        """Write, and return after the commit: the number of rows of a statement, or what the
        function gave.

        Raises:
            StateError: nothing was written, and why.
        """
        return await asyncio.wrap_future(self._submit(work))

    def write_now(self, work: Work) -> Any:
        """As :meth:`write`, for synchronous code: blocks until the commit."""
        return self._submit(work).result()

    # -- reading --

    @overload
    async def read(self, work: Select[Any]) -> Sequence[Row[Any]]: ...
    @overload
    async def read(self, work: Callable[[Connection], _T]) -> _T: ...
    async def read(self, work: Any) -> Any:
        """The rows of a query, or what a function gives that reads in one transaction; in a thread.

        Raises:
            StateError: it cannot be read.
        """
        return await asyncio.to_thread(self.read_now, work)

    async def look_up(self, work: Select[Any]) -> Sequence[Row[Any]]:
        """As :meth:`read`, for a few rows by their key: of SQLite, where that takes less time than
        a thread, without one."""
        return self.read_now(work) if self.is_sqlite else await self.read(work)

    @overload
    def read_now(self, work: Select[Any]) -> Sequence[Row[Any]]: ...
    @overload
    def read_now(self, work: Callable[[Connection], _T]) -> _T: ...
    def read_now(self, work: Any) -> Any:
        """As :meth:`read`, in the calling thread."""
        try:
            with self._engine.connect() as connection:
                if callable(work):
                    return work(connection)
                return connection.execute(work).all()
        except DATABASE_ERRORS as error:
            raise failure(error, "the service's state cannot be read", self.where) from None

    # -- who writes --

    async def lead(self, patience: float | None = None) -> None:
        """Become the one service on this database, waiting ``patience`` seconds for another one to
        end; None waits for ever. What this process writes from now on is refused when it has lost
        its place.

        Raises:
            StateError: another service has it.
        """
        await self._lease.take(self.write, patience, self.where)

    # -- life --

    def close(self) -> None:
        """Write what was asked for, then close. May be called twice."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            self._thread.join()
            self._lease.release()
            if self._mark is not None:
                self._mark.close()
            self._engine.dispose()

    def _submit(self, work: Work) -> Future[Any]:
        done: Future[Any] = Future()
        if self._closed:
            done.set_exception(StateError("the service's state is closed", where=self.where))
        else:
            self._queue.put((work, done))
        return done

    # -- the thread --

    def _write_all(self) -> None:
        more = True
        while more:
            group: list[tuple[Work, Future[Any]]] = []
            item = self._queue.get()
            while item is not None:
                group.append(item)
                if len(group) == _MOST_IN_A_GROUP or self._queue.empty():
                    break
                item = self._queue.get()
            more = item is not None
            self._write_group(group)
        if self._writing is not None:
            self._writing.close()

    def _write_group(self, group: Sequence[tuple[Work, Future[Any]]]) -> None:
        try:
            results = self._commit([work for work, _ in group])
        except Exception as error:  # noqa: BLE001 - whatever the functions of the group raise
            if len(group) > 1:
                for each in group:
                    self._write_group([each])
                return
            _settle(group[0][1], error=self._failed(error))
        else:
            for (_, done), result in zip(group, results, strict=True):
                _settle(done, result)

    def _commit(self, works: Sequence[Work]) -> list[Any]:
        if not works:
            return []
        if self._broken is not None:
            raise self._broken
        connection = self._connection()
        try:
            with connection.begin():
                results = [_done(connection, work) for work in works]
                number = 0 if self._mark is None else _counted(connection)
        except BaseException:
            if self.is_sqlite:  # a commit that failed may leave its transaction, and so its lock
                connection.connection.rollback()
            raise
        if self._mark is not None:
            self._mark.reach(number)
        return results

    def _connection(self) -> Connection:
        if self._writing is None or self._writing.invalidated:
            if self._writing is not None:
                self._writing.close()
            connection = self._engine.connect().execution_options(**_WRITING)
            self._writing = connection
            self._lease.renewed(connection, self.where)
        return self._writing

    def _failed(self, error: Exception) -> Exception:
        if isinstance(error, DATABASE_ERRORS):
            found = failure(error, "the service's state cannot be written", self.where)
            if is_fatal(error):
                self._broken = found
                _log.critical("nothing is written any more: %s", found)
            return found
        if not isinstance(error, AdjoinError):
            _log.error("a write failed", exc_info=error)
        return error


def _counted(connection: Connection) -> int:
    return int(connection.exec_driver_sql(_COUNT).scalar_one())


def _done(connection: Connection, work: Work) -> Any:
    if callable(work):
        return work(connection)
    return cast("CursorResult[Any]", connection.execute(work)).rowcount


def _settle(done: Future[Any], result: Any = None, error: Exception | None = None) -> None:
    try:
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)
    except InvalidStateError:
        pass  # whoever asked does not wait any more
