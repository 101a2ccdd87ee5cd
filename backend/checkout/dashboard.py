"""The admin's first page: how the catalogue stands, what wants attention, what was recognised lately."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db.models import Count
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from backend.catalogue.models import Product, ProductState, ReferenceImage
from backend.checkout.admin import summarise_items
from backend.checkout.models import Correction, RecognisedItem, Recognition, ReviewState
from backend.checkout.worker import count_recognition_workers
from backend.common.problems import engine_of
from backend.common.words import counted
from backend.gallery.models import EmbeddingState, Generation
from backend.gallery.selectors import (
    count_ledger,
    get_active_detector,
    get_active_generation,
    get_threshold_set,
)
from backend.jobs.models import Job, JobState
from recognition.ranking import Result

LATELY = timedelta(days=7)
N_LATEST = 8


@dataclass(frozen=True)
class Figure:
    """A number, and the page that lists what it counts."""

    title: str
    value: str
    link: str


@dataclass(frozen=True)
class Attention:
    """Something that a person should see to, and the page where."""

    text: str
    link: str = ""
    act: str = ""


def fill_dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """UNFOLD's DASHBOARD_CALLBACK: what this user may see."""
    user = request.user
    generation = get_active_generation()
    ledger = {} if generation is None else count_ledger(generation)
    figures: list[Figure] = []
    attention: list[Attention] = []
    if user.has_perm("catalogue.view_product"):
        figures += _catalogue_figures(ledger)
        attention += _catalogue_attention(ledger)
    if user.has_perm("checkout.view_recognition"):
        figures += _checkout_figures()
        attention += _review_attention(request)
        latest = Recognition.objects.order_by("-created_at")[:N_LATEST]
        context["latest"] = [(recognition, summarise_items(recognition)) for recognition in latest]
    return context | {
        "figures": figures,
        "attention": [*_serving_attention(generation), *attention],
        "n_products": Product.objects.count(),
    }


def _catalogue_figures(ledger: dict[str, int]) -> list[Figure]:
    products, pictures = (
        reverse("admin:catalogue_product_changelist"),
        reverse("admin:catalogue_referenceimage_changelist"),
    )
    active = Product.objects.filter(state=ProductState.ACTIVE).count()
    return [
        Figure("active products", f"{active:,}", f"{products}?state__exact=active"),
        Figure("pictures", f"{ReferenceImage.objects.count():,}", pictures),
        Figure(
            "waiting to be embedded",
            f"{ledger.get(EmbeddingState.PENDING, 0):,}",
            f"{pictures}?embedding=pending",
        ),
    ]


def _checkout_figures() -> list[Figure]:
    recognitions = reverse("admin:checkout_recognition_changelist")
    now = timezone.now()
    midnight = timezone.localtime(now).replace(hour=0, minute=0, second=0, microsecond=0)
    today = Recognition.objects.filter(created_at__gte=midnight).count()
    counts = dict(
        RecognisedItem.objects.filter(recognition__created_at__gte=now - LATELY)
        .order_by()
        .values_list("result")
        .annotate(Count("id"))
    )
    n_items = sum(counts.values())
    share = f"{counts.get(Result.UNKNOWN, 0) / n_items:.0%}" if n_items else "-"
    return [
        Figure("recognitions today", f"{today:,}", recognitions),
        Figure("of items unknown in 7 days", share, f"{recognitions}?result=unknown"),
    ]


def _serving_attention(generation: Generation | None) -> Iterator[Attention]:
    """What keeps photos from being answered well."""
    if generation is None:
        yield Attention(
            "No embedder is active: nothing can be embedded or recognised."
            " An operator runs manage.py install_model and activate_model."
        )
        return
    if get_active_detector() is None:
        yield Attention("No detector is installed: of each photo the whole is taken as one product.")
    if get_threshold_set(generation, settings.SEARCH_STRATEGY) is None:
        yield Attention(
            "No thresholds are fitted yet: nothing is recognised by itself, all answers need confirmation."
        )
    try:
        n_workers = count_recognition_workers()
    except Exception as error:
        if engine_of(error) is None:
            raise
        yield Attention("The broker does not answer: photos cannot be recognised now.")
    else:
        if n_workers == 0:
            yield Attention("No recognition worker is up: photos cannot be recognised now.")


def _review_attention(request: HttpRequest) -> Iterator[Attention]:
    n_open = Correction.objects.filter(state=ReviewState.OPEN).count()
    if n_open and request.user.has_perm("checkout.review_correction"):
        yield Attention(
            f"Waiting for review: {counted(n_open, 'correction')}.",
            reverse("admin:checkout_correction_review"),
            "Review",
        )


def _catalogue_attention(ledger: dict[str, int]) -> Iterator[Attention]:
    products = reverse("admin:catalogue_product_changelist")
    pictures = reverse("admin:catalogue_referenceimage_changelist")
    bare = Product.objects.filter(state=ProductState.ACTIVE).exclude(
        pk__in=ReferenceImage.objects.values("product")
    )
    if n_bare := bare.count():
        yield Attention(
            f"No pictures, so never recognised: {counted(n_bare, 'active product')}.",
            f"{products}?state__exact=active&pictures=none",
            "Add pictures",
        )
    if n_failed := ledger.get(EmbeddingState.FAILED, 0):
        yield Attention(
            f"Could not be embedded: {counted(n_failed, 'picture')}.",
            f"{pictures}?embedding=failed",
            "See why",
        )
    if n_poor := ReferenceImage.objects.exclude(quality_findings=[]).count():
        yield Attention(
            f"Of poor quality: {counted(n_poor, 'picture')}.", f"{pictures}?finding=any", "Look at them"
        )
    failed_jobs = Job.objects.filter(state=JobState.FAILED, created_at__gte=timezone.now() - LATELY).count()
    if failed_jobs:
        yield Attention(
            f"Failed in the last 7 days: {counted(failed_jobs, 'job')}.",
            f"{reverse('admin:jobs_job_changelist')}?state__exact=failed",
            "See why",
        )
