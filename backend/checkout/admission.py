"""How many recognitions are under way, and the signal that one is over. Both live in the broker.

Admitted recognitions are members of one sorted set, scored by their deadline: a web process that dies leaves
nothing that would not fall out by itself.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any

import redis
from django.conf import settings

from backend.common.broker import LONGEST_WAIT_SECONDS, broker_client
from backend.common.problems import BROKER, Problem, engine_of

IN_FLIGHT_KEY = "checklane:in-flight"
# A waiting caller is gone by then, whatever its patience.
SIGNAL_LIVES_SECONDS = 60

# In one step: else two that come at once could both take the last place, or a refused one keep another out.
_ADMIT = """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[2])
if redis.call('ZSCORE', KEYS[1], ARGV[1]) or redis.call('ZCARD', KEYS[1]) < tonumber(ARGV[4]) then
    redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
    return 1
end
return 0
"""


@contextmanager
def admitted(place: str) -> Iterator[None]:
    """Hold a place, by any unique name, among the recognitions under way.

    Raises:
        Problem: 429, all places are taken.
        redis.RedisError: the broker does not answer.
    """
    admit(place)
    try:
        yield
    except Exception as error:
        # A broker that is away is not waited for once more: the place falls free by itself.
        if engine_of(error) != BROKER:
            leave(place)
        raise
    leave(place)


def admit(place: str) -> None:
    """Take a place; `admitted` gives it back too."""
    now = time.time()
    taken = broker_client().eval(
        _ADMIT,
        1,
        IN_FLIGHT_KEY,
        place,
        now,
        now + settings.RECOGNITION_PATIENCE_SECONDS,
        settings.RECOGNITION_MAX_IN_FLIGHT,
    )
    if not taken:
        raise Problem(
            HTTPStatus.TOO_MANY_REQUESTS,
            "too-many-recognitions",
            f"{settings.RECOGNITION_MAX_IN_FLIGHT} recognitions are under way; send this one again in a moment",
            retry_after=1,
        )


def leave(place: str) -> None:
    """Give the place back; if the broker has gone this very moment, it falls free by itself."""
    with suppress(redis.RedisError):
        broker_client().zrem(IN_FLIGHT_KEY, place)


def count_in_flight() -> int:
    return int(broker_client().zcount(IN_FLIGHT_KEY, time.time(), "+inf"))


def _signal_key(recognition_id: str) -> str:
    return f"checklane:done:{recognition_id}"


def signal(recognition_id: str, outcome: dict[str, Any]) -> None:
    """Tell the waiting web process how the recognition ended."""
    pipeline = broker_client().pipeline(transaction=False)
    pipeline.lpush(_signal_key(recognition_id), json.dumps(outcome))
    pipeline.expire(_signal_key(recognition_id), SIGNAL_LIVES_SECONDS)
    pipeline.execute()


def wait_for_signal(recognition_id: str, seconds: float) -> dict[str, Any] | None:
    """The outcome, or None when none came in time."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        found = broker_client().blpop(
            [_signal_key(recognition_id)], timeout=max(0.01, min(left, LONGEST_WAIT_SECONDS))
        )
        if found is not None:
            outcome: dict[str, Any] = json.loads(found[1])
            return outcome
    return None
