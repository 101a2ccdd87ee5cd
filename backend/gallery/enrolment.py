"""From pending rows of the ledger to entries in Milvus, and from removed pictures to none.

Safe to run by many workers at once, to be killed at any point, and to be called twice: a row is leased before its
entry is touched, the entry's key is the picture's id, and the row says `embedded` only after Milvus has it.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import structlog
from django.db import connection, transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Greatest
from django.utils import timezone
from numpy.typing import NDArray

from backend.catalogue.models import BoxSource, ReferenceImage
from backend.catalogue.services import confirm_main_body, propose_main_body, set_quality_findings
from backend.common.problems import engine_of
from backend.gallery.loading import get_detector, get_embedder, get_gallery
from backend.gallery.models import LIVE_STATES, Embedding, EmbeddingState, Generation, GenerationState
from backend.gallery.selectors import get_active_detector
from recognition import images
from recognition.detector import MainBodyDetector, main_body
from recognition.embedder import ModelInput, ProductEmbedder
from recognition.errors import GalleryMismatch, ImageRefused, ModelRefused
from recognition.gallery import Entry
from recognition.images import Box, DecodedImage, ImageLimits, as_box

# Pictures embedded together: so many at first, then as many as take BATCH_SECONDS, so that who waits for the worker,
# or wants it to stop, does not wait long, whatever the model.
FIRST_BATCH, LARGEST_BATCH = 16, 64
BATCH_SECONDS = 1.0
COPY_BATCH = 500
REMOVAL_BATCH = 500
# While one batch is embedded the next is read and decoded, and the one before is written to Milvus, in threads of
# their own.
BATCHES_AT_ONCE = 2
DECODING_THREADS = 2
# Longer than three batches can take, with Milvus' time-outs in them: nobody else may touch a leased row's entry.
LEASE = timedelta(minutes=5)
MAX_ATTEMPTS = 5
# Of two proposals for one picture: nearer than this they are the same.
SAME_BOX_PIXELS = 0.5
# Our own stored files: bounded when they came in.
STORED = ImageLimits(max_bytes=1 << 30, max_pixels=1 << 30, min_side=1)

# A claim that is taken back; a picture that changed since has been forgiven all its attempts.
_NOT_COUNTED = Greatest(F("attempts") - 1, 0)

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A picture that is ready to be embedded.

    Attributes:
        model_input: as the embedder prepared the crop.
        box: that was cut out.
        source: of the box, where it is a new one; None where it is the picture's own.
        findings: what is poor about the crop; None where it was said before.
    """

    model_input: ModelInput
    box: Box
    source: BoxSource | None
    findings: tuple[str, ...] | None


@dataclass(frozen=True)
class Batch:
    """Leased rows, and their pictures on the way to being prepared."""

    rows: list[Embedding]
    prepared: list[tuple[Embedding, ReferenceImage, Future[Prepared]]]


@dataclass(frozen=True)
class Sent:
    """Leased rows that were embedded, and their entries on the way to Milvus.

    Attributes:
        rows: of the batch.
        done: those that have an entry, each with the revision that it is of.
        arrival: of the entries.
    """

    rows: list[Embedding]
    done: list[tuple[Embedding, int]]
    arrival: Future[None]


class Models:
    """What a generation's pictures are prepared and embedded with, looked up once."""

    def __init__(self, generation: Generation) -> None:
        self.embedder: ProductEmbedder = get_embedder(generation.embedder)
        # Boxes that are found anew are all one detector's, whichever is activated meanwhile.
        looks_again = generation.redetect and generation.state == GenerationState.BUILDING
        model = generation.detector if looks_again else get_active_detector()
        self.detector: MainBodyDetector | None = None if model is None else get_detector(model)
        self.detector_name = str(model or "")


def enrol(
    generation: Generation,
    reference_image_ids: Sequence[int] | None = None,
    *,
    each: Callable[[int], Any] | None = None,
    seconds: float = math.inf,
) -> int:
    """Embed what is pending and remove what is to go, until nothing claimable is left.

    Args:
        reference_image_ids: only these pictures; None for all.
        each: called after each batch with the number of rows that are over; what it raises ends the work.
        seconds: after which nothing new is begun; the first batch always is, so that a slow machine gets on too.
    Returns:
        Rows that are over, failed ones among them.
    Raises:
        GalleryUnavailable: Milvus does not answer; leases are given back, nothing is lost.
    """
    over, ends, size = 0, time.monotonic() + seconds, FIRST_BATCH
    models: Models | None = None
    waiting: deque[Batch] = deque()
    under_way: deque[Sent] = deque()
    with ThreadPoolExecutor(DECODING_THREADS) as pool, ThreadPoolExecutor(1) as writer:
        try:
            while True:
                began = time.monotonic()
                in_time = began < ends or not (over or under_way)
                # Removals before each batch: a picture that is deleted while it is embedded is to go at once.
                if in_time and (
                    rows := _claim(generation, EmbeddingState.REMOVING, reference_image_ids, REMOVAL_BATCH)
                ):
                    n_over = _remove(generation, rows)
                elif in_time and (rows := _claim_copyable(generation, reference_image_ids)):
                    n_over = _copy(generation, rows)
                else:
                    while in_time and len(waiting) < BATCHES_AT_ONCE:
                        rows = _claim(generation, EmbeddingState.PENDING, reference_image_ids, size)
                        if not rows:
                            break
                        waiting.append(Batch(rows, []))  # given back from here on, whatever fails
                        models = models or Models(generation)
                        waiting[-1] = _begin(generation, rows, models, pool)
                    if not waiting and not under_way:
                        return over
                    n_sent = len(under_way)
                    if waiting:
                        assert models is not None
                        batch = waiting.popleft()
                        under_way.append(_embed(generation, batch, models, writer))
                        size = _next_size(size, len(batch.rows), time.monotonic() - began)
                    n_over = _arrive(under_way.popleft()) if n_sent else 0
                over += n_over
                if each is not None:
                    each(n_over)
        except BaseException:
            for sent in under_way:
                if sent.arrival.cancel():
                    _put_back(sent.rows)
                else:
                    with suppress(Exception):  # the first failure is the one to tell
                        _arrive(sent)
            for batch in waiting:
                _put_back(batch.rows)
                for _, _, prepared in batch.prepared:
                    prepared.cancel()
            raise


def enrol_in_each(
    live: Sequence[Generation], reference_image_ids: Sequence[int] | None, *, seconds: float = math.inf
) -> None:
    """As `enrol`, in several generations; one that is being built is its job's alone."""
    for generation in live:
        if generation.state != GenerationState.BUILDING:
            with others_go_on(generation, "pictures not enrolled"):
                enrol(generation, reference_image_ids, seconds=seconds)


@contextmanager
def others_go_on(generation: Generation, event: str) -> Iterator[None]:
    """What is wrong with this generation or its model is logged as this event, and keeps nobody from the others."""
    try:
        yield
    except (GalleryMismatch, ModelRefused) as error:
        log.error(event, generation=generation.pk, reason=str(error))


def _next_size(size: int, n_embedded: int, seconds: float) -> int:
    """How many pictures to embed together, after `n_embedded` took so many seconds; at most twice as many at once."""
    wanted = round(n_embedded * BATCH_SECONDS / max(seconds, 1e-3))
    return min(max(1, wanted, size // 2), 2 * size, LARGEST_BATCH)


def _claim(
    generation: Generation,
    state: EmbeddingState,
    reference_image_ids: Sequence[int] | None,
    limit: int,
    *wanted: Q | Exists,
) -> list[Embedding]:
    """Lease up to `limit` rows that nobody holds, and that are as `wanted`."""
    free = Q(lease_until=None) | Q(lease_until__lt=timezone.now())
    rows = Embedding.objects.filter(free, *wanted, generation=generation, state=state)
    if reference_image_ids is not None:
        rows = rows.filter(reference_image_id__in=reference_image_ids)
    with transaction.atomic():
        claimed = list(rows.select_for_update(skip_locked=True).order_by("reference_image_id")[:limit])
        _rows(claimed).update(lease_until=timezone.now() + LEASE, attempts=F("attempts") + 1)
    for row in claimed:
        row.attempts += 1
    return claimed


def _rows(rows: Sequence[Embedding]) -> QuerySet[Embedding]:
    return Embedding.objects.filter(pk__in=[row.pk for row in rows])


def _put_back(rows: Sequence[Embedding]) -> None:
    """Let go of rows that nothing was tried with."""
    _rows(rows).update(lease_until=None, attempts=_NOT_COUNTED)


def _give_back(rows: Sequence[Embedding], error: Exception) -> None:
    """Let go of leased rows. An engine's failure is not the picture's: it does not count as an attempt."""
    uncounted = {"attempts": _NOT_COUNTED} if engine_of(error) is not None else {}
    _rows(rows).update(lease_until=None, **uncounted)


def _remove(generation: Generation, rows: Sequence[Embedding]) -> int:
    try:
        get_gallery(generation).delete([row.reference_image_id for row in rows])
    except Exception:
        _rows(rows).update(lease_until=None)
        raise
    _rows(rows).filter(state=EmbeddingState.REMOVING).delete()
    return len(rows)


# --- copying ----------------------------------------------------------------------------------------------
def _claim_copyable(generation: Generation, reference_image_ids: Sequence[int] | None) -> list[Embedding]:
    """Lease rows whose picture, as it is now, another generation of the same embedder has embedded.

    Once: what that one's collections turn out not to have is embedded.
    """
    source = generation.copied_from
    if generation.state != GenerationState.BUILDING or source is None or source.state not in LIVE_STATES:
        return []
    there = Embedding.objects.filter(
        generation=source,
        reference_image_id=OuterRef("reference_image_id"),
        state=EmbeddingState.EMBEDDED,
        revision=Subquery(
            ReferenceImage.objects.filter(pk=OuterRef("reference_image_id")).values("revision")
        ),
    )
    return _claim(
        generation,
        EmbeddingState.PENDING,
        reference_image_ids,
        COPY_BATCH,
        Q(attempts=0),
        Exists(there),
    )


def _copy(generation: Generation, rows: Sequence[Embedding]) -> int:
    assert generation.copied_from is not None
    row_of = {row.reference_image_id: row for row in rows}
    try:
        revisions = dict(ReferenceImage.objects.filter(pk__in=row_of.keys()).values_list("pk", "revision"))
        entries = [
            entry
            for entry in get_gallery(generation.copied_from).fetch(list(row_of))
            if revisions.get(entry.reference_image_id) == entry.revision
        ]
        get_gallery(generation).upsert(entries)
        _finish([(row_of[entry.reference_image_id], entry.revision) for entry in entries])
        _rows(rows).update(lease_until=None)
    except Exception as error:
        _give_back(rows, error)
        raise
    return len(entries)


# --- embedding --------------------------------------------------------------------------------------------
def _begin(
    generation: Generation, rows: Sequence[Embedding], models: Models, pool: ThreadPoolExecutor
) -> Batch:
    """Have the pictures of leased rows prepared; what cannot be is noted on its row. The pool asks no database."""
    found = ReferenceImage.objects.in_bulk([row.reference_image_id for row in rows])
    prepared = []
    for row in rows:
        image = found.get(row.reference_image_id)
        if image is None:  # deleted a moment ago, or by somebody who told nobody
            _rows([row]).update(state=EmbeddingState.REMOVING, lease_until=None)
        elif row.attempts > MAX_ATTEMPTS:
            _fail(
                row,
                image,
                f"gave up after {MAX_ATTEMPTS} attempts; the worker died or the model failed each time",
            )
        else:
            prepared.append((row, image, pool.submit(_prepare, generation, image, models)))
    return Batch(list(rows), prepared)


def _prepare(generation: Generation, image: ReferenceImage, models: Models) -> Prepared:
    """Read, decode, find the main body where it is not known, cut it out."""
    with image.image.open("rb") as file:
        decoded = images.decode(file.read(), STORED)
    box, source = _see_to_main_body(generation, image, decoded, models.detector)
    crop = decoded.crop(box, generation.crop_margin)
    _refuse_small(crop, models.embedder.card.minimum_side_pixels)
    # They are the crop's and not the model's: who filled the active generation has said them of the box that stands,
    # and saying them again would take a re-embedding a sixth of its time.
    told = source is None and generation.state == GenerationState.BUILDING
    findings = None if told else images.quality_findings(crop)
    return Prepared(models.embedder.prepare(crop), box, source, findings)


def _refuse_small(crop: NDArray[np.uint8], minimum_side: int) -> None:
    """The embedder would too, but knows nothing of boxes that are drawn."""
    height, width = crop.shape[:2]
    if min(height, width) < minimum_side:
        raise ImageRefused(
            "too-small",
            f"Found a main body of {width} x {height} pixels, wanted at least {minimum_side} a side: "
            "draw its box larger, or give a larger picture.",
        )


def propose_box(decoded: DecodedImage, detector: MainBodyDetector | None) -> tuple[Box, BoxSource]:
    """The main body of a picture that nobody has drawn a box in: the detector's, else the whole picture."""
    box = None if detector is None else main_body(detector.detect(decoded), decoded.width, decoded.height)
    if box is None:
        return (0.0, 0.0, float(decoded.width), float(decoded.height)), BoxSource.WHOLE
    return box, BoxSource.DETECTOR


def _see_to_main_body(
    generation: Generation, image: ReferenceImage, decoded: DecodedImage, detector: MainBodyDetector | None
) -> tuple[Box, BoxSource | None]:
    """The box to cut out, and whence it comes where the picture has it not.

    A generation that is built with `redetect` looks at each picture again, but for boxes that people drew or sent.
    """
    proposed_before = image.box_source in (BoxSource.DETECTOR, BoxSource.WHOLE)
    again = generation.redetect and generation.state == GenerationState.BUILDING and proposed_before
    if image.box is not None and not again:
        return as_box(image.box), None
    return propose_box(decoded, detector)


def _embed(generation: Generation, batch: Batch, models: Models, writer: ThreadPoolExecutor) -> Sent:
    """Embed what could be prepared, and have it written; what could not is noted on its row."""
    try:
        ready = []
        for row, image, coming in batch.prepared:
            try:
                prepared = coming.result()
            except Exception as error:
                if engine_of(error) is not None:
                    raise
                log.warning("picture not embedded", reference_image=image.pk, reason=str(error))
                _fail(row, image, f"{type(error).__name__}: {error}")
                continue
            if _keep_what_was_seen(image, prepared, models.detector_name):
                ready.append((row, image, prepared))
            else:  # the next batch has the other box, or finds that the picture is to be removed
                _put_back([row])
        entries = []
        if ready:
            embeddings = models.embedder.embed_prepared([prepared.model_input for _, _, prepared in ready])
            entries = [
                Entry(image.pk, image.product_id, image.revision, vector, hash_code)
                for (_, image, _), vector, hash_code in zip(
                    ready, embeddings.vectors, embeddings.hash_codes, strict=True
                )
            ]
        arrival = writer.submit(get_gallery(generation).upsert, entries)
    except Exception as error:
        _give_back(batch.rows, error)
        raise
    return Sent(batch.rows, [(row, image.revision) for row, image, _ in ready], arrival)


def _arrive(sent: Sent) -> int:
    """Wait until Milvus has a batch's entries, and note it; the number of its rows."""
    try:
        sent.arrival.result()
        _finish(sent.done)
    except Exception as error:
        _give_back(sent.rows, error)
        raise
    return len(sent.rows)


def _keep_what_was_seen(image: ReferenceImage, prepared: Prepared, detector_name: str) -> bool:
    """Store a proposed box and the quality findings; False if the picture has another box by now, or is deleted."""
    if prepared.source is not None:
        detector = detector_name if prepared.source == BoxSource.DETECTOR else ""
        if image.box is not None and np.allclose(image.box, prepared.box, atol=SAME_BOX_PIXELS, rtol=0.0):
            confirm_main_body(image, detector)
        else:
            try:
                propose_main_body(image, prepared.box, prepared.source, detector=detector)
            except ReferenceImage.DoesNotExist:
                return False
            if image.box is None or as_box(image.box) != prepared.box:
                return False
    if prepared.findings is not None and tuple(image.quality_findings) != prepared.findings:
        set_quality_findings(image, prepared.findings)
    return True


# The revision that a row's picture has by now; null where it was deleted.
_NOW_AT = Subquery(ReferenceImage.objects.filter(pk=OuterRef("reference_image_id")).values("revision"))


def _fail(row: Embedding, image: ReferenceImage, reason: str) -> None:
    """Say `failed`; a row whose picture changed meanwhile stays pending, for the new box may be a better one."""
    rows = _rows([row])
    rows.annotate(now_at=_NOW_AT).filter(state=EmbeddingState.PENDING, now_at=image.revision).update(
        state=EmbeddingState.FAILED, error=reason[:2_000]
    )
    rows.update(lease_until=None)


_FINISH = f"""
    UPDATE {Embedding._meta.db_table} e SET
        state = CASE WHEN e.state <> 'pending' THEN e.state
                     WHEN i.revision = done.revision THEN 'embedded' ELSE 'pending' END,
        revision = done.revision, attempts = 0, error = '', lease_until = NULL
    FROM unnest(%s::bigint[], %s::integer[]) AS done (id, revision)
    JOIN {Embedding._meta.db_table} r ON r.id = done.id
    LEFT JOIN {ReferenceImage._meta.db_table} i ON i.id = r.reference_image_id
    WHERE e.id = done.id
"""  # noqa: S608  table names of our own models


def _finish(done: Sequence[tuple[Embedding, int]]) -> None:
    """Say `embedded`, but `pending` again where the picture changed meanwhile; a row that is to go keeps saying so.

    Args:
        done: rows, each with the revision that Milvus now has.
    """
    with connection.cursor() as cursor:
        cursor.execute(_FINISH, [[row.pk for row, _ in done], [revision for _, revision in done]])


def count_waiting(generation: Generation) -> int:
    """Rows that are pending or to be removed."""
    return generation.embeddings.filter(state__in=[EmbeddingState.PENDING, EmbeddingState.REMOVING]).count()
