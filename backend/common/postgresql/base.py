"""Django's PostgreSQL backend, but nobody waits for a server that hangs (docs/decisions/0006).

libpq waits for ever for a server that was stopped or cut off in the middle: its kernel still answers for it. A bound on
the time of an answer would end long queries too. So an answer is waited for as long as the server gives signs of life.
"""

import os
import select
import socket
import struct
import time
from typing import Any

import psycopg2
from django.db.backends.postgresql import base
from psycopg2.extensions import POLL_OK, POLL_READ, POLL_WRITE, set_wait_callback

# An answer that takes longer makes us ask whether the server lives, which has as long to say so. Both together leave
# something of the 2 s within which a caller learns that an engine does not answer.
PATIENCE_SECONDS = 0.8
# Those who queue behind somebody who waited in vain do not each wait as long again.
SILENCE_REMEMBERED_SECONDS = 1.0
PATIENCE_IN_SILENCE_SECONDS = 0.1

# "May I speak TLS?": answered with one byte before any login, and not logged (PostgreSQL manual, 54.7 SSLRequest).
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)

_EVENTS = {POLL_READ: select.POLLIN, POLL_WRITE: select.POLLOUT}
_silent_until = 0.0


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's, with another way to see whether an idle connection still holds."""

    def is_usable(self) -> bool:
        """Whether the server has closed the connection, as far as we have heard; no question is sent."""
        return (
            self.connection is not None
            and not self.connection.closed
            and not _is_ready(self.connection, POLL_READ, 0)
        )


def _wait(connection: Any) -> None:
    """psycopg2's wait callback: return when the answer is there.

    Raises:
        psycopg2.OperationalError: the server gives no sign of life; psycopg2 then closes the connection.
    """
    global _silent_until
    while (state := connection.poll()) != POLL_OK:
        in_silence = time.monotonic() < _silent_until
        patience = PATIENCE_IN_SILENCE_SECONDS if in_silence else PATIENCE_SECONDS
        while not _is_ready(connection, state, patience):
            if _lives(connection, patience):
                continue
            if not in_silence:
                _silent_until = time.monotonic() + SILENCE_REMEMBERED_SECONDS
            raise psycopg2.OperationalError("the server hangs: neither an answer nor a sign of life")


def _is_ready(connection: Any, state: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(connection.fileno(), _EVENTS[state])
    return bool(poll.poll(1000 * seconds))


def _lives(connection: Any, seconds: float) -> bool:
    """Whether the server at the connection's other end still greets newcomers."""
    try:
        with (
            socket.socket(fileno=os.dup(connection.fileno())) as ours,
            socket.socket(ours.family) as newcomer,
        ):
            newcomer.settimeout(seconds)
            newcomer.connect(ours.getpeername())
            newcomer.sendall(_SSL_REQUEST)
            return bool(newcomer.recv(1))
    except OSError:
        return False


set_wait_callback(_wait)
