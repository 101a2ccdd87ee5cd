"""`/api/v1`: products, their reference images, product sets, catalogue imports."""

import json
from http import HTTPStatus
from typing import Any, ClassVar

import django_filters
from django.conf import settings
from django.http import FileResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.generics import GenericAPIView
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from backend.catalogue import services
from backend.catalogue.imports import IMPORT_KIND
from backend.catalogue.models import BoxSource, Product, ProductSet, ReferenceImage
from backend.catalogue.selectors import list_products, list_reference_images
from backend.common.caller import get_caller, refuse_bound_device
from backend.common.problems import Problem, not_found
from backend.common.serializers import BoxField, RequestSerializer
from backend.jobs.api import JobSerializer
from backend.jobs.services import start_job


class ProductSerializer(RequestSerializer, serializers.ModelSerializer):
    """A product, in and out. What it has none of is null, as in answers."""

    class Meta:
        model = Product
        fields = [
            "sku", "gtin", "name", "brand", "category", "description", "price", "currency", "sold_by", "attributes",
            "state", "created_at", "updated_at",
        ]  # fmt: skip
        # The SKU's uniqueness is the service's to check, with everything else that a model knows.
        extra_kwargs: ClassVar[dict[str, Any]] = {
            "sku": {"validators": []},
            "gtin": {"allow_null": True},
            "currency": {"allow_null": True},
        }

    def validate_attributes(self, attributes: Any) -> Any:
        if not isinstance(attributes, dict):
            raise serializers.ValidationError(f"found {json.dumps(attributes)[:60]}, an object is wanted")
        return attributes

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        return attrs | {name: "" for name in self.nullable if name in attrs and attrs[name] is None}

    def to_representation(self, instance: Product) -> dict[str, Any]:
        shown: dict[str, Any] = super().to_representation(instance)
        return shown | {name: shown[name] or None for name in self.nullable}

    nullable = ("gtin", "currency")


class ReferenceImageSerializer(serializers.ModelSerializer):
    """A picture of a product, out."""

    box = BoxField(allow_null=True, read_only=True)

    class Meta:
        model = ReferenceImage
        fields = [
            "id", "width", "height", "box", "box_source", "box_detector", "quality_findings", "revision", "sha256",
            "created_at",
        ]  # fmt: skip
        read_only_fields = fields


class NewReferenceImageSerializer(RequestSerializer):
    # An empty file is refused as a picture, with its own word.
    image = serializers.FileField(allow_empty_file=True, help_text="JPEG, PNG or WebP")
    x1 = serializers.FloatField(required=False)
    y1 = serializers.FloatField(required=False)
    x2 = serializers.FloatField(required=False)
    y2 = serializers.FloatField(required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        given = [side in attrs for side in ("x1", "y1", "x2", "y2")]
        if any(given) and not all(given):
            raise serializers.ValidationError({"box": "give all of x1, y1, x2, y2, or none of them"})
        attrs["box"] = [attrs[side] for side in ("x1", "y1", "x2", "y2")] if all(given) else None
        return attrs


class MainBodySerializer(RequestSerializer):
    box = BoxField(
        allow_null=True,
        help_text="x1, y1, x2, y2 in pixels of the stored picture; null asks for a new proposal",
    )


class ProductSetSerializer(RequestSerializer, serializers.ModelSerializer):
    n_products = serializers.IntegerField(source="products.count", read_only=True)

    class Meta:
        model = ProductSet
        fields = ["slug", "name", "n_products", "created_at"]
        extra_kwargs: ClassVar[dict[str, Any]] = {"slug": {"validators": []}}


class ProductSetNameSerializer(ProductSetSerializer):
    """A new name; the slug stays, and may be sent along."""

    class Meta(ProductSetSerializer.Meta):
        read_only_fields: ClassVar[list[str]] = ["slug"]


class MembersSerializer(RequestSerializer):
    add = serializers.ListField(
        child=serializers.CharField(), required=False, default=list, max_length=20_000
    )
    remove = serializers.ListField(
        child=serializers.CharField(), required=False, default=list, max_length=20_000
    )


class NewImportSerializer(RequestSerializer):
    file = serializers.FileField(help_text="a zip of the folder format")


def get_product(request: Request, sku: str) -> Product:
    """The product, if this device may see it."""
    product = list_products(product_set_id=get_caller(request).product_set_id).filter(sku=sku).first()
    if product is None:
        raise not_found("product", sku)
    return product


def get_reference_image(request: Request, sku: str, image_id: int) -> ReferenceImage:
    image = list_reference_images(get_product(request, sku)).filter(pk=image_id).first()
    if image is None:
        raise not_found("reference image", image_id)
    return image


def get_product_set(request: Request, slug: str) -> ProductSet:
    """The product set, if this device may see it."""
    product_sets = ProductSet.objects.filter(slug=slug)
    own_id = get_caller(request).product_set_id
    if own_id is not None:
        product_sets = product_sets.filter(pk=own_id)
    product_set = product_sets.first()
    if product_set is None:
        raise not_found("product set", slug)
    return product_set


def _refuse_taken_sku(sku: str) -> None:
    if Product.objects.filter(sku=sku).exists():
        raise Problem(HTTPStatus.CONFLICT, "sku-taken", f"there is a product {sku!r} already")


class ProductFilter(django_filters.FilterSet):
    name = django_filters.CharFilter(lookup_expr="icontains")
    category = django_filters.CharFilter(lookup_expr="startswith")
    product_set = django_filters.CharFilter(field_name="product_sets__slug")

    class Meta:
        model = Product
        fields = ["name", "category", "product_set", "brand", "gtin", "state"]


class ProductsView(GenericAPIView):
    scope = "catalogue"
    serializer_class = ProductSerializer
    filterset_class = ProductFilter
    filter_backends = [django_filters.rest_framework.DjangoFilterBackend]
    queryset = Product.objects.none()

    def get_queryset(self) -> Any:
        if getattr(self, "swagger_fake_view", False):
            return self.queryset
        return list_products(product_set_id=get_caller(self.request).product_set_id)

    @extend_schema(operation_id="list_products", responses=ProductSerializer(many=True))
    def get(self, request: Request) -> Response:
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        return self.get_paginated_response(self.get_serializer(page, many=True).data)

    @extend_schema(
        operation_id="create_product", request=ProductSerializer, responses={201: ProductSerializer}
    )
    def post(self, request: Request) -> Response:
        refuse_bound_device(request)
        given = self.get_serializer(data=request.data)
        given.is_valid(raise_exception=True)
        _refuse_taken_sku(given.validated_data["sku"])
        product = services.save_product(Product(), given.validated_data)
        return Response(self.get_serializer(product).data, status=HTTPStatus.CREATED)


class ProductView(APIView):
    scope = "catalogue"

    @extend_schema(operation_id="get_product", responses=ProductSerializer)
    def get(self, request: Request, sku: str) -> Response:
        return Response(ProductSerializer(get_product(request, sku)).data)

    @extend_schema(
        operation_id="change_product", request=ProductSerializer(partial=True), responses=ProductSerializer
    )
    def patch(self, request: Request, sku: str) -> Response:
        product = get_product(request, sku)
        given = ProductSerializer(product, data=request.data, partial=True)
        given.is_valid(raise_exception=True)
        if given.validated_data.get("sku", sku) != sku:
            _refuse_taken_sku(given.validated_data["sku"])
        return Response(ProductSerializer(services.save_product(product, given.validated_data)).data)

    @extend_schema(operation_id="delete_product", responses={204: None})
    def delete(self, request: Request, sku: str) -> Response:
        refuse_bound_device(request)
        get_product(request, sku).delete()
        return Response(status=HTTPStatus.NO_CONTENT)


class ReferenceImagesView(GenericAPIView):
    scope = "catalogue"
    parser_classes = [MultiPartParser]
    serializer_class = ReferenceImageSerializer
    queryset = ReferenceImage.objects.none()

    @extend_schema(operation_id="list_reference_images", responses=ReferenceImageSerializer(many=True))
    def get(self, request: Request, sku: str) -> Response:
        page = self.paginate_queryset(list_reference_images(get_product(request, sku)))
        return self.get_paginated_response(self.get_serializer(page, many=True).data)

    @extend_schema(
        operation_id="add_reference_image",
        request={"multipart/form-data": NewReferenceImageSerializer},
        responses={201: ReferenceImageSerializer},
    )
    def post(self, request: Request, sku: str) -> Response:
        product = get_product(request, sku)
        given = NewReferenceImageSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        image = services.add_reference_image(
            product=product,
            data=services.read_upload(given.validated_data["image"], settings.IMAGE_MAX_BYTES),
            box=given.validated_data["box"],
        )
        return Response(self.get_serializer(image).data, status=HTTPStatus.CREATED)


class ReferenceImageView(APIView):
    scope = "catalogue"

    @extend_schema(operation_id="get_reference_image", responses=ReferenceImageSerializer)
    def get(self, request: Request, sku: str, image_id: int) -> Response:
        return Response(ReferenceImageSerializer(get_reference_image(request, sku, image_id)).data)

    @extend_schema(
        operation_id="set_main_body", request=MainBodySerializer, responses=ReferenceImageSerializer
    )
    def patch(self, request: Request, sku: str, image_id: int) -> Response:
        image = get_reference_image(request, sku, image_id)
        given = MainBodySerializer(data=request.data)
        given.is_valid(raise_exception=True)
        image = services.set_main_body(image, given.validated_data["box"], BoxSource.PERSON)
        return Response(ReferenceImageSerializer(image).data)

    @extend_schema(operation_id="delete_reference_image", responses={204: None})
    def delete(self, request: Request, sku: str, image_id: int) -> Response:
        get_reference_image(request, sku, image_id).delete()
        return Response(status=HTTPStatus.NO_CONTENT)


class ReferenceImageFile(APIView):
    """The picture itself; a till that recognises may show it."""

    scope = "recognise"

    @extend_schema(
        operation_id="get_reference_image_file", responses={(200, "image/jpeg"): OpenApiTypes.BINARY}
    )
    def get(self, request: Request, sku: str, image_id: int) -> FileResponse:
        image = get_reference_image(request, sku, image_id)
        return FileResponse(image.image.open("rb"), content_type="image/jpeg")


class ProductSetsView(GenericAPIView):
    scope = "catalogue"
    serializer_class = ProductSetSerializer
    queryset = ProductSet.objects.none()

    @extend_schema(operation_id="list_product_sets", responses=ProductSetSerializer(many=True))
    def get(self, request: Request) -> Response:
        product_sets = ProductSet.objects.all()
        own_id = get_caller(request).product_set_id
        if own_id is not None:
            product_sets = product_sets.filter(pk=own_id)
        return self.get_paginated_response(
            self.get_serializer(self.paginate_queryset(product_sets), many=True).data
        )

    @extend_schema(operation_id="create_product_set", responses={201: ProductSetSerializer})
    def post(self, request: Request) -> Response:
        refuse_bound_device(request)
        given = self.get_serializer(data=request.data)
        given.is_valid(raise_exception=True)
        slug = given.validated_data["slug"]
        if ProductSet.objects.filter(slug=slug).exists():
            raise Problem(HTTPStatus.CONFLICT, "slug-taken", f"there is a product set {slug!r} already")
        product_set = ProductSet(**given.validated_data)
        product_set.full_clean()
        product_set.save()
        return Response(self.get_serializer(product_set).data, status=HTTPStatus.CREATED)


class ProductSetView(APIView):
    scope = "catalogue"

    @extend_schema(operation_id="get_product_set", responses=ProductSetSerializer)
    def get(self, request: Request, slug: str) -> Response:
        return Response(ProductSetSerializer(get_product_set(request, slug)).data)

    @extend_schema(
        operation_id="rename_product_set",
        request=ProductSetNameSerializer,
        responses=ProductSetSerializer,
    )
    def patch(self, request: Request, slug: str) -> Response:
        product_set = get_product_set(request, slug)
        given = ProductSetNameSerializer(product_set, data=request.data)
        given.is_valid(raise_exception=True)
        given.save()
        return Response(given.data)

    @extend_schema(operation_id="delete_product_set", responses={204: None})
    def delete(self, request: Request, slug: str) -> Response:
        refuse_bound_device(request)
        product_set = get_product_set(request, slug)
        if product_set.devices.exists():
            raise Problem(
                HTTPStatus.CONFLICT,
                "product-set-in-use",
                "devices are bound to this product set; unbind them first",
            )
        product_set.delete()
        return Response(status=HTTPStatus.NO_CONTENT)


class ProductSetMembersView(GenericAPIView):
    scope = "catalogue"
    serializer_class = ProductSerializer
    queryset = Product.objects.none()

    @extend_schema(operation_id="list_product_set_members", responses=ProductSerializer(many=True))
    def get(self, request: Request, slug: str) -> Response:
        page = self.paginate_queryset(get_product_set(request, slug).products.all())
        return self.get_paginated_response(self.get_serializer(page, many=True).data)

    @extend_schema(
        operation_id="change_product_set_members", request=MembersSerializer, responses=ProductSetSerializer
    )
    def post(self, request: Request, slug: str) -> Response:
        refuse_bound_device(request)
        product_set = get_product_set(request, slug)
        given = MembersSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        services.change_product_set(product_set, **given.validated_data)
        return Response(ProductSetSerializer(product_set).data)


class CatalogueImportsView(APIView):
    scope = "catalogue"
    parser_classes = [MultiPartParser]

    @extend_schema(
        operation_id="start_catalogue_import",
        request={"multipart/form-data": NewImportSerializer},
        responses={202: JobSerializer},
    )
    def post(self, request: Request) -> Response:
        refuse_bound_device(request)
        given = NewImportSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        file = given.validated_data["file"]
        if file.size > settings.IMPORT_MAX_BYTES:
            raise Problem(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                "import-too-many-bytes",
                f"the zip has {file.size:,} bytes, at most {settings.IMPORT_MAX_BYTES:,} are taken; split it",
            )
        job = start_job(
            kind=IMPORT_KIND, file=file, asked_by=get_caller(request).name, device_id=get_caller(request).pk
        )
        return Response(JobSerializer(job).data, status=HTTPStatus.ACCEPTED)
