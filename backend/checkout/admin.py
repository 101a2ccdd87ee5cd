"""Recognising a photo, and looking at recognitions: the photo with its boxes, and what was said of them."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import Exists, OuterRef, QuerySet
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, JsonResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timezone import localtime
from unfold.contrib.filters.admin import ChoicesDropdownFilter, DropdownFilter, RelatedDropdownFilter
from unfold.decorators import action, display

from backend.catalogue.forms import PictureToBox
from backend.catalogue.models import ProductSet
from backend.catalogue.services import image_limits, read_upload
from backend.checkout import metrics, product_admin, services  # noqa: F401  a product's page registers itself
from backend.checkout.crops import decode_query_image
from backend.checkout.display import RESULT_WORDS, ShownRecognition, show_recognition
from backend.checkout.forms import MissedItemForm
from backend.checkout.models import Correction, RecognisedItem, Recognition, RecognitionState, ReviewState
from backend.checkout.recogniser import get_serving
from backend.checkout.review_admin import REVIEW, ReviewPages
from backend.checkout.selectors import list_confusions
from backend.common.admin import ReadOnlyAdmin, check_permission, label, private_file
from backend.common.problems import Problem, problem_of, problem_response
from backend.gallery.checks import FINDINGS
from recognition import images
from recognition.ranking import Result

# A query image may be deleted any hour; the browser must not keep it much longer.
QUERY_IMAGE_KEPT = timedelta(minutes=5)
THUMBNAIL_SIDE = 320
CONFUSIONS_SHOWN = 100

STATE_LABELS = {
    RecognitionState.DONE: "success",
    RecognitionState.QUEUED: "info",
    RecognitionState.FAILED: "danger",
    RecognitionState.EXPIRED: "warning",
}
RESULT_LABELS = {
    Result.RECOGNISED: "success",
    Result.NEEDS_CONFIRMATION: "warning",
    Result.UNKNOWN: "danger",
}
# The choices of a correction that are no SKU; no SKU begins so.
NO_PRODUCT, OTHER_PRODUCT = "-none", "-other"


class ResultFilter(DropdownFilter):
    title = "result"
    parameter_name = "result"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            (Result.UNKNOWN, "With unknown items"),
            (Result.NEEDS_CONFIRMATION, "With items to confirm"),
            (Result.RECOGNISED, "With recognised items"),
            ("corrected", "Corrected"),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Recognition]) -> QuerySet[Recognition]:
        if self.value() == "corrected":
            return queryset.filter(Exists(Correction.objects.filter(recognition=OuterRef("pk"))))
        if self.value() in list(Result):
            items = RecognisedItem.objects.filter(recognition=OuterRef("pk"), result=self.value())
            return queryset.filter(Exists(items))
        return queryset


@admin.register(Recognition)
class RecognitionAdmin(ReadOnlyAdmin):
    empty_note = "No photo was recognised yet. Send one from a device, or on the page Recognise."
    list_display = ["shown_photo", "created_at", "shown_items", "shown_total", "asked_by", "shown_state"]
    list_display_links = ["shown_photo", "created_at"]
    list_filter = [
        ("state", ChoicesDropdownFilter),
        ResultFilter,
        ("product_set", RelatedDropdownFilter),
        ("device", RelatedDropdownFilter),
    ]
    list_filter_submit = True
    list_per_page = 50
    search_fields = ["items__name", "items__sku", "asked_by"]
    search_help_text = "Product, SKU or who asked"
    show_full_result_count = False

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("recognise/", view(self.recognise_view), name="checkout_recognition_recognise"),
            path(
                "<uuid:pk>/photo/",
                view(self.photo_view, cacheable=True),
                name="checkout_recognition_photo",
            ),
            path(
                "<uuid:pk>/thumbnail/",
                view(self.thumbnail_view, cacheable=True),
                name="checkout_recognition_thumbnail",
            ),
            path("<uuid:pk>/correct/", view(self.correct_view), name="checkout_recognition_correct"),
            path("<uuid:pk>/missed/", view(self.missed_view), name="checkout_recognition_missed"),
            *super().get_urls(),
        ]

    # --- the list -----------------------------------------------------------------------------------------
    @display(description="Photo")
    def shown_photo(self, recognition: Recognition) -> SafeString | str:
        if not recognition.image:
            return "deleted"
        return format_html(
            '<img class="ck-thumbnail" src="{}" alt="Query image" loading="lazy">',
            reverse("admin:checkout_recognition_thumbnail", args=[recognition.pk]),
        )

    @display(description="Items")
    def shown_items(self, recognition: Recognition) -> SafeString | str:
        return summarise_items(recognition)

    @display(description="Total")
    def shown_total(self, recognition: Recognition) -> str:
        basket = (recognition.answer or {}).get("basket", {})
        if basket.get("total") is None:
            return "-"
        return f"{basket['total']} {basket['currency']}{'' if basket['complete'] else ', not complete'}"

    @display(description="State", ordering="state")
    def shown_state(self, recognition: Recognition) -> SafeString:
        return label(recognition.state, STATE_LABELS[RecognitionState(recognition.state)])

    # --- recognise ----------------------------------------------------------------------------------------
    def recognise_view(self, request: HttpRequest) -> HttpResponse:
        """The page where a photo is dropped; a POST of it answers JSON: the result's HTML, or the problem."""
        check_permission(request, "checkout.recognise_photo")
        if request.method == "POST":
            return self._recognise(request)
        context = {
            **self.admin_site.each_context(request),
            "title": "Recognise",
            "product_sets": ProductSet.objects.all(),
            "max_megabytes": settings.IMAGE_MAX_BYTES // 1_000_000,
            **_readiness(),
        }
        return TemplateResponse(request, "checkout/recognise.html", context)

    def _recognise(self, request: HttpRequest) -> HttpResponse:
        photo = request.FILES.get("image")
        try:
            if photo is None:
                raise Problem(400, "invalid", "There is no photo in the request: choose one.")
            slug = request.POST.get("product_set", "")
            product_set = get_object_or_404(ProductSet, slug=slug) if slug else None
            with metrics.counted_refusals():
                recognition = services.recognise(
                    data=read_upload(photo, settings.IMAGE_MAX_BYTES),
                    asked_by=request.user.get_username(),
                    product_set=product_set,
                )
        except Exception as error:
            problem = problem_of(error)
            if problem is None:
                raise
            return problem_response(problem)
        answer = recognition.answer
        assert answer is not None  # it is done
        metrics.observe_answer(answer)
        recognition = Recognition.objects.select_related("threshold_set").get(pk=recognition.pk)
        shown = show_recognition(recognition)
        if answer["models"]["detector"] is None:
            shown = replace(shown, notes=())  # the page said it before the photo was sent
        context = self._result_context(request, shown)
        return JsonResponse(
            {
                "html": render_to_string("checkout/result.html", context, request),
                "url": reverse("admin:checkout_recognition_change", args=[recognition.pk]),
            }
        )

    # --- one recognition ----------------------------------------------------------------------------------
    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        check_permission(request, "checkout.view_recognition")
        recognition = self.get_object(request, object_id)
        if not isinstance(recognition, Recognition):
            raise Http404(f"there is no recognition {object_id}")
        context = {
            **self.admin_site.each_context(request),
            "title": "Recognition",
            "opts": self.opts,
            "original": recognition,
            "recognition": recognition,
            "state": self.shown_state(recognition),
        }
        if recognition.answer is not None:
            context |= self._result_context(request, show_recognition(recognition))
        return TemplateResponse(request, "checkout/recognition.html", context)

    def _result_context(self, request: HttpRequest, shown: ShownRecognition) -> dict[str, Any]:
        return {
            "shown": shown,
            "days": settings.QUERY_IMAGE_DAYS,
            "may_correct": request.user.has_perm("checkout.add_correction"),
            "may_see_pictures": request.user.has_perm("catalogue.view_referenceimage"),
            "no_product": NO_PRODUCT,
            "other_product": OTHER_PRODUCT,
        }

    def photo_view(self, request: HttpRequest, pk: UUID) -> FileResponse:
        check_permission(request, "checkout.view_recognition")
        recognition = get_object_or_404(Recognition, pk=pk)
        return private_file(
            recognition.image, f"image/{recognition.image_format.lower()}", kept=QUERY_IMAGE_KEPT
        )

    def thumbnail_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        check_permission(request, "checkout.view_recognition")
        small = _decode_small(get_object_or_404(Recognition, pk=pk), THUMBNAIL_SIDE)
        return _private_jpeg(small.pixels)

    def correct_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """POST `item` and `choice`: a SKU, NO_PRODUCT, or OTHER_PRODUCT with the SKU in `other`."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        check_permission(request, "checkout.add_correction")
        recognition = get_object_or_404(Recognition.objects.select_related("threshold_set"), pk=pk)
        choice = request.POST.get("choice", "")
        sku = request.POST.get("other", "").strip() if choice == OTHER_PRODUCT else choice
        try:
            if not sku:
                raise Problem(400, "invalid", "Say which product it is, or that it is none.")
            services.correct(
                recognition,
                made_by=request.user.get_username(),
                item=_as_number(request.POST.get("item", "")),
                sku=None if choice == NO_PRODUCT else sku,
            )
        except Problem as problem:
            if not request.accepts("text/html"):
                return problem_response(problem)
            self.message_user(request, problem.detail, messages.ERROR)
            return redirect("admin:checkout_recognition_change", pk)
        if request.accepts("text/html"):
            return redirect("admin:checkout_recognition_change", pk)
        context = self._result_context(request, show_recognition(recognition))
        return JsonResponse({"html": render_to_string("checkout/items.html", context, request)})

    def missed_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """The page on which an item that was missed is boxed and named: a correction without an item."""
        check_permission(request, "checkout.add_correction")
        recognition = get_object_or_404(Recognition, pk=pk, state=RecognitionState.DONE)
        form = MissedItemForm(
            request.POST if request.method == "POST" else None, _picture_to_box(recognition)
        )
        if form.is_valid() and self._add_missed(request, recognition, form):
            return redirect("admin:checkout_recognition_change", pk)
        context = {
            **self.admin_site.each_context(request),
            "title": "Missed item",
            "opts": self.opts,
            "original": recognition,
            "recognition": recognition,
            "form": form,
        }
        return TemplateResponse(request, "checkout/missed.html", context)

    def _add_missed(self, request: HttpRequest, recognition: Recognition, form: MissedItemForm) -> bool:
        """Whether it was stored; if not, the form says at its field why."""
        try:
            correction = services.correct(
                recognition, made_by=request.user.get_username(), item=None, **form.cleaned_data
            )
        except ValidationError as error:
            form.add_error(None, error)  # it names the field itself
            return False
        except Problem as problem:
            form.add_error("sku" if problem.code == "unknown-sku" else None, problem.detail)
            return False
        self.message_user(request, f"The missed item was added: {correction.product}.", messages.SUCCESS)
        return True


def _picture_to_box(recognition: Recognition) -> PictureToBox:
    assert recognition.answer is not None  # it is done
    size = recognition.answer["image"]
    missed = recognition.corrections.filter(item=None).values_list("box", flat=True)
    return PictureToBox(
        url=reverse("admin:checkout_recognition_photo", args=[recognition.pk]),
        width=size["width"],
        height=size["height"],
        alt="Query image",
        known=[*(item["box"] for item in recognition.answer["items"]), *missed],
    )


def _decode_small(recognition: Recognition, longest_side: int) -> images.DecodedImage:
    """The query image for a list.

    Raises:
        Http404: it is gone, or was refused.
    """
    small = decode_query_image(recognition, longest_side)
    if small is None:
        raise Http404("the query image is gone, or was refused")
    return small


def _private_jpeg(pixels: Any) -> HttpResponse:
    response = HttpResponse(images.encode_jpeg(pixels, quality=80), content_type="image/jpeg")
    response["Cache-Control"] = f"private, max-age={int(QUERY_IMAGE_KEPT.total_seconds())}"
    return response


def _as_number(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise Problem(400, "invalid", f"{text!r} is no item's number") from error


def _readiness() -> dict[str, Any]:
    """Whether a photo can be recognised, and what the one who sends it should know before."""
    try:
        serving = get_serving()
    except Problem as problem:
        return {"not_ready": problem.detail}
    notes = []
    if serving.detector is None:
        notes.append("No detector is installed: the whole photo is taken as one product.")
    if serving.threshold_set is None:
        notes.append("No thresholds are fitted yet: every answer needs confirmation.")
    return {"notes": notes}


def summarise_items(recognition: Recognition) -> SafeString | str:
    """How many items of which result, as coloured words."""
    items = (recognition.answer or {}).get("items", [])
    counts = {result: sum(item["result"] == result for item in items) for result in Result}
    words = [label(_in_words(n, result), RESULT_LABELS[result]) for result, n in counts.items() if n]
    return SafeString(" ".join(words)) if words else "-"


def _in_words(n: int, result: Result) -> str:
    return (
        f"{n} need confirmation"
        if n > 1 and result is Result.NEEDS_CONFIRMATION
        else f"{n} {RESULT_WORDS[result]}"
    )


REVIEW_LABELS = {
    ReviewState.OPEN: "warning",
    ReviewState.ACCEPTED: "success",
    ReviewState.REJECTED: "",
    ReviewState.SUPERSEDED: "",
}


class FindingsFilter(DropdownFilter):
    title = "findings"
    parameter_name = "findings"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("none", "Without findings"), *((name, name.capitalize()) for name in FINDINGS)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Correction]) -> QuerySet[Correction]:
        match self.value():
            case None | "":
                return queryset
            case "none":
                return queryset.filter(last_check__findings=[])
        return queryset.filter(last_check__findings__contains=[{"finding": self.value()}])


@admin.register(Correction)
class CorrectionAdmin(ReviewPages, ReadOnlyAdmin):
    """What was answered and what it really was: where products are confused, their pictures want looking at."""

    empty_note = "When an answer was wrong, say on its page what the item really was; it is then listed here."
    list_display = [
        "shown_crop", "answered", "really", "shown_state", "shown_findings", "shown_recognition", "made_by",
        "created_at",
    ]  # fmt: skip
    list_display_links = None
    list_select_related = ["item", "recognition", "product"]
    list_filter = [("state", ChoicesDropdownFilter), FindingsFilter]
    list_filter_submit = True
    ordering = ["-created_at"]
    actions_list = ["start_review", "show_confusions"]
    list_per_page = 50
    search_fields = ["sku", "item__sku", "item__name", "product__name", "made_by"]
    search_help_text = "Product, SKU or who corrected"

    def get_urls(self) -> list[URLPattern]:
        crop_view = self.admin_site.admin_view(self.crop_view, cacheable=True)
        return [path("<int:pk>/crop/", crop_view, name="checkout_correction_crop"), *super().get_urls()]

    def crop_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The box alone."""
        check_permission(request, "checkout.view_correction")
        correction = get_object_or_404(Correction, pk=pk)
        try:
            with correction.crop.open("rb") as file:
                whole = images.decode(file.read(), image_limits())
        except (FileNotFoundError, ValueError) as error:
            raise Http404("there is no crop of it") from error
        x1, y1, x2, y2 = correction.crop_box or (0, 0, whole.width, whole.height)
        return _private_jpeg(whole.crop((x1, y1, x2, y2)))

    def has_review_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(REVIEW)

    @action(description="Review", url_path="start-review", icon="fact_check", permissions=["review"])
    def start_review(self, request: HttpRequest) -> HttpResponse:
        return redirect("admin:checkout_correction_review")

    @action(
        description="Taken for each other",
        url_path="confusions",
        icon="compare_arrows",
        permissions=["view"],
    )
    def show_confusions(self, request: HttpRequest) -> HttpResponse:
        """How often which product was taken for which: there the catalogue wants work."""
        context = {
            **self.admin_site.each_context(request),
            "title": "Taken for each other",
            "opts": self.opts,
            "confusions": list_confusions(CONFUSIONS_SHOWN),
            "limit": CONFUSIONS_SHOWN,
        }
        return TemplateResponse(request, "checkout/confusions.html", context)

    @display(description="Crop")
    def shown_crop(self, correction: Correction) -> SafeString | str:
        if not correction.crop:
            return "deleted"
        return format_html(
            '<img class="ck-thumbnail" src="{}" alt="Crop of the item" loading="lazy">',
            reverse("admin:checkout_correction_crop", args=[correction.pk]),
        )

    @display(description="Review", ordering="state")
    def shown_state(self, correction: Correction) -> SafeString:
        return format_html(
            '<a href="{}" title="{}">{}</a>',
            reverse("admin:checkout_correction_review_one", args=[correction.pk]),
            "Review it" if correction.state == ReviewState.OPEN else f"By {correction.reviewed_by or '-'}",
            label(correction.state, REVIEW_LABELS[ReviewState(correction.state)]),
        )

    @display(description="Findings")
    def shown_findings(self, correction: Correction) -> SafeString | str:
        check = correction.last_check
        if not correction.sku:
            return "-"
        if check is None:
            return "not checked yet"
        if "problem" in check:
            return label("no picture", "warning")
        names = list(dict.fromkeys(one["finding"] for one in check["findings"]))
        return SafeString(" ".join(label(name, "warning") for name in names)) if names else "none"

    @display(description="Recognition")
    def shown_recognition(self, correction: Correction) -> SafeString:
        url = reverse("admin:checkout_recognition_change", args=[correction.recognition_id])
        item = "missed item" if correction.item is None else f"item {correction.item.number}"
        return format_html(
            '<a class="ck-link" href="{}">{}, {}</a>',
            url,
            date_format(localtime(correction.recognition.created_at), "DATETIME_FORMAT"),
            item,
        )

    @display(description="Answered")
    def answered(self, correction: Correction) -> str:
        item = correction.item
        if item is None:
            return "nothing: it was missed"
        return f"{item.sku} {item.name}" if item.sku else item.get_result_display()

    @display(description="Really")
    def really(self, correction: Correction) -> str:
        if not correction.sku:
            return "not a product"
        return f"{correction.sku} {correction.product.name if correction.product else ''}"
