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
_reason: ContextVar[str] = ContextVar("audit_reason", default="")


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


@contextmanager
def because(reason: str) -> Iterator[None]:
    """Within the block, changes are noted with why they were made; "" where that needs no saying."""
    token = _reason.set(reason)
    try:
        yield
    finally:
        _reason.reset(token)


def note_actor(instance: Any, **_: Any) -> None:
    """Receiver: before an entry of the audit log is saved."""
    actor = _actor.get()
    name = actor if isinstance(actor, str) else actor()
    said = {key: text for key, text in (("by", name), ("reason", _reason.get())) if text}
    if said and instance._state.adding:
        instance.additional_data = (instance.additional_data or {}) | said


def done_by(entry: Any) -> str:
    """Who made a change, for people: a device, a job, a command or a person, as named then; else the service itself,
    such as a threshold fit that was due. With the reason, where one was given."""
    said = entry.additional_data or {}
    who = str(said.get("by") or entry.actor or "the service itself")
    return f"{who}: {said['reason']}" if "reason" in said else who
