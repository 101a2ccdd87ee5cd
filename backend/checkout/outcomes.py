"""How a recognition begins and ends in PostgreSQL. Whoever changes its row from `queued` has the say; all others come
too late.
"""

import json
from collections.abc import Callable
from typing import Any

from django.db import connection

from backend.checkout.models import RecognisedItem, Recognition, RecognitionState
from backend.checkout.recogniser import Serving

# One statement by hand: Django would take four round trips for it and, next to them, most of the time
# (docs/decisions/0007). Either all of it holds or nothing.
_STORE = f"""
    WITH ended AS (
        UPDATE {Recognition._meta.db_table}
        SET state = 'done', answer = %(answer)s, generation_id = %(generation)s,
            threshold_set_id = %(threshold_set)s, detector_id = %(detector)s
        WHERE id = %(id)s AND state = 'queued' RETURNING id
    ), items AS (
        INSERT INTO {RecognisedItem._meta.db_table}
            (recognition_id, number, box, detection_score, result, product_id, sku, name, price, currency, similarity)
        SELECT ended.id, item.* FROM ended, json_to_recordset(%(items)s) AS item (
            number smallint, box double precision[], detection_score double precision, result text,
            product_id bigint, sku text, name text, price numeric, currency text, similarity double precision)
    )
    SELECT count(*) FROM ended
"""  # noqa: S608  table names of our own models


def store_queued(recognition: Recognition) -> None:
    """Store a new recognition, without waiting for the disk.

    The commit that ends it flushes all that was written before it, this row too. Should PostgreSQL crash in between,
    the caller learns that the recognition failed, row or not.

    Raises:
        IntegrityError: the device has used this Idempotency-Key before.
    """

    def unflushed(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        # Sent as one, the two statements are one transaction and one round trip.
        return execute(f"SET LOCAL synchronous_commit TO off; {sql}", *rest)

    with connection.execute_wrapper(unflushed):
        recognition.save(force_insert=True)


def store_answer(
    recognition: Recognition, serving: Serving, answer: dict[str, Any], items: list[dict[str, Any]]
) -> bool:
    """End a queued recognition as done, with its answer and the rows of its items; False when it had ended before.

    Args:
        items: rows of RecognisedItem by column, ready for JSON.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            _STORE,
            {
                "id": recognition.pk,
                "answer": json.dumps(answer),
                "generation": serving.generation.pk,
                "threshold_set": None if serving.threshold_set is None else serving.threshold_set.pk,
                "detector": None if serving.detector is None else serving.detector.pk,
                "items": json.dumps(items),
            },
        )
        (ended,) = cursor.fetchone()
    return bool(ended)


def end(recognition: Recognition, state: RecognitionState, **changes: Any) -> bool:
    """End a queued recognition without an answer; False when it had ended before."""
    ended = Recognition.objects.filter(pk=recognition.pk, state=RecognitionState.QUEUED).update(
        state=state, **changes
    )
    if ended:
        recognition.state = state
        for field, value in changes.items():
            setattr(recognition, field, value)
    return bool(ended)
