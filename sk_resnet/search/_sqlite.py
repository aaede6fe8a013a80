"""Optuna's storage in SQLite, whose transactions exclude each other."""

import time
from typing import Any

from optuna.storages import RDBStorage
from sqlalchemy import Connection, event
from sqlalchemy.exc import IntegrityError, OperationalError

# Which many workers may share; SQLite itself waits for 5.
SECONDS_FOR_LOCK = 60
SECONDS_BETWEEN_TRIES = 0.5


class SQLiteStorage(RDBStorage):
    """`RDBStorage` in which a trial of the queue goes to one worker, and no number twice.

    Optuna reads a row ``FOR UPDATE`` before it changes it. SQLite has no such clause, so
    that two workers can both find a trial waiting. Here a transaction takes the database's
    lock when it begins, not when it first writes.
    """

    def __init__(self, url: str, **kwargs: Any) -> None:
        waits = {"connect_args": {"timeout": SECONDS_FOR_LOCK}}
        for is_last in (False, False, False, False, True):
            try:
                super().__init__(url, engine_kwargs=waits, **kwargs)
                break
            except (IntegrityError, OperationalError):
                # Another worker makes the tables at the same time.
                if is_last:
                    raise
                time.sleep(SECONDS_BETWEEN_TRIES)
        self._lock_at_begin()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._lock_at_begin()

    def _lock_at_begin(self) -> None:
        event.listen(self.engine, "begin", _begin)


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
