"""Open the data base of a sweep, check that it is Optuna's, and explain its errors."""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from flatmin.experiments.errors import BadInput

#: Seconds between two heartbeats, and without a heartbeat until a trial counts as dead.
BEAT, GRACE = 60, 300

#: Seconds that a process waits for others to write to the sweep's own file.
PATIENCE = 60

#: A connection for each use. Servers drop those that wait through a long training,
#: and Python warns of files that are open at its end.
_UNPOOLED: dict[str, Any] = {"poolclass": NullPool}

#: The errors that a failing data base raises.
FAILURES = (StorageInternalError, SQLAlchemyError)

#: Optuna's tables that a sweep uses.
_TABLES = {"studies", "trials", "trial_params", "trial_values", "trial_user_attributes"}


class _Beating(RDBStorage):
    """A storage that several machines share, whose trials have heartbeats."""

    def record_heartbeat(self, trial_id: int) -> None:
        """Record a heartbeat; a data base that is away must not stop the run."""
        with suppress(StorageInternalError):
            super().record_heartbeat(trial_id)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Record a heartbeat first: a trial without one would never count as dead."""
        if state == TrialState.RUNNING:
            self.record_heartbeat(trial_id)
        return super().set_trial_state_values(trial_id, state, values)


def opened(path: Path, url: str | None) -> RDBStorage:
    """Open the data base at a URL; without a URL, an SQLite file.

    Raises:
        BadInput: it cannot be used, or is another program's.
    """
    try:
        with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
            if url is not None:
                _check_tables(url)
                again = RetryHeartbeatStaleTrialCallback()
                return _Beating(
                    url,
                    _UNPOOLED,
                    heartbeat_interval=BEAT,
                    grace_period=GRACE,
                    heartbeat_stale_trial_callback=again,
                )
            # The path is not in the URL, where some of its signs could have a meaning.
            connect: Any = partial(sqlite3.connect, timeout=PATIENCE)
            file = partial(connect, path, check_same_thread=False)
            _check_tables("sqlite:///study.db", creator=file)
            return RDBStorage("sqlite:///study.db", {"creator": file, **_UNPOOLED})
    except (ImportError, LookupError, RuntimeError, ValueError, *FAILURES) as error:
        raise error if isinstance(error, BadInput) else refusal(url, error) from None


def refusal(url: str | None, error: Exception) -> BadInput:
    """Return the error about a data base that fails, without its password."""
    own = getattr(error, "orig", None) or error.__cause__ or error
    reason = (str(own).splitlines() or [type(own).__name__])[0].rstrip(".")
    name = "of the sweep"
    if type(error) is ArgumentError or isinstance(error, LookupError):
        name, reason = "of --storage", "this is no URL of a data base"
    elif url is not None:
        place = sqlalchemy.make_url(url)
        name = place.render_as_string(hide_password=True)
        reason = reason.replace(place.password or name, "***")
    advice = "The same command continues when it works."
    return BadInput(f"cannot use the data base {name}: {reason}. {advice}")


def _check_tables(url: str, **options: Any) -> None:
    """Refuse a data base without all of Optuna's tables, unless it is new."""
    engine = sqlalchemy.create_engine(url, **options, **_UNPOOLED)
    there = set(sqlalchemy.inspect(engine).get_table_names())
    missing = _TABLES - there
    # Optuna makes alembic_version last: without it, a process was killed at its start.
    if missing and ("alembic_version" in there or (there and missing == _TABLES)):
        raise BadInput(
            f"the data base is another program's, or damaged: it has no table "
            f"{', '.join(sorted(missing))}. Give an empty one with --storage, or "
            "another folder with --out: runs that are finished there are kept."
        )
