"""The broker as a plain Redis-protocol server: signals between worker and web, counters, heartbeats."""

from functools import cache

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

# The longest that a command may ask the broker to wait for something; whoever wants to wait longer asks again. So a
# broker that hangs is noticed soon, also in the middle of a long wait.
LONGEST_WAIT_SECONDS = 1.0


@cache
def broker_client() -> redis.Redis:
    """The process's client; its pool is thread-safe. A broker that is down or hangs raises redis.RedisError soon."""
    return redis.Redis.from_url(
        settings.BROKER_URL,
        socket_connect_timeout=1,
        socket_timeout=LONGEST_WAIT_SECONDS + 0.5,
        # A connection that broke while it lay idle is opened again; time that is over is not spent twice.
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    )
