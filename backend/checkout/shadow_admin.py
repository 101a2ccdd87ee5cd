"""The admin's pages of what runs in the shadow: on a generation's page what it found, and all its items as a list."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.urls import URLPattern, path, reverse
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timezone import localtime
from unfold.contrib.filters.admin import DropdownFilter, RelatedDropdownFilter
from unfold.decorators import display

from backend.checkout.crops import decode_query_image
from backend.checkout.display import RESULT_WORDS
from backend.checkout.models import Difference, ShadowedItem
from backend.checkout.shadow_report import Right, list_shadowed_items, summarise_shadow
from backend.common.admin import ReadOnlyAdmin, check_permission, label
from backend.common.problems import Problem
from backend.gallery.admin import OPERATE, GenerationAdmin, may_operate
from backend.gallery.models import Generation, GenerationState, Shadow
from backend.gallery.selectors import get_generation, get_shadow
from backend.gallery.shadows import end_shadow, start_shadow
from recognition import images
from recognition.ranking import Result

SHARE = 0.1  # offered
ITEMS_SHOWN = 8
PRODUCTS_SHOWN = 10
# The query image may be deleted any hour; the browser must not keep a piece of it much longer.
CROP_KEPT = timedelta(minutes=5)

DIFFERENCE_LABELS = {
    Difference.SAME: "success",
    Difference.ANOTHER_PRODUCT: "danger",
    Difference.CONFIRM_TO_RECOGNISED: "info",
    Difference.UNKNOWN_TO_RECOGNISED: "info",
    Difference.UNKNOWN_TO_CONFIRM: "info",
}
RIGHT_LABELS = {Right.CANDIDATE: "success", Right.ACTIVE: "danger", Right.NEITHER: "warning"}
RIGHT_WORDS = {
    Right.BOTH: "both right",
    Right.ACTIVE: "the answer was right",
    Right.CANDIDATE: "the shadow is right",
    Right.NEITHER: "both wrong",
}


class ShareForm(forms.Form):
    share = forms.FloatField()


class ShadowedGenerationAdmin(GenerationAdmin):
    """Generations, with what one that is ready would have answered to live recognitions."""

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("<int:pk>/shadow/", view(self.shadow_view), name="gallery_generation_shadow"),
            path("<int:pk>/shadow/end/", view(self.end_shadow_view), name="gallery_generation_end_shadow"),
            *super().get_urls(),
        ]

    def describe_life(self, request: HttpRequest, generation: Generation) -> dict[str, Any]:
        shadow = get_shadow(generation)
        ready = generation.state == GenerationState.READY
        context: dict[str, Any] = {
            "shadow": shadow,
            "may_shadow": may_operate(request) and ready,
            "offered_share": SHARE if shadow is None else shadow.share,
        }
        if shadow is not None:
            context |= _describe_shadow(shadow)
        return super().describe_life(request, generation) | context

    def shadow_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """POST `share`: turn it on, or change it."""
        if refused := self._refuse_get(request):
            return refused
        form = ShareForm(request.POST)
        try:
            if not form.is_valid():
                raise Problem(
                    400,
                    "invalid",
                    f"found a share of {request.POST.get('share', '')!r}, a number from 0 to 1 is wanted",
                )
            shadow = start_shadow(
                get_generation(pk), share=form.cleaned_data["share"], started_by=request.user.get_username()
            )
            self.message_user(
                request, f"Runs in the shadow on a share of {shadow.share:.4g}.", messages.SUCCESS
            )
        except Problem as problem:
            self.message_user(request, problem.detail, messages.ERROR)
        return redirect("admin:gallery_generation_change", pk)

    def end_shadow_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        if refused := self._refuse_get(request):
            return refused
        try:
            end_shadow(get_generation(pk), ended_by=request.user.get_username())
            self.message_user(request, "Runs in the shadow no more; what was found stays.", messages.SUCCESS)
        except Problem as problem:
            self.message_user(request, problem.detail, messages.ERROR)
        return redirect("admin:gallery_generation_change", pk)

    def _refuse_get(self, request: HttpRequest) -> HttpResponse | None:
        check_permission(request, OPERATE)
        return None if request.method == "POST" else HttpResponseNotAllowed(["POST"])


def _describe_shadow(shadow: Shadow) -> dict[str, Any]:
    summary = summarise_shadow(shadow)
    listed = reverse("admin:checkout_shadoweditem_changelist")

    def link(**filters: Any) -> str:
        return f"{listed}?{urlencode({'shadow__id__exact': shadow.pk, **filters})}"

    kinds = [
        (Difference(kind).label, n, link(difference=kind)) for kind, n in summary.differences.items() if n
    ]
    return {
        "summary": summary,
        "shadow_rates": [
            (name, share.n, share.n_same, [f"{100 * one:.1f}" for one in share.agreement or ()])
            for name, share in (("Recognitions", summary.recognitions), ("Items", summary.items))
        ],
        "shadow_kinds": sorted(kinds, key=lambda one: -one[1]),
        "shadow_products": summary.products[:PRODUCTS_SHOWN],
        "shadow_items": show_items(
            list_shadowed_items(shadow).exclude(difference=Difference.SAME)[:ITEMS_SHOWN]
        ),
        "n_differing": summary.items.n - summary.items.n_same,
        "shadow_right": [(RIGHT_WORDS[one], summary.right[one], link(right=one)) for one in Right],
        "shadow_list": link(difference="differing"),
    }


def show_items(items: QuerySet[Any]) -> list[dict[str, Any]]:
    """Items as the generation's page lists them."""
    return [
        {
            "item": one,
            "crop": show_crop(one),
            "difference": show_difference(one),
            "answered": describe_answer(one.item.result, one.item.sku, one.item.name),
            "answered_figures": describe_figures(one.item.similarity, one.active_confidence),
            "shadow": describe_answer(one.result, one.sku, one.name),
            "shadow_figures": describe_figures(one.similarity, one.confidence),
            "right": show_right(one),
        }
        for one in items
    ]


def show_crop(shadowed: Any) -> SafeString | str:
    """The crop's picture, while there is one."""
    if not shadowed.item.recognition.image:
        return "deleted"
    return format_html(
        '<img class="ck-thumbnail" src="{}" alt="Crop of the item" loading="lazy">',
        reverse("admin:checkout_shadoweditem_crop", args=[shadowed.pk]),
    )


def show_difference(shadowed: Any) -> SafeString:
    kind = Difference(shadowed.difference)
    return label(kind.label, DIFFERENCE_LABELS.get(kind, "warning"))


def describe_answer(result: str, sku: str, name: str) -> str:
    return f"{sku} {name}, {RESULT_WORDS[Result(result)]}" if sku else RESULT_WORDS[Result(result)]


def describe_figures(similarity: float | None, confidence: float | None) -> str:
    figures: Mapping[str, float | None] = {"similarity": similarity, "confidence": confidence}
    return ", ".join(f"{name} {figure:.3f}" for name, figure in figures.items() if figure is not None)


def show_right(shadowed: Any) -> SafeString | str:
    if shadowed.right is None:
        return "-"
    right = Right(shadowed.right)
    return format_html(
        "{} {}",
        label(RIGHT_WORDS[right], RIGHT_LABELS.get(right, "")),
        shadowed.corrected_sku or "not a product",
    )


class DifferenceFilter(DropdownFilter):
    title = "difference"
    parameter_name = "difference"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("differing", "All that differ"), *((kind.value, kind.label) for kind in Difference)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match self.value():
            case None | "":
                return queryset
            case "differing":
                return queryset.exclude(difference=Difference.SAME)
        return queryset.filter(difference=self.value())


class RightFilter(DropdownFilter):
    title = "who was right"
    parameter_name = "right"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            ("corrected", "All that were corrected"),
            *((one.value, RIGHT_WORDS[one].capitalize()) for one in Right),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match self.value():
            case None | "":
                return queryset
            case "corrected":
                return queryset.exclude(right=None)
        return queryset.filter(right=self.value())


@admin.register(ShadowedItem)
class ShadowedItemAdmin(ReadOnlyAdmin):
    """Items beside what a generation in the shadow made of them."""

    empty_note = "Nothing was run in the shadow. A generation that is ready is run so from its page."
    list_display = [
        "shown_crop", "shown_answer", "shown_shadow", "shown_difference", "shown_right", "shown_recognition",
    ]  # fmt: skip
    list_display_links = None
    list_filter = [DifferenceFilter, RightFilter, ("shadow", RelatedDropdownFilter)]
    list_filter_submit = True
    list_per_page = 50
    show_full_result_count = False
    ordering = ["-id"]
    search_fields = ["sku", "name", "item__sku", "item__name"]
    search_help_text = "Product or SKU, of either answer"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return list_shadowed_items()

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.crop_view, cacheable=True)
        return [path("<int:pk>/crop/", view, name="checkout_shadoweditem_crop"), *super().get_urls()]

    def crop_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The item's box, cut out of the query image while that is there: nothing is kept for the shadow's sake."""
        check_permission(request, "checkout.view_recognition")
        shadowed = ShadowedItem.objects.select_related("item__recognition").filter(pk=pk).first()
        pixels = None if shadowed is None else _cut_out(shadowed)
        if pixels is None:
            raise Http404("there is no crop of it")
        response = HttpResponse(images.encode_jpeg(pixels, quality=80), content_type="image/jpeg")
        response["Cache-Control"] = f"private, max-age={int(CROP_KEPT.total_seconds())}"
        return response

    @display(description="Crop")
    def shown_crop(self, shadowed: Any) -> SafeString | str:
        return show_crop(shadowed)

    @display(description="Answered")
    def shown_answer(self, shadowed: Any) -> SafeString:
        item = shadowed.item
        return _two_lines(
            describe_answer(item.result, item.sku, item.name),
            describe_figures(item.similarity, shadowed.active_confidence),
        )

    @display(description="In the shadow")
    def shown_shadow(self, shadowed: Any) -> SafeString:
        return _two_lines(
            describe_answer(shadowed.result, shadowed.sku, shadowed.name),
            describe_figures(shadowed.similarity, shadowed.confidence),
        )

    @display(description="Difference", ordering="difference")
    def shown_difference(self, shadowed: Any) -> SafeString:
        return show_difference(shadowed)

    @display(description="Corrected to")
    def shown_right(self, shadowed: Any) -> SafeString | str:
        return show_right(shadowed)

    @display(description="Recognition", ordering="item__recognition")
    def shown_recognition(self, shadowed: Any) -> SafeString:
        recognition = shadowed.item.recognition
        return format_html(
            '<a class="ck-link" href="{}#item-{}">{}, item {}</a>',
            reverse("admin:checkout_recognition_change", args=[recognition.pk]),
            shadowed.item.number,
            date_format(localtime(recognition.created_at), "DATETIME_FORMAT"),
            shadowed.item.number,
        )


def _two_lines(first: str, second: str) -> SafeString:
    return format_html('{}<br><span class="ck-quiet">{}</span>', first, second)


def _cut_out(shadowed: ShadowedItem) -> Any:
    photo = decode_query_image(shadowed.item.recognition, settings.DECODE_LONGEST_SIDE)
    if photo is None:
        return None
    x1, y1, x2, y2 = shadowed.item.box
    return photo.crop((x1, y1, x2, y2))
