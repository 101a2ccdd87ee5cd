"""What the gallery adds to the pages of products and pictures, and its own pages, which people mostly read."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any, get_args

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.forms.widgets import Script
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.admin import TabularInline
from unfold.contrib.filters.admin import ChoicesDropdownFilter, DropdownFilter, RelatedDropdownFilter
from unfold.decorators import display
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldBooleanSwitchWidget

from backend.catalogue.admin import ProductAdmin, ReferenceImageAdmin, ShownPicture, thumbnail_url
from backend.catalogue.models import Product, ReferenceImage
from backend.common.admin import ReadOnlyAdmin, check_permission, facts, label
from backend.common.problems import Problem
from backend.common.words import counted
from backend.gallery.checks import check_embedded
from backend.gallery.fit_display import show_fit, show_held_out, show_products
from backend.gallery.generations import RETIRABLE, retire
from backend.gallery.models import (
    Embedding,
    EmbeddingState,
    Generation,
    GenerationState,
    InstalledModel,
    ModelTask,
    ThresholdSet,
)
from backend.gallery.reembedding import get_job, start_reembedding
from backend.gallery.selectors import count_ledger, get_active_generation
from backend.gallery.services import try_again
from backend.jobs.admin import show_progress
from backend.jobs.models import UNFINISHED
from recognition.errors import GalleryUnavailable
from recognition.index import IndexSettings, IndexType

STATE_LABELS = {
    EmbeddingState.EMBEDDED: "success",
    EmbeddingState.PENDING: "warning",
    EmbeddingState.REMOVING: "warning",
    EmbeddingState.FAILED: "danger",
}
GENERATION_LABELS = {
    GenerationState.ACTIVE: "success",
    GenerationState.READY: "info",
    GenerationState.STANDBY: "info",
    GenerationState.BUILDING: "warning",
    GenerationState.VERIFYING: "warning",
    GenerationState.FAILED: "danger",
}


def _embeddings_of(reference_image_ids: Collection[int]) -> dict[int, Embedding]:
    """The active generation's ledger rows of these pictures, by picture."""
    generation = get_active_generation()
    if generation is None:
        return {}
    rows = generation.embeddings.filter(reference_image_id__in=reference_image_ids)
    return {row.reference_image_id: row for row in rows}


def _ids_in_state(state: str) -> QuerySet[Any]:
    """Pictures in a state of the active generation's ledger."""
    return Embedding.objects.filter(generation__state=GenerationState.ACTIVE, state=state).values(
        "reference_image_id"
    )


class EmbeddingFilter(DropdownFilter):
    """Products that have a picture in that state; pictures in that state."""

    title = "embedding"
    parameter_name = "embedding"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, str]]:
        return [
            (EmbeddingState.PENDING, "Not embedded yet"),
            (EmbeddingState.FAILED, "Failed"),
            (EmbeddingState.EMBEDDED, "Embedded"),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        state = self.value()
        if state not in EmbeddingState.values:
            return queryset
        if queryset.model is ReferenceImage:
            return queryset.filter(pk__in=_ids_in_state(state))
        in_state = ReferenceImage.objects.filter(pk__in=_ids_in_state(state))
        return queryset.filter(pk__in=in_state.values("product"))


def _tell_of_retry(model_admin: Any, request: HttpRequest, n_pending: int) -> None:
    if n_pending:
        model_admin.message_user(
            request, f"Pending again: {counted(n_pending, 'embedding')}.", messages.SUCCESS
        )
    else:
        model_admin.message_user(request, "None of these had failed.", messages.INFO)


admin.site.unregister(Product)
admin.site.unregister(ReferenceImage)


@admin.register(Product)
class EnrolledProductAdmin(ProductAdmin):
    """Products, with what became of their pictures in the active gallery."""

    list_display = [*ProductAdmin.list_display[:-1], "shown_embedding", "shown_state"]
    list_filter = [*ProductAdmin.list_filter, EmbeddingFilter]
    actions = [*ProductAdmin.actions, "embed_again"]

    def describe_products(self, products: Sequence[Any]) -> None:
        super().describe_products(products)
        owner = dict(ReferenceImage.objects.filter(product__in=products).values_list("pk", "product_id"))
        counts: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for reference_image_id, row in _embeddings_of(owner.keys()).items():
            counts[owner[reference_image_id]][row.state] += 1
        for product in products:
            product.n_by_state = counts[product.pk]

    @display(description="Embedded")
    def shown_embedding(self, product: Any) -> SafeString | str:
        counts = product.n_by_state
        if not product.n_of_pictures:
            return "-"
        n_embedded = counts[EmbeddingState.EMBEDDED]
        if counts[EmbeddingState.FAILED]:
            return label(f"{counts[EmbeddingState.FAILED]} failed", "danger")
        if n_embedded < product.n_of_pictures:
            return label(f"{n_embedded} of {product.n_of_pictures}", "warning")
        return label("all", "success")

    def show_pictures(self, product: Product) -> list[ShownPicture]:
        images = [picture.image for picture in super().show_pictures(product)]
        rows = _embeddings_of([image.pk for image in images])
        return [
            ShownPicture(image, rows[image.pk].state, rows[image.pk].error)
            if image.pk in rows
            else ShownPicture(image)
            for image in images
        ]

    @admin.action(description="Try failed pictures again", permissions=["change"])
    def embed_again(self, request: HttpRequest, products: QuerySet[Product]) -> None:
        ids = ReferenceImage.objects.filter(product__in=products).values_list("pk", flat=True)
        _tell_of_retry(self, request, try_again(list(ids)))


@admin.register(ReferenceImage)
class EnrolledReferenceImageAdmin(ReferenceImageAdmin):
    """Pictures, with what became of them in the active gallery."""

    list_display = [*ReferenceImageAdmin.list_display, "shown_embedding"]
    list_filter = [*ReferenceImageAdmin.list_filter, EmbeddingFilter]
    actions = [*ReferenceImageAdmin.actions, "embed_again"]
    readonly_fields = [*ReferenceImageAdmin.readonly_fields, "shown_embedding", "shown_neighbours"]
    fieldsets = [
        *ReferenceImageAdmin.fieldsets,
        ("Gallery", {"fields": ["shown_embedding", "shown_neighbours"]}),
    ]

    @display(description="Embedding")
    def shown_embedding(self, image: ReferenceImage) -> SafeString | str:
        row = _embeddings_of([image.pk]).get(image.pk)
        if row is None:
            return "no gallery yet"
        state = label(row.state, STATE_LABELS[EmbeddingState(row.state)])
        return format_html("{} {}", state, row.error)

    @display(description="What its neighbours say")
    def shown_neighbours(self, image: ReferenceImage) -> SafeString | str:
        """Asked when it is looked at, for it changes with every picture that comes or goes."""
        generation = get_active_generation()
        try:
            findings = None if generation is None else check_embedded(generation, image)
        except GalleryUnavailable:
            return "Milvus does not answer"
        if findings is None:
            return "not embedded yet"
        told = [one for one in findings if one.finding not in image.quality_findings]
        if not told:
            return "nothing against it"
        return format_html_join(
            "", "<p>{} {}.</p>", ((label(one.finding, "warning"), one.detail) for one in told)
        )

    @admin.action(description="Try failed pictures again", permissions=["change"])
    def embed_again(self, request: HttpRequest, images: QuerySet[ReferenceImage]) -> None:
        _tell_of_retry(self, request, try_again(list(images.values_list("pk", flat=True))))


@admin.register(InstalledModel)
class InstalledModelAdmin(ReadOnlyAdmin):
    empty_note = "Nothing is installed, so nothing can be recognised."
    list_display = ["name", "version", "task", "shown_use", "created_at"]
    list_filter = [("task", ChoicesDropdownFilter)]
    list_filter_submit = True
    fieldsets = [
        ("Model", {"fields": [("name", "version"), ("task", "shown_use"), "sha256", "created_at"]}),
        ("Card", {"fields": ["shown_card"]}),
    ]
    readonly_fields = ["shown_use", "shown_card"]
    list_before_template = "gallery/models_note.html"

    @display(description="In use")
    def shown_use(self, model: InstalledModel) -> SafeString | str:
        uses = model.is_active or model.generations.filter(state=GenerationState.ACTIVE).exists()
        return label("in use", "success") if uses else "-"

    @display(description="Card")
    def shown_card(self, model: InstalledModel) -> SafeString | str:
        return facts(model.card)


class ShownThresholds:
    """Thresholds as people compare them: to three places."""

    @display(description="Recognised from", ordering="recognised")
    def shown_recognised(self, threshold_set: ThresholdSet) -> str:
        # Where nothing keeps the rate, no similarity is enough.
        return "never" if threshold_set.recognised > 1 else f"{threshold_set.recognised:.3f}"

    @display(description="Margin", ordering="margin")
    def shown_margin(self, threshold_set: ThresholdSet) -> str:
        return f"{threshold_set.margin:.3f}"

    @display(description="Unknown below", ordering="unknown")
    def shown_unknown(self, threshold_set: ThresholdSet) -> str:
        return f"{threshold_set.unknown:.3f}"


THRESHOLDS = ["shown_recognised", "shown_margin", "shown_unknown"]


class ThresholdSetInline(ShownThresholds, TabularInline):
    model = ThresholdSet
    fields = ["strategy", "version", *THRESHOLDS, "created_at"]
    readonly_fields = fields
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


OPERATE = "gallery.change_generation"


def may_operate(request: HttpRequest) -> bool:
    """Whether the buttons are offered that change which gallery answers."""
    return request.user.has_perm(OPERATE)


class ReembedForm(forms.Form):
    """What to build another gallery with."""

    model = forms.ModelChoiceField(
        InstalledModel.objects.filter(task=ModelTask.EMBEDDER),
        label="Embedder",
        empty_label=None,
        widget=UnfoldAdminSelectWidget,
        help_text="With the active generation's, its vectors are copied and nothing is embedded.",
    )
    index = forms.ChoiceField(
        choices=[(index, index) for index in get_args(IndexType)], widget=UnfoldAdminSelectWidget
    )
    redetect = forms.BooleanField(
        label="Look for the main bodies again",
        required=False,
        widget=UnfoldBooleanSwitchWidget,
        help_text="The active detector proposes the boxes anew, but for those that people drew or sent. A picture has"
        " one box for all generations: where it changes, the active one embeds the picture again too.",
    )


@admin.register(Generation)
class GenerationAdmin(ReadOnlyAdmin):
    empty_note = "The first generation opens when an embedder is activated (manage.py activate_model)."
    list_display = ["__str__", "shown_state", "shown_index", "shown_ledger", "shown_job", "activated_at"]
    list_select_related = ["embedder"]
    list_filter = [("state", ChoicesDropdownFilter)]
    list_filter_submit = True
    list_before_template = "gallery/generations_note.html"
    change_form_outer_before_template = "gallery/generation_life.html"
    fieldsets = [
        (
            "Generation",
            {"fields": [("shown_state", "activated_at"), "shown_ledger", ("embedder", "detector")]},
        ),
        ("Gallery", {"fields": [("shown_index", "crop_margin"), "shown_origin", "collection"]}),
    ]  # fmt: skip
    readonly_fields = ["shown_state", "shown_ledger", "shown_index", "shown_origin", "activated_at"]
    inlines = [ThresholdSetInline]

    class Media:
        js = [Script("jobs/progress.js", type="module")]

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("reembed/", view(self.reembed_view), name="gallery_generation_reembed"),
            path("<int:pk>/retire/", view(self.retire_view), name="gallery_generation_retire"),
            *super().get_urls(),
        ]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        offered = {"may_operate": may_operate(request)}
        return super().changelist_view(request, (extra_context or {}) | offered)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        generation = self.get_object(request, object_id or "")
        if generation is not None:
            extra_context = (extra_context or {}) | self.describe_life(request, generation)
        response: HttpResponse = super().changeform_view(request, object_id, form_url, extra_context)
        return response

    def describe_life(self, request: HttpRequest, generation: Generation) -> dict[str, Any]:
        """What stands above the generation's facts: how far it is, and what may be done with it."""
        job = get_job(generation)
        unfinished = job is not None and job.state in UNFINISHED
        operator = may_operate(request)
        return {
            "generation": generation,
            "job": job,
            "progress": show_progress(job) if job is not None and unfinished else "",
            "may_operate": operator,
            "may_retire": operator and generation.state in RETIRABLE,
        }

    def reembed_view(self, request: HttpRequest) -> HttpResponse:
        """A form that opens a generation beside the active one."""
        check_permission(request, OPERATE)
        form = ReembedForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            try:
                job = start_reembedding(
                    form.cleaned_data["model"],
                    IndexSettings(type=form.cleaned_data["index"]),
                    redetect=form.cleaned_data["redetect"],
                    asked_by=request.user.get_username(),
                )
                return redirect("admin:jobs_job_change", job.pk)
            except Problem as problem:
                form.add_error(None, problem.detail)
        context = {
            **self.admin_site.each_context(request),
            "title": "Build another gallery",
            "opts": self.opts,
            "form": form,
            "active": get_active_generation(),
        }
        return TemplateResponse(request, "gallery/reembed.html", context)

    def retire_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Asks first: what is retired cannot come back."""
        check_permission(request, OPERATE)
        generation = get_object_or_404(Generation.objects.select_related("embedder"), pk=pk)
        if request.method == "POST":
            try:
                retire(generation)
                self.message_user(request, f"Retired: {generation}.", messages.SUCCESS)
            except Problem as problem:
                self.message_user(request, problem.detail, messages.ERROR)
            return redirect("admin:gallery_generation_change", pk)
        context = {
            **self.admin_site.each_context(request),
            "title": "Retire a generation",
            "opts": self.opts,
            "original": generation,
            "generation": generation,
        }
        return TemplateResponse(request, "gallery/retire.html", context)

    @display(description="Progress")
    def shown_job(self, generation: Generation) -> SafeString | str:
        job = get_job(generation) if generation.state not in (*RETIRABLE, GenerationState.RETIRED) else None
        if job is None or job.state not in UNFINISHED:
            return "-"
        return format_html(
            '<a class="ck-link" href="{}">{}</a>',
            reverse("admin:jobs_job_change", args=[job.pk]),
            show_progress(job),
        )

    @display(description="State", ordering="state")
    def shown_state(self, generation: Generation) -> SafeString:
        state = GenerationState(generation.state)
        shown = label(state.label, GENERATION_LABELS.get(state, ""))
        if state == GenerationState.READY and generation.shadows.filter(ended_at=None).exists():
            shown = format_html("{} {}", shown, label("in the shadow", "info"))
        return shown

    @display(description="Index")
    def shown_index(self, generation: Generation) -> str:
        index = IndexSettings.from_dict(generation.index)
        return ", ".join([index.type, *(f"{name} {value}" for name, value in index.build_parameters.items())])

    @display(description="Embeddings")
    def shown_origin(self, generation: Generation) -> str:
        if generation.copied_from is not None:
            return f"copied from {generation.copied_from}"
        return (
            "made from the pictures, their main bodies looked for again"
            if generation.redetect
            else "made from the pictures"
        )

    @display(description="Pictures")
    def shown_ledger(self, generation: Generation) -> SafeString:
        url = reverse("admin:gallery_embedding_changelist")
        counts = {state: n for state, n in count_ledger(generation).items() if n}
        return format_html_join(
            " ",
            '<a href="{}?generation__id__exact={}&state__exact={}">{}</a>',
            (
                (url, generation.pk, state, label(f"{n:,} {state}", STATE_LABELS[EmbeddingState(state)]))
                for state, n in counts.items()
            ),
        )  # fmt: skip


@admin.register(Embedding)
class EmbeddingAdmin(ReadOnlyAdmin):
    """The ledger, one row for each picture and generation."""

    empty_note = "There is a row for each picture and generation, once both are there."
    list_display = ["shown_picture", "generation", "shown_state", "error", "attempts", "revision"]
    list_display_links = None
    list_filter = [("state", ChoicesDropdownFilter), ("generation", RelatedDropdownFilter)]
    list_filter_submit = True
    list_select_related = ["generation__embedder"]
    # Counting a million rows for a head-line is not worth its second.
    show_full_result_count = False
    ordering = ["-id"]
    actions = ["embed_again"]

    @display(description="Picture", ordering="reference_image_id")
    def shown_picture(self, row: Embedding) -> SafeString | str:
        if row.state == EmbeddingState.REMOVING:
            return f"{row.reference_image_id}, deleted"
        return format_html(
            '<a href="{}"><img class="ck-thumbnail" src="{}" alt="Picture {}" loading="lazy"></a>',
            reverse("admin:catalogue_referenceimage_change", args=[row.reference_image_id]),
            thumbnail_url(row.reference_image_id),
            row.reference_image_id,
        )

    @display(description="State", ordering="state")
    def shown_state(self, row: Embedding) -> SafeString:
        return label(row.state, STATE_LABELS[EmbeddingState(row.state)])

    def has_embed_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("gallery.change_embedding")

    @admin.action(description="Try again", permissions=["embed"])
    def embed_again(self, request: HttpRequest, rows: QuerySet[Embedding]) -> None:
        ids = rows.values_list("reference_image_id", flat=True)
        _tell_of_retry(self, request, try_again(list(ids)))


@admin.register(ThresholdSet)
class ThresholdSetAdmin(ShownThresholds, ReadOnlyAdmin):
    empty_note = "The first is fitted by itself when pictures are embedded, or by manage.py fit_thresholds."
    list_display = ["generation", "strategy", "version", *THRESHOLDS, "created_at"]
    list_select_related = ["generation__embedder"]
    list_filter = [("generation", RelatedDropdownFilter)]
    list_filter_submit = True
    fieldsets = [
        ("Threshold set", {"fields": ["generation", ("strategy", "version")]}),
        ("Thresholds", {"fields": [*THRESHOLDS, "shown_products"]}),
        ("How they were fitted", {"fields": ["shown_held_out", "shown_fit", "created_at"]}),
    ]
    readonly_fields = [*THRESHOLDS, "shown_products", "shown_held_out", "shown_fit", "created_at"]

    @display(description="Products with their own")
    def shown_products(self, threshold_set: ThresholdSet) -> SafeString | str:
        return show_products(threshold_set)

    @display(description="How well they hold")
    def shown_held_out(self, threshold_set: ThresholdSet) -> SafeString | str:
        return show_held_out(threshold_set)

    @display(description="Fitted to")
    def shown_fit(self, threshold_set: ThresholdSet) -> SafeString | str:
        return show_fit(threshold_set)
