"""The admin's pages where corrections are reviewed: one after the other, each with a key to press."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.db.models import QuerySet
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseNotAllowed, JsonResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from unfold.admin import ModelAdmin

from backend.catalogue.models import Product, ReferenceImage
from backend.catalogue.services import image_limits
from backend.checkout import review
from backend.checkout.crops import keep_crop
from backend.checkout.models import Correction
from backend.checkout.selectors import (
    list_clean_corrections,
    list_corrections,
    list_waiting,
    list_waiting_after,
)
from backend.common.admin import check_permission, private_file
from backend.common.problems import Problem, problem_of, problem_response
from backend.common.words import counted
from backend.jobs.services import start_job
from recognition import images
from recognition.errors import ImageRefused

REVIEW = "checkout.review_correction"
# A crop may be deleted any hour; the browser must not keep it much longer.
CROP_KEPT = timedelta(minutes=5)
PICTURES_SHOWN = 8
CHANGED_SHOWN = 12
ACCEPTED_AT_ONCE = 1_000


@dataclass(frozen=True)
class ShownCrop:
    """A crop with its box, in pixels of the crop.

    Attributes:
        correction: that it is of.
        width: of the crop.
        height: likewise.
        box: x1, y1, x2, y2.
    """

    correction: Correction
    width: int
    height: int
    box: Sequence[float]


@dataclass(frozen=True)
class ShownProduct:
    """A product beside the crop, with the pictures that it has, the ones that spoke for it first."""

    product: Product
    pictures: Sequence[ReferenceImage]
    n_pictures: int


@dataclass(frozen=True)
class ShownChange:
    """A picture that would find the crop first; none where it was deleted since."""

    change: Mapping[str, Any]
    picture: ReferenceImage | None


class ReviewPages(ModelAdmin):
    """The pages; CorrectionAdmin has them under its own address."""

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("review/", view(self.queue_view), name="checkout_correction_review"),
            path(
                "review/accept-clean/", view(self.accept_clean_view), name="checkout_correction_accept_clean"
            ),
            path("review/<int:pk>/", view(self.review_view), name="checkout_correction_review_one"),
            path("review/<int:pk>/check/", view(self.check_view), name="checkout_correction_check"),
            path("review/<int:pk>/decide/", view(self.decide_view), name="checkout_correction_decide"),
            path(
                "review/<int:pk>/crop/",
                self.admin_site.admin_view(self.whole_crop_view, cacheable=True),
                name="checkout_correction_whole_crop",
            ),
            *super().get_urls(),
        ]

    def queue_view(self, request: HttpRequest) -> HttpResponse:
        """To the first open correction after the one that is named in `after`; around, and to an end when none is."""
        check_permission(request, REVIEW)
        after = _as_id(request.GET.get("after", "0"))
        waiting = list_waiting()
        following = list_waiting_after(after).first() or waiting.exclude(pk=after).first() or waiting.first()
        if following is not None:
            return redirect("admin:checkout_correction_review_one", following.pk)
        context = {
            **self.admin_site.each_context(request),
            "title": "Review corrections",
            "opts": self.opts,
            "reviewed": _lately_reviewed(),
        }
        return TemplateResponse(request, "checkout/review_done.html", context)

    def review_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        check_permission(request, REVIEW)
        return self._page(request, get_object_or_404(list_corrections(), pk=pk))

    def _page(
        self,
        request: HttpRequest,
        correction: Correction,
        problem: Problem | None = None,
        note: str = "",
    ) -> HttpResponse:
        n_open = list_waiting().count()
        context = {
            **self.admin_site.each_context(request),
            "title": "Review corrections",
            "opts": self.opts,
            "correction": correction,
            "crop": _show_crop(correction),
            "really": _show_product(correction.product, _nearest_of(correction, "own")),
            "answered": _show_product(
                correction.item.product if correction.item else None, _nearest_of(correction, "other")
            ),
            "n_open": n_open,
            "n_before": n_open - list_waiting_after(correction.pk).count() - 1,
            "n_clean": list_clean_corrections().count(),
            "earlier": review.get_earlier_accepted(correction),
            "reviewed": _lately_reviewed(),
            "problem": problem,
            "note": note,
            **_check_context(correction),
        }
        return TemplateResponse(request, "checkout/review.html", context)

    def check_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """POST asks the gallery anew; to the page's script it answers the part of the page that tells it."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        check_permission(request, REVIEW)
        correction = get_object_or_404(list_corrections(), pk=pk)
        try:
            check = review.check_correction(correction)
        except Exception as error:
            problem = _problem_of(error)
            if not request.accepts("text/html"):
                return problem_response(problem)
            return self._page(request, correction, problem)
        if request.accepts("text/html"):
            return redirect("admin:checkout_correction_review_one", pk)
        html = render_to_string("checkout/review_check.html", _check_context(correction), request)
        return JsonResponse({"html": html, "worse": bool(check["worse"])})

    def decide_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """POST `act`: accept, force (also if it makes others worse; then `note` says why), reject or undo."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        check_permission(request, REVIEW)
        correction = get_object_or_404(list_corrections(), pk=pk)
        act, note = request.POST.get("act", ""), request.POST.get("note", "")
        name = request.user.get_username()
        try:
            match act:
                case "accept" | "force":
                    review.accept(correction, reviewed_by=name, note=note, force=act == "force")
                case "reject":
                    review.reject(correction, reviewed_by=name, note=note)
                case "undo":
                    review.undo(correction)
                    self.message_user(request, f"{_named(correction)} is open again.", messages.SUCCESS)
                    return redirect("admin:checkout_correction_review_one", pk)
                case _:
                    raise Problem(
                        400, "invalid", f"found act {act!r}; accept, force, reject or undo is wanted"
                    )
        except Exception as error:
            correction = get_object_or_404(list_corrections(), pk=pk)
            return self._page(request, correction, _problem_of(error), note)
        return redirect(f"{reverse('admin:checkout_correction_review')}?after={pk}")

    def accept_clean_view(self, request: HttpRequest) -> HttpResponse:
        """POST: a job accepts all that nothing speaks against."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        check_permission(request, REVIEW)
        chosen = list(list_clean_corrections().values_list("pk", flat=True)[:ACCEPTED_AT_ONCE])
        if not chosen:
            self.message_user(request, "There is no open correction without findings.", messages.INFO)
            return redirect("admin:checkout_correction_review")
        job = start_job(
            kind=review.ACCEPT_KIND,
            parameters={"corrections": chosen},
            asked_by=request.user.get_username(),
        )
        self.message_user(
            request,
            f"{counted(len(chosen), 'correction')} without findings are being accepted.",
            messages.SUCCESS,
        )
        return redirect("admin:jobs_job_change", job.pk)

    def whole_crop_view(self, request: HttpRequest, pk: int) -> FileResponse:
        """The crop with what is round it."""
        check_permission(request, REVIEW)
        correction = get_object_or_404(Correction, pk=pk)
        return private_file(correction.crop, "image/jpeg", kept=CROP_KEPT)


def _as_id(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def _problem_of(error: Exception) -> Problem:
    problem = problem_of(error)
    if problem is None:
        raise error
    return problem


def _named(correction: Correction) -> str:
    return f"Correction {correction.pk} to {correction.sku or 'not a product'}"


def _lately_reviewed() -> QuerySet[Correction]:
    """What may have been pressed by mistake."""
    return list_corrections().exclude(reviewed_at=None).order_by("-reviewed_at")[:5]


def _show_crop(correction: Correction) -> ShownCrop | None:
    if not correction.crop and keep_crop(correction):
        correction.save(update_fields=["crop", "crop_box", "updated_at"])
    try:
        with correction.crop.open("rb") as file:
            crop = images.decode(file.read(), image_limits())
    except (FileNotFoundError, ValueError, ImageRefused):
        return None
    return ShownCrop(
        correction, crop.width, crop.height, correction.crop_box or [0, 0, crop.width, crop.height]
    )


def _nearest_of(correction: Correction, whose: str) -> int | None:
    nearest = (correction.last_check or {}).get(whose)
    return None if nearest is None else nearest["reference_image"]


def _show_product(product: Product | None, first: int | None) -> ShownProduct | None:
    """The product's pictures, that which speaks for it first, then the newest."""
    if product is None:
        return None
    pictures = product.reference_images.order_by("-pk")
    shown = list(pictures[:PICTURES_SHOWN])
    nearest = pictures.filter(pk=first or 0).first()
    if nearest is not None:
        shown = [nearest, *(one for one in shown if one.pk != first)][:PICTURES_SHOWN]
    return ShownProduct(product, shown, pictures.count())


def _check_context(correction: Correction) -> dict[str, Any]:
    check = correction.last_check or {}
    changed = [*check.get("worse", []), *check.get("better", [])]
    pictures = ReferenceImage.objects.in_bulk([one["reference_image"] for one in changed])

    def show(name: str) -> list[ShownChange]:
        return [
            ShownChange(one, pictures.get(one["reference_image"]))
            for one in check.get(name, [])[:CHANGED_SHOWN]
        ]

    return {
        "correction": correction,
        "check": check if "findings" in check else None,
        "not_checked": check.get("problem"),
        "worse": show("worse"),
        "n_worse": len(check.get("worse", [])),
        "better": show("better"),
        "n_better": len(check.get("better", [])),
    }
