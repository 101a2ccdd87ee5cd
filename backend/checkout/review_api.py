"""`/api/v1/corrections`: reviewing what people said; and asking about a picture before it is a reference image."""

from typing import Any, ClassVar

import django_filters
from django.conf import settings
from django.db.models import QuerySet
from django.http import FileResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.generics import GenericAPIView
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from backend.access.authentication import get_device
from backend.catalogue.api import NewReferenceImageSerializer, get_product
from backend.catalogue.services import read_upload
from backend.checkout import picture_checks, review
from backend.checkout.models import Correction, ReviewState
from backend.checkout.selectors import list_corrections
from backend.common.caller import refuse_bound_device
from backend.common.problems import not_found
from backend.common.serializers import BoxField, RequestSerializer
from backend.gallery.checks_api import PictureCheckSerializer


class ReviewedCorrectionSerializer(serializers.ModelSerializer):
    """A correction as who reviews it sees it."""

    recognition = serializers.UUIDField(source="recognition_id")
    item = serializers.IntegerField(source="item.number", allow_null=True, default=None)
    box = BoxField()
    sku = serializers.SerializerMethodField(help_text="null: not a product")
    answered_sku = serializers.SerializerMethodField(
        help_text="what had been answered; null: unknown, or an item that was missed"
    )
    has_crop = serializers.BooleanField(source="crop", help_text="false: it cannot become a picture")
    reference_image = serializers.IntegerField(
        source="reference_image_id", allow_null=True, help_text="that it became"
    )
    last_check = serializers.SerializerMethodField(help_text="what the gallery said of it last")
    not_checked = serializers.SerializerMethodField(help_text="why the gallery could not be asked")

    class Meta:
        model = Correction
        fields = [
            "id", "recognition", "item", "box", "sku", "answered_sku", "made_by", "created_at", "has_crop", "state",
            "reviewed_by", "reviewed_at", "note", "reference_image", "last_check", "not_checked",
        ]  # fmt: skip
        read_only_fields = fields
        extra_kwargs: ClassVar[dict[str, Any]] = {"note": {"help_text": "of who reviewed it"}}

    def get_sku(self, correction: Correction) -> str | None:
        return correction.sku or None

    def get_answered_sku(self, correction: Correction) -> str | None:
        return (correction.item.sku or None) if correction.item else None

    @extend_schema_field(PictureCheckSerializer(allow_null=True))
    def get_last_check(self, correction: Correction) -> dict[str, Any] | None:
        check: dict[str, Any] | None = correction.last_check
        return None if check is None or "problem" in check else check

    def get_not_checked(self, correction: Correction) -> str | None:
        return (correction.last_check or {}).get("problem")


class AcceptSerializer(RequestSerializer):
    force = serializers.BooleanField(
        required=False, default=False, help_text="also if it makes others worse; then the note says why"
    )
    note = serializers.CharField(required=False, default="", allow_blank=True, max_length=review.NOTE_LENGTH)


class RejectSerializer(RequestSerializer):
    note = serializers.CharField(required=False, default="", allow_blank=True, max_length=review.NOTE_LENGTH)


class CorrectionFilter(django_filters.FilterSet):
    state = django_filters.ChoiceFilter(choices=ReviewState.choices)
    sku = django_filters.CharFilter()

    class Meta:
        model = Correction
        fields = ["state", "sku"]


def _list_corrections(request: Request) -> QuerySet[Correction]:
    """Those that this device may review: of its own recognitions, or with `operate` of all.

    Raises:
        Problem: 403, the device is bound to a product set.
    """
    refuse_bound_device(request)  # a till may have corrected to a product that it may not see
    device = get_device(request)
    corrections = list_corrections()
    if "operate" not in device.scopes:
        corrections = corrections.filter(recognition__device=device)
    return corrections


def _get_correction(request: Request, correction_id: int) -> Correction:
    correction = _list_corrections(request).filter(pk=correction_id).first()
    if correction is None:
        raise not_found("correction", correction_id)
    return correction


def _shown(correction: Correction) -> Response:
    return Response(ReviewedCorrectionSerializer(correction).data)


class CorrectionListView(GenericAPIView):
    scope = "catalogue"
    serializer_class = ReviewedCorrectionSerializer
    filterset_class = CorrectionFilter
    filter_backends = [django_filters.rest_framework.DjangoFilterBackend]
    queryset = Correction.objects.none()

    def get_queryset(self) -> Any:
        if getattr(self, "swagger_fake_view", False):
            return self.queryset
        return _list_corrections(self.request)

    @extend_schema(operation_id="list_corrections", responses=ReviewedCorrectionSerializer(many=True))
    def get(self, request: Request) -> Response:
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        return self.get_paginated_response(self.get_serializer(page, many=True).data)


class CorrectionView(APIView):
    scope = "catalogue"

    @extend_schema(operation_id="get_correction", responses=ReviewedCorrectionSerializer)
    def get(self, request: Request, correction_id: int) -> Response:
        return _shown(_get_correction(request, correction_id))


class CorrectionCropView(APIView):
    """The crop with what is round it; the correction's box is in it."""

    scope = "catalogue"

    @extend_schema(operation_id="get_correction_crop", responses={(200, "image/jpeg"): OpenApiTypes.BINARY})
    def get(self, request: Request, correction_id: int) -> FileResponse:
        correction = _get_correction(request, correction_id)
        try:
            return FileResponse(correction.crop.open("rb"), content_type="image/jpeg")
        except (FileNotFoundError, ValueError) as error:
            raise not_found("crop of correction", correction_id) from error


class CheckCorrectionView(APIView):
    scope = "catalogue"

    @extend_schema(
        operation_id="check_correction", request=None, responses={200: ReviewedCorrectionSerializer}
    )
    def post(self, request: Request, correction_id: int) -> Response:
        correction = _get_correction(request, correction_id)
        review.check_correction(correction)
        return _shown(correction)


class AcceptCorrectionView(APIView):
    scope = "catalogue"

    @extend_schema(
        operation_id="accept_correction",
        request=AcceptSerializer,
        responses={200: ReviewedCorrectionSerializer},
    )
    def post(self, request: Request, correction_id: int) -> Response:
        correction = _get_correction(request, correction_id)
        given = AcceptSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        return _shown(review.accept(correction, reviewed_by=get_device(request).name, **given.validated_data))


class RejectCorrectionView(APIView):
    scope = "catalogue"

    @extend_schema(
        operation_id="reject_correction",
        request=RejectSerializer,
        responses={200: ReviewedCorrectionSerializer},
    )
    def post(self, request: Request, correction_id: int) -> Response:
        correction = _get_correction(request, correction_id)
        given = RejectSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        return _shown(review.reject(correction, reviewed_by=get_device(request).name, **given.validated_data))


class UndoReviewView(APIView):
    scope = "catalogue"

    @extend_schema(operation_id="undo_review", request=None, responses={200: ReviewedCorrectionSerializer})
    def post(self, request: Request, correction_id: int) -> Response:
        return _shown(review.undo(_get_correction(request, correction_id)))


class CheckReferenceImageView(APIView):
    """A dry run of adding a reference image: what the gallery says of it, and nothing is stored."""

    scope = "catalogue"
    parser_classes = [MultiPartParser]

    @extend_schema(
        operation_id="check_reference_image",
        request={"multipart/form-data": NewReferenceImageSerializer},
        responses={200: PictureCheckSerializer},
    )
    def post(self, request: Request, sku: str) -> Response:
        refuse_bound_device(request)  # what is found may be another set's
        product = get_product(request, sku)
        given = NewReferenceImageSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        check = picture_checks.check_upload(
            product,
            read_upload(given.validated_data["image"], settings.IMAGE_MAX_BYTES),
            given.validated_data["box"],
        )
        return Response(PictureCheckSerializer(check).data)
