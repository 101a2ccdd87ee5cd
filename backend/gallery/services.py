"""Installing and activating models, and keeping the ledger in step with the catalogue.

What fills the ledger's rows with embeddings is enrolment.py; what fits thresholds is thresholds.py.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import structlog
from celery import current_app
from django.db import connection, transaction
from django.db.models import Max, Min
from django.utils.text import slugify

from backend.catalogue.models import ReferenceImage
from backend.common.problems import Problem, engine_of
from backend.gallery.generations import open_first_generation
from backend.gallery.loading import get_detector, get_embedder
from backend.gallery.models import (
    LIVE_STATES,
    Embedding,
    EmbeddingState,
    Generation,
    InstalledModel,
    ModelTask,
)
from backend.gallery.selectors import get_active_generation
from recognition.gallery import IndexSettings
from recognition.model_card import load_model_folder

# Tasks call services, so a service names its task instead of importing it.
ENROL_TASK = "gallery.enrol"
PLANNED_AT_ONCE = 50_000

log = structlog.get_logger(__name__)


def install_model(folder: Path) -> InstalledModel:
    """Check a model folder and copy it under MODELS_ROOT; the same model twice changes nothing.

    Raises:
        ModelRefused: the card is wrong, the file does not match it, or does not run on the provider it names.
        Problem: 409, another model of this name and version is installed.
    """
    found = load_model_folder(folder)
    card = found.card
    model = InstalledModel(
        name=slugify(card.name),
        version=slugify(card.version),
        task=card.task,
        sha256=card.sha256,
        card=card.to_dict(),
    )
    there = InstalledModel.objects.filter(name=model.name, version=model.version).first()
    if there is not None:
        if there.sha256 != model.sha256 or there.card != json.loads(json.dumps(model.card)):
            raise Problem(
                HTTPStatus.CONFLICT,
                "model-version-taken",
                f"another {there} is installed (SHA-256 {there.sha256[:12]}, this one {model.sha256[:12]});"
                " give this one a version of its own in its card",
            )
        if there.folder.exists():
            return there
        model = there
    _copy_folder(folder, model.folder)
    # Loaded once before it is believed: a model that does not run here is refused now, not at the till.
    _try_out(model)
    model.save()
    return model


def _copy_folder(source: Path, target: Path) -> None:
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=".installing-"))
    for name in ("model.onnx", "card.json"):
        shutil.copyfile(source / name, aside / name)
    os.chmod(aside, 0o755)  # noqa: S103  models are no secret; web and workers may run as other users
    try:
        aside.rename(target)
    except OSError:
        shutil.rmtree(aside)  # another process of the same start was first
        if not target.exists():
            raise


def _try_out(model: InstalledModel) -> None:
    try:
        (get_detector if model.task == ModelTask.DETECTOR else get_embedder)(model)
    except Exception:
        if model.pk is None:
            shutil.rmtree(model.folder, ignore_errors=True)
        raise


def activate_model(model: InstalledModel, *, index: IndexSettings | None = None) -> None:
    """Let a detector propose and find boxes from now on; with an embedder, open the first generation.

    Raises:
        Problem: 409, a generation of another embedder is active.
    """
    if model.task == ModelTask.DETECTOR:
        with transaction.atomic():
            InstalledModel.objects.filter(task=ModelTask.DETECTOR, is_active=True).update(is_active=False)
            InstalledModel.objects.filter(pk=model.pk).update(is_active=True)
        return
    active = get_active_generation()
    if active is None:
        plan_missing(open_first_generation(model, index or IndexSettings(type="HNSW")))
    elif active.embedder_id != model.pk:
        raise Problem(
            HTTPStatus.CONFLICT,
            "generation-active",
            f"{active} answers now; build a gallery of {model} beside it with"
            f" `manage.py reembed --model {model.name}:{model.version}`, then `manage.py switch_generation`",
        )


# --- the ledger follows the catalogue ---------------------------------------------------------------------
def plan_embedding(reference_image_id: int) -> None:
    """Write that a picture is to be embedded in every live generation, and call a worker after the commit."""
    generation_ids = list(Generation.objects.filter(state__in=LIVE_STATES).values_list("pk", flat=True))
    if not generation_ids:
        return
    # The lease stays: whoever works on the old revision ends first, then the new one is taken.
    Embedding.objects.bulk_create(
        [Embedding(reference_image_id=reference_image_id, generation_id=pk) for pk in generation_ids],
        update_conflicts=True,
        unique_fields=["generation", "reference_image_id"],
        update_fields=["state", "attempts", "error"],
    )
    call_worker([reference_image_id])


def plan_removal(reference_image_id: int) -> None:
    """Write that a picture's entries are to leave Milvus, and call a worker after the commit."""
    Embedding.objects.filter(reference_image_id=reference_image_id).update(state=EmbeddingState.REMOVING)
    call_worker([reference_image_id])


def call_worker(reference_image_ids: Sequence[int]) -> None:
    """Ask the bulk worker to look at these pictures once the transaction is through. A lost message only delays."""

    def send() -> None:
        try:
            current_app.send_task(ENROL_TASK, (list(reference_image_ids),))
        except Exception as error:
            if engine_of(error) is None:
                raise
            log.warning("enrolment not announced; the sweep will find it", pictures=len(reference_image_ids))

    transaction.on_commit(send)


def plan_missing(generation: Generation) -> None:
    """Bring the ledger to the catalogue: a row for each picture, stale rows pending, rows of no picture removing. Of a
    generation that is not live any more nothing is planned."""
    for low, high in _parts_of_the_ledger(generation):
        values: dict[str, Any] = {
            "generation": generation.pk,
            "low": low,
            "high": high,
            "live": [str(one) for one in LIVE_STATES],
        }
        with connection.cursor() as cursor:
            for statement in _PLAN:
                cursor.execute(statement, values)


def plan_again(generation: Generation) -> None:
    """Let the ledger say of no picture that it is embedded, or failed: each is to be embedded again."""
    over = generation.embeddings.filter(state__in=[EmbeddingState.EMBEDDED, EmbeddingState.FAILED])
    for low, high in _parts_of_the_ledger(generation):
        over.filter(reference_image_id__gte=low, reference_image_id__lt=high).update(
            state=EmbeddingState.PENDING, revision=0, attempts=0, error="", lease_until=None
        )


def _parts_of_the_ledger(generation: Generation) -> Iterator[tuple[int, int]]:
    """From and to, of reference images' ids: so many at once that no statement takes as long as PostgreSQL lets one."""
    ends = [
        end
        for ids in (
            ReferenceImage.objects.aggregate(first=Min("pk"), last=Max("pk")),
            generation.embeddings.aggregate(first=Min("reference_image_id"), last=Max("reference_image_id")),
        )
        for end in ids.values()
        if end is not None
    ]
    if ends:
        for low in range(min(ends), max(ends) + 1, PLANNED_AT_ONCE):
            yield low, low + PLANNED_AT_ONCE


_IMAGES, _ROWS = ReferenceImage._meta.db_table, Embedding._meta.db_table
_PLAN = (
    f"""INSERT INTO {_ROWS} (reference_image_id, generation_id, state, revision, attempts, error)
        SELECT i.id, %(generation)s, 'pending', 0, 0, '' FROM {_IMAGES} i
        WHERE i.id >= %(low)s AND i.id < %(high)s
        AND NOT EXISTS (SELECT 1 FROM {_ROWS} e WHERE e.generation_id = %(generation)s AND e.reference_image_id = i.id)
        AND EXISTS (SELECT 1 FROM {Generation._meta.db_table} g WHERE g.id = %(generation)s AND g.state = ANY(%(live)s))
        ON CONFLICT DO NOTHING""",  # noqa: S608  table names of our own models
    f"""UPDATE {_ROWS} e SET state = 'pending', attempts = 0 FROM {_IMAGES} i
        WHERE e.generation_id = %(generation)s AND e.state = 'embedded'
        AND e.reference_image_id >= %(low)s AND e.reference_image_id < %(high)s
        AND i.id = e.reference_image_id AND i.revision <> e.revision""",  # noqa: S608
    f"""UPDATE {_ROWS} e SET state = 'removing' WHERE e.generation_id = %(generation)s AND e.state <> 'removing'
        AND e.reference_image_id >= %(low)s AND e.reference_image_id < %(high)s
        AND NOT EXISTS (SELECT 1 FROM {_IMAGES} i WHERE i.id = e.reference_image_id)""",  # noqa: S608
)


def try_again(reference_image_ids: Sequence[int]) -> int:
    """Give pictures that could not be embedded another chance, in every live generation.

    Returns:
        How many entries are pending again.
    """
    pending = Embedding.objects.filter(
        state=EmbeddingState.FAILED,
        generation__state__in=LIVE_STATES,
        reference_image_id__in=reference_image_ids,
    ).update(state=EmbeddingState.PENDING, attempts=0, error="")
    if pending:
        call_worker(reference_image_ids)
    return pending
