"""Products, their pictures and product sets, as a catalogue manager works on them.

What is saved goes through the services, as the API's requests do. What the gallery knows of a picture is added by
gallery/admin.py, for the catalogue knows no gallery.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.files.uploadedfile import UploadedFile
from django.db.models import Count, Exists, Min, OuterRef, QuerySet
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import (
    ChoicesDropdownFilter,
    DropdownFilter,
    RelatedDropdownFilter,
)
from unfold.decorators import action, display
from unfold.views import ChangeList

from backend.catalogue import services
from backend.catalogue.forms import (
    CategoryForm,
    ChosenSetForm,
    ImportForm,
    ProductForm,
    ProductSetForm,
    ReferenceImageForm,
)
from backend.catalogue.imports import IMPORT_KIND
from backend.catalogue.models import BoxSource, Product, ProductSet, ProductState, ReferenceImage, SoldBy
from backend.catalogue.selectors import list_reference_images
from backend.common.admin import AuditedAdmin, check_permission, label, private_file
from backend.common.problems import problem_of
from backend.common.words import counted
from backend.jobs.services import start_job

# A stored picture never changes under its id.
PICTURE_KEPT = timedelta(days=1)
FOUND_AT_ONCE = 20
NAMES_SHOWN = 10
# Of the list of products: the name of its filter by product set in the address.
SET_FILTER = "product_sets__id__exact"


@dataclass(frozen=True)
class ShownPicture:
    """A picture of a product as the pages show it. What became of it in the gallery is told by `state`."""

    image: ReferenceImage
    state: str = ""
    reason: str = ""


class PicturesFilter(DropdownFilter):
    title = "pictures"
    parameter_name = "pictures"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> Sequence[tuple[str, str]]:
        return [("none", "Without pictures"), ("some", "With pictures")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Product]) -> QuerySet[Product]:
        with_pictures = Exists(ReferenceImage.objects.filter(product=OuterRef("pk")))
        match self.value():
            case "none":
                return queryset.filter(~with_pictures)
            case "some":
                return queryset.filter(with_pictures)
        return queryset


class CategoryFilter(DropdownFilter):
    """A category with all below it: Fruit finds Fruit/Apple."""

    title = "category"
    parameter_name = "category"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> Sequence[tuple[str, str]]:
        found = Product.objects.exclude(category="").values_list("category", flat=True).distinct()
        names = set(found) | {category.split("/")[0] for category in found}
        return [(name, name) for name in sorted(names)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Product]) -> QuerySet[Product]:
        name = self.value()
        if not name:
            return queryset
        return queryset.filter(category=name) | queryset.filter(category__startswith=f"{name}/")


class FindingFilter(DropdownFilter):
    title = "quality finding"
    parameter_name = "finding"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> Sequence[tuple[str, str]]:
        names = ("small", "dark", "bright", "low-contrast", "blurred")
        return [("any", "Any finding"), *((name, name.capitalize()) for name in names)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match self.value():
            case None | "":
                return queryset
            case "any":
                return queryset.exclude(quality_findings=[])
        return queryset.filter(quality_findings__contains=[self.value()])


class ProductChangeList(ChangeList):
    """A page of products with what is shown of their pictures, in one query for all."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list: list[Product] = list(self.result_list)
        self.model_admin.describe_products(self.result_list)


@admin.register(Product)
class ProductAdmin(AuditedAdmin):
    form = ProductForm
    list_display = ["shown_product", "sku", "gtin", "category", "shown_price", "n_pictures", "shown_state"]
    list_display_links = ["shown_product"]
    list_filter = [
        CategoryFilter,
        ("state", ChoicesDropdownFilter),
        ("product_sets", RelatedDropdownFilter),
        PicturesFilter,
    ]
    list_filter_submit = True
    list_per_page = 50
    search_fields = ["name", "sku", "gtin", "brand"]
    search_help_text = "Name, SKU, GTIN or brand"
    empty_note = "Import a zip of products and pictures, or add the first product."
    actions = ["add_to_set", "remove_from_set", "set_category", "retire", "activate"]
    actions_list = ["start_import"]
    change_form_outer_after_template = "catalogue/product_pictures.html"
    compressed_fields = False
    fieldsets = [
        ("Product", {"fields": [("sku", "gtin"), "name", ("brand", "category"), "description"]}),
        ("Price", {"fields": [("price", "currency", "sold_by")]}),
        ("Where it is sold", {"fields": ["state", "product_sets", "attributes"]}),
    ]
    add_fieldsets = [*fieldsets[:1], ("Pictures", {"fields": ["pictures"]}), *fieldsets[1:]]

    # --- the list -----------------------------------------------------------------------------------------
    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return ProductChangeList

    def describe_products(self, products: Sequence[Any]) -> None:
        """Put `n_of_pictures` and `first_picture` on each of a page's products."""
        pictures = {
            row["product"]: row
            for row in ReferenceImage.objects.filter(product__in=products)
            .values("product")
            .annotate(n=Count("id"), first=Min("id"))
            .order_by()
        }
        for product in products:
            row = pictures.get(product.pk, {"n": 0, "first": None})
            product.n_of_pictures, product.first_picture = row["n"], row["first"]

    @display(description="Product", ordering="name", header=True)
    def shown_product(self, product: Any) -> list[Any]:
        picture = None
        if product.first_picture is not None:
            picture = {
                "path": thumbnail_url(product.first_picture),
                "squared": True,
                "width": 48,
                "height": 48,
            }
        return [product.name, product.brand, product.name[:2], picture]

    @display(description="Price", ordering="price")
    def shown_price(self, product: Product) -> SafeString | str:
        if product.price is None:
            return "-"
        by_weight = " by weight" if product.sold_by == SoldBy.WEIGHT else ""
        return format_html(
            '<span class="ck-together">{} {}{}</span>', product.price, product.currency, by_weight
        )

    @display(description="Pictures")
    def n_pictures(self, product: Any) -> SafeString | int:
        return product.n_of_pictures or label("none", "warning")

    @display(description="State", ordering="state")
    def shown_state(self, product: Product) -> SafeString:
        return label(product.state, "success" if product.state == ProductState.ACTIVE else "")

    @admin.action(description="Retire: no longer answered", permissions=["change"])
    def retire(self, request: HttpRequest, products: QuerySet[Product]) -> None:
        self._set_state(request, products, ProductState.RETIRED)

    @admin.action(description="Make active again", permissions=["change"])
    def activate(self, request: HttpRequest, products: QuerySet[Product]) -> None:
        self._set_state(request, products, ProductState.ACTIVE)

    def _set_state(self, request: HttpRequest, products: Iterable[Product], state: ProductState) -> None:
        saved = [services.save_product(product, {"state": state}) for product in products]
        self.message_user(request, f"{counted(len(saved), 'product')} set to {state}.", messages.SUCCESS)

    def has_product_set_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("catalogue.change_productset")

    @admin.action(description="Add to a product set", permissions=["product_set"])
    def add_to_set(self, request: HttpRequest, products: QuerySet[Product]) -> HttpResponse | None:
        return self._change_set(request, products, "add_to_set", "added to")

    @admin.action(description="Remove from a product set", permissions=["product_set"])
    def remove_from_set(self, request: HttpRequest, products: QuerySet[Product]) -> HttpResponse | None:
        return self._change_set(request, products, "remove_from_set", "removed from")

    def _change_set(
        self, request: HttpRequest, products: QuerySet[Product], act: str, done: str
    ) -> HttpResponse | None:
        # Who looks at one set's products means that set.
        form = ChosenSetForm(_answers(request), initial={"product_set": request.GET.get(SET_FILTER)})
        if not form.is_valid():
            return self._ask(request, products, act, form)
        product_set, skus = form.cleaned_data["product_set"], list(products.values_list("sku", flat=True))
        if act == "add_to_set":
            services.change_product_set(product_set, add=skus)
        else:
            services.change_product_set(product_set, remove=skus)
        self.message_user(request, f"{counted(len(skus), 'product')} {done} {product_set}.", messages.SUCCESS)
        return None

    @admin.action(description="Set the category", permissions=["change"])
    def set_category(self, request: HttpRequest, products: QuerySet[Product]) -> HttpResponse | None:
        form = CategoryForm(_answers(request))
        if not form.is_valid():
            return self._ask(request, products, "set_category", form)
        category = form.cleaned_data["category"]
        saved = [services.save_product(product, {"category": category}) for product in list(products)]
        done = f"moved to the category {category}" if category else "left without a category"
        self.message_user(request, f"{counted(len(saved), 'product')} {done}.", messages.SUCCESS)
        return None

    def _ask(
        self, request: HttpRequest, products: QuerySet[Product], act: str, form: forms.Form
    ) -> HttpResponse:
        """The page between the choice of an action and the action: its form, sent to the list again."""
        context = {
            **self.admin_site.each_context(request),
            "title": self.get_action(act)[2],
            "opts": self.opts,
            "act": act,
            "form": form,
            "products": counted(products.count(), "product"),
            "names": list(products.values_list("name", flat=True)[:NAMES_SHOWN]),
            "checkbox_name": ACTION_CHECKBOX_NAME,
            "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
            "select_across": request.POST.get("select_across", "0"),
        }
        return TemplateResponse(request, "catalogue/act_on_products.html", context)

    # --- one product --------------------------------------------------------------------------------------
    def save_model(self, request: HttpRequest, obj: Product, form: ProductForm, change: bool) -> None:
        services.save_product(obj, {})

    def save_related(self, request: HttpRequest, form: ProductForm, formsets: Any, change: bool) -> None:
        """Product sets, and on a new product its first pictures: the bad are refused by name, the good stay."""
        product: Product = form.instance
        was, wanted = set(product.product_sets.all()), set(form.cleaned_data["product_sets"])
        for product_set in wanted - was:
            services.change_product_set(product_set, add=[product.sku])
        for product_set in was - wanted:
            services.change_product_set(product_set, remove=[product.sku])
        if files := form.cleaned_data.get("pictures"):
            self._tell(request, *add_pictures(product, files))

    def response_add(
        self, request: HttpRequest, obj: Product, post_url_continue: str | None = None
    ) -> HttpResponse:
        if {"_popup", "_addanother"} & request.POST.keys():
            return super().response_add(request, obj, post_url_continue)
        self.message_user(request, f"{obj.name} is in the catalogue.", messages.SUCCESS)
        return redirect("admin:catalogue_product_change", obj.pk)

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        product = self.get_object(request, object_id)
        context = extra_context or {}
        if isinstance(product, Product):
            context |= self._pictures_context(request, product)
        return super().change_view(request, object_id, form_url, context)

    # --- its pictures -------------------------------------------------------------------------------------
    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("<int:pk>/pictures/", view(self.pictures_view), name="catalogue_product_pictures"),
            path("find/", view(self.find_view), name="catalogue_product_find"),
            *super().get_urls(),
        ]

    def show_pictures(self, product: Product) -> list[ShownPicture]:
        return [ShownPicture(image) for image in list_reference_images(product)]

    def get_check_url(self, product: Product) -> str:
        """Where a picture is asked about before it is added; none here, for the catalogue knows no gallery."""
        return ""

    def _pictures_context(self, request: HttpRequest, product: Product) -> dict[str, Any]:
        pictures = self.show_pictures(product)
        return {
            "product": product,
            "check_url": self.get_check_url(product),
            "pictures": pictures,
            "n_waiting": sum(picture.state == "pending" for picture in pictures),
            "may_add_pictures": request.user.has_perm("catalogue.add_referenceimage"),
            "may_delete_pictures": request.user.has_perm("catalogue.delete_referenceimage"),
        }

    def pictures_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The grid of a product's pictures; a POST adds some. A page's script asks for JSON."""
        check_permission(request, "catalogue.view_product")
        product = get_object_or_404(Product, pk=pk)
        refused: list[tuple[str, str]] = []
        if request.method == "POST":
            check_permission(request, "catalogue.add_referenceimage")
            added, refused = add_pictures(product, request.FILES.getlist("pictures"))
            if not request.accepts("text/html"):
                status = HTTPStatus.BAD_REQUEST if refused and not added else HTTPStatus.OK
                detail = " ".join(reason for _, reason in refused)
                return JsonResponse({"added": len(added), "detail": detail}, status=status)
            self._tell(request, added, refused)
            return redirect("admin:catalogue_product_change", pk)
        context = self._pictures_context(request, product)
        grid = render_to_string("catalogue/pictures_grid.html", context, request)
        return JsonResponse({"html": grid, "waiting": context["n_waiting"]})

    def _tell(
        self, request: HttpRequest, added: Sequence[ReferenceImage], refused: Iterable[tuple[str, str]]
    ) -> None:
        if added:
            self.message_user(request, f"{counted(len(added), 'picture')} added.", messages.SUCCESS)
        for name, reason in refused:
            self.message_user(request, f"{name}: {reason}", messages.ERROR)

    def find_view(self, request: HttpRequest) -> JsonResponse:
        """Products for a field that completes what is typed: by name, SKU, GTIN or brand."""
        check_permission(request, "catalogue.view_product")
        found, _ = self.get_search_results(request, Product.objects.all(), request.GET.get("term", ""))
        return JsonResponse({"products": list(found.values("sku", "name")[:FOUND_AT_ONCE])})

    # --- import -------------------------------------------------------------------------------------------
    @action(description="Import", url_path="import", icon="upload_file", permissions=["add"])
    def start_import(self, request: HttpRequest) -> HttpResponse:
        """Upload a zip of the folder format; the job's page shows how it goes."""
        form = ImportForm(request.POST, request.FILES) if request.method == "POST" else ImportForm()
        if form.is_valid():
            job = start_job(
                kind=IMPORT_KIND, file=form.cleaned_data["file"], asked_by=request.user.get_username()
            )
            return redirect("admin:jobs_job_change", job.pk)
        context = {
            **self.admin_site.each_context(request),
            "title": "Import products and pictures",
            "form": form,
            "max_megabytes": settings.IMPORT_MAX_BYTES // 1_000_000,
        }
        return TemplateResponse(request, "catalogue/import.html", context)


def _answers(request: HttpRequest) -> Any:
    """What was typed on an action's own page; None when the action was only just chosen."""
    return request.POST if "_answered" in request.POST else None


def add_pictures(
    product: Product, files: Iterable[UploadedFile]
) -> tuple[list[ReferenceImage], list[tuple[str, str]]]:
    """Add each file that is a picture.

    Returns:
        The pictures, and name and reason of each file that was refused.
    """
    added, refused = [], []
    for file in files:
        try:
            data = services.read_upload(file, settings.IMAGE_MAX_BYTES)
            added.append(services.add_reference_image(product=product, data=data))
        except Exception as error:
            problem = problem_of(error)
            if problem is None or problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise
            refused.append((file.name or "picture", problem.detail))
    return added, refused


def thumbnail_url(reference_image_id: int) -> str:
    return reverse("admin:catalogue_referenceimage_thumbnail", args=[reference_image_id])


@admin.register(ReferenceImage)
class ReferenceImageAdmin(AuditedAdmin):
    """A picture's page is where its main body is set. Pictures are added on their product's page."""

    form = ReferenceImageForm
    list_display = ["shown_picture", "shown_product", "box_source", "shown_findings", "created_at"]
    list_display_links = ["shown_picture"]
    list_filter = [
        ("box_source", ChoicesDropdownFilter),
        FindingFilter,
        ("product__product_sets", RelatedDropdownFilter),
    ]
    list_filter_submit = True
    list_per_page = 50
    list_select_related = ["product"]
    search_fields = ["product__name", "product__sku", "product__gtin"]
    search_help_text = "Product's name, SKU or GTIN"
    empty_note = "Pictures are added on their product's page, or with an import."
    actions = ["propose_again"]
    readonly_fields = ["shown_product", "box_source", "box_detector", "shown_findings", "size", "created_at"]
    fieldsets = [
        (None, {"fields": ["box"]}),
        (
            "Picture",
            {"fields": [("shown_product", "size"), ("box_source", "box_detector"), ("shown_findings", "created_at")]},
        ),
    ]  # fmt: skip
    compressed_fields = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def get_urls(self) -> list[URLPattern]:
        def view(method: Any) -> Any:
            return self.admin_site.admin_view(method, cacheable=True)

        return [
            path("<int:pk>/picture/", view(self.picture_view), name="catalogue_referenceimage_picture"),
            path("<int:pk>/thumbnail/", view(self.thumbnail_view), name="catalogue_referenceimage_thumbnail"),
            *super().get_urls(),
        ]

    def picture_view(self, request: HttpRequest, pk: int) -> FileResponse:
        check_permission(request, "catalogue.view_referenceimage")
        image = get_object_or_404(ReferenceImage, pk=pk)
        return private_file(image.image, "image/jpeg", kept=PICTURE_KEPT)

    def thumbnail_view(self, request: HttpRequest, pk: int) -> FileResponse:
        check_permission(request, "catalogue.view_referenceimage")
        image = get_object_or_404(ReferenceImage, pk=pk)
        return private_file(image.thumbnail, "image/jpeg", kept=PICTURE_KEPT)

    @display(description="Picture", ordering="id")
    def shown_picture(self, image: ReferenceImage) -> SafeString:
        return format_html(
            '<img class="ck-thumbnail" src="{}" alt="Picture {}" loading="lazy">',
            thumbnail_url(image.pk),
            image.pk,
        )

    @display(description="Product", ordering="product__name")
    def shown_product(self, image: ReferenceImage) -> SafeString:
        url = reverse("admin:catalogue_product_change", args=[image.product_id])
        return format_html('<a class="ck-link" href="{}">{}</a>', url, image.product)

    @display(description="Quality findings")
    def shown_findings(self, image: ReferenceImage) -> SafeString | str:
        return label(", ".join(image.quality_findings), "warning") if image.quality_findings else "none"

    @display(description="Size")
    def size(self, image: ReferenceImage) -> str:
        return f"{image.width} x {image.height} pixels"

    @admin.action(description="Propose the main body again", permissions=["change"])
    def propose_again(self, request: HttpRequest, images: QuerySet[ReferenceImage]) -> None:
        for image in images:
            services.set_main_body(image, None, BoxSource.NONE)
        self.message_user(
            request,
            f"A new box is proposed for {counted(len(images), 'picture')} in a moment.",
            messages.SUCCESS,
        )

    def save_model(
        self, request: HttpRequest, obj: ReferenceImage, form: ReferenceImageForm, change: bool
    ) -> None:
        if "_propose" in request.POST:
            services.set_main_body(obj, None, BoxSource.NONE)
        elif "box" in form.changed_data and form.cleaned_data["box"] is not None:
            services.set_main_body(obj, form.cleaned_data["box"], BoxSource.PERSON)

    def response_post_save_change(self, request: HttpRequest, obj: ReferenceImage) -> HttpResponseRedirect:
        return self._to_product(obj)

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        image = self.get_object(request, object_id)
        response = super().delete_view(request, object_id, extra_context)
        deleted = isinstance(response, HttpResponseRedirect) and isinstance(image, ReferenceImage)
        return self._to_product(image) if deleted else response

    def _to_product(self, image: ReferenceImage) -> HttpResponseRedirect:
        url = reverse("admin:catalogue_product_change", args=[image.product_id])
        return HttpResponseRedirect(f"{url}#picture-{image.pk}")


@admin.register(ProductSet)
class ProductSetAdmin(AuditedAdmin):
    form = ProductSetForm
    list_display = ["name", "slug", "members", "n_devices", "created_at"]
    search_fields = ["name", "slug"]
    empty_note = "A product set is a store's assortment: a search narrowed to it finds its products alone."
    prepopulated_fields = {"slug": ["name"]}
    readonly_fields = ["members"]
    fieldsets = [
        ("Product set", {"fields": [("name", "slug"), "members"]}),
        ("Change its products", {"fields": ["add_products", "add_skus", "remove_skus"]}),
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[ProductSet]:
        return (
            super()
            .get_queryset(request)
            .annotate(n_members=Count("products", distinct=True), n_bound=Count("devices", distinct=True))
        )

    @display(description="Products", ordering="n_members")
    def members(self, product_set: Any) -> SafeString | str:
        if product_set.pk is None:
            return "none yet"
        url = reverse("admin:catalogue_product_changelist")
        return format_html(
            '<a class="ck-link" href="{}?{}={}">{}</a>',
            url,
            SET_FILTER,
            product_set.pk,
            counted(product_set.n_members, "product"),
        )

    @display(description="Devices bound to it", ordering="n_bound")
    def n_devices(self, product_set: Any) -> int:
        return int(product_set.n_bound)

    def save_related(self, request: HttpRequest, form: ProductSetForm, formsets: Any, change: bool) -> None:
        chosen = [product.sku for product in form.cleaned_data["add_products"]]
        services.change_product_set(
            form.instance,
            add=[*chosen, *form.cleaned_data["add_skus"]],
            remove=form.cleaned_data["remove_skus"],
        )
