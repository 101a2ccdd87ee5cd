"""Who is acting, where it is no person who is logged in: the audit log tells it beside each change.

auditlog's own `set_extra_data` is not used: within its middleware's, it loses the outer one's data and leaves a
receiver connected for ever.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

Actor = str | Callable[[], str]

_actor: ContextVar[Actor] = ContextVar("audit_actor", default="")


@contextmanager
def acting(actor: Actor) -> Iterator[None]:
    """Within the block, changes are noted as those of `actor`.

    Args:
        actor: such as "device till 7"; or what tells it when the first change is noted, "" for nobody.
    """
    token = _actor.set(actor)
    try:
        yield
    finally:
        _actor.reset(token)


def note_actor(instance: Any, **_: Any) -> None:
    """Receiver: before an entry of the audit log is saved."""
    actor = _actor.get()
    name = actor if isinstance(actor, str) else actor()
    if name and instance._state.adding:
        instance.additional_data = (instance.additional_data or {}) | {"by": name}


def done_by(entry: Any) -> str:
    """Who made a change, for people: a device, a job, a command or a person, as named then; else the service itself,
    such as a threshold fit that was due."""
    named = (entry.additional_data or {}).get("by")
    return str(named or entry.actor or "the service itself")
