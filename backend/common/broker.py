"""The broker as a plain Redis-protocol server: signals between worker and web, counters, heartbeats."""

from functools import cache

import redis
from django.conf import settings


@cache
def broker_client() -> redis.Redis:
    """The process's client; its pool is thread-safe. A broker that is down raises redis.RedisError within 1 s."""
    return redis.Redis.from_url(
        settings.BROKER_URL,
        socket_connect_timeout=1,
        # Longer than any blocking wait that we ask of it.
        socket_timeout=settings.RECOGNITION_PATIENCE_SECONDS + 2,
        health_check_interval=30,
        decode_responses=False,
    )
