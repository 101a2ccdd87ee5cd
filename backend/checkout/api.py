"""`/api/v1/recognitions`: a photo in, a basket out."""

import time
from http import HTTPStatus
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from drf_spectacular.utils import OpenApiParameter, PolymorphicProxySerializer, extend_schema
from rest_framework import serializers
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from backend.access.authentication import get_device
from backend.catalogue.models import ProductSet
from backend.catalogue.services import read_upload
from backend.checkout import admission, metrics, services
from backend.checkout.models import Correction, Recognition, RecognitionState
from backend.checkout.schemas import RecognitionAnswerSerializer
from backend.checkout.tasks import echo_task
from backend.common.problems import Problem, not_found
from backend.common.serializers import BoxField, RequestSerializer

MAX_CANDIDATES = 20
# Of the multipart form around the picture.
FORM_BYTES = 10_000


class RecognitionRequestSerializer(RequestSerializer):
    # An empty file is refused as a picture, with its own word.
    image = serializers.FileField(
        allow_empty_file=True, help_text="JPEG, PNG or WebP, up to 20 MB and 50 megapixels"
    )
    product_set = serializers.CharField(
        required=False, help_text="slug; default: the device's own, else the whole catalogue"
    )
    candidates = serializers.IntegerField(required=False, default=5, min_value=1, max_value=MAX_CANDIDATES)


class CorrectionRequestSerializer(RequestSerializer):
    item = serializers.IntegerField(
        required=False, allow_null=True, default=None, min_value=1, max_value=32_767
    )
    sku = serializers.CharField(allow_null=True, help_text="null: this item is not a product")
    box = BoxField(
        required=False,
        allow_null=True,
        default=None,
        help_text="of an item that was missed, in place of `item`",
    )


class CorrectionSerializer(serializers.ModelSerializer):
    item = serializers.IntegerField(source="item.number", allow_null=True, default=None)
    box = BoxField()

    class Meta:
        model = Correction
        fields = ["id", "item", "box", "sku", "made_by", "created_at", "state"]


class AnsweredSerializer(RecognitionAnswerSerializer):
    """A recognition that is done, as it is read later."""

    corrections = CorrectionSerializer(many=True)


class UnansweredSerializer(serializers.Serializer):
    """A recognition that is under way, failed or expired."""

    id = serializers.UUIDField()
    state = serializers.ChoiceField(choices=RecognitionState.choices)
    failure = serializers.JSONField(allow_null=True, help_text="the problem that was answered")
    corrections = CorrectionSerializer(many=True)


def _refuse_large_body(request: Request) -> None:
    """Before a byte of it is parsed."""
    length = int(request.META.get("CONTENT_LENGTH") or 0)
    if length > settings.IMAGE_MAX_BYTES + FORM_BYTES:
        raise Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "image-too-many-bytes",
            f"the body has {length:,} bytes, at most {settings.IMAGE_MAX_BYTES:,} of picture are taken",
        )


def get_searched_set(request: Request, slug: str | None) -> ProductSet | None:
    """The product set to search: the one named, the device's own, or none for the whole catalogue."""
    own_id = get_device(request).product_set_id
    if slug is None:
        return None if own_id is None else ProductSet.objects.get(pk=own_id)
    product_set = ProductSet.objects.filter(slug=slug).first()
    if product_set is None or own_id not in (None, product_set.pk):
        raise not_found("product set", slug)
    return product_set


def get_recognition(request: Request, recognition_id: UUID) -> Recognition:
    """The recognition, if this device made it."""
    recognition = Recognition.objects.filter(pk=recognition_id, device=get_device(request)).first()
    if recognition is None:
        raise not_found("recognition", str(recognition_id))
    return recognition


def _shown(recognition: Recognition) -> dict[str, Any]:
    return recognition.answer or {
        "id": str(recognition.pk),
        "state": recognition.state,
        "failure": recognition.failure,
    }


class RecognitionsView(APIView):
    scope = "recognise"
    parser_classes = [MultiPartParser]

    @extend_schema(
        operation_id="recognise",
        request={"multipart/form-data": RecognitionRequestSerializer},
        responses={201: RecognitionAnswerSerializer},
        parameters=[
            OpenApiParameter(
                "Idempotency-Key", str, OpenApiParameter.HEADER,
                description="The same key and body give the same recognition for 24 hours.",
            )
        ],
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        _refuse_large_body(request)
        given = RecognitionRequestSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        key = request.headers.get("Idempotency-Key", "")
        if len(key) > 255:
            raise Problem(
                HTTPStatus.BAD_REQUEST,
                "invalid",
                f"the Idempotency-Key has {len(key)} characters, at most 255 are taken",
            )
        product_set = get_searched_set(request, given.validated_data.get("product_set"))
        with metrics.counted_refusals():
            recognition = services.recognise(
                data=read_upload(given.validated_data["image"], settings.IMAGE_MAX_BYTES),
                asked_by=get_device(request).name,
                device=get_device(request),
                product_set=product_set,
                n_candidates=given.validated_data["candidates"],
                idempotency_key=key,
            )
        metrics.observe_answer(_shown(recognition))
        return Response(_shown(recognition), status=HTTPStatus.CREATED)


class RecognitionView(APIView):
    scope = "recognise"

    @extend_schema(
        operation_id="get_recognition",
        responses=PolymorphicProxySerializer(
            component_name="StoredRecognition",
            serializers=[AnsweredSerializer, UnansweredSerializer],
            resource_type_field_name=None,
        ),
    )
    def get(self, request: Request, recognition_id: UUID) -> Response:
        recognition = get_recognition(request, recognition_id)
        corrections = CorrectionSerializer(recognition.corrections.select_related("item"), many=True).data
        return Response(_shown(recognition) | {"corrections": corrections})


class CorrectionsView(APIView):
    scope = "recognise"

    @extend_schema(
        operation_id="correct", request=CorrectionRequestSerializer, responses={201: CorrectionSerializer}
    )
    def post(self, request: Request, recognition_id: UUID) -> Response:
        recognition = get_recognition(request, recognition_id)
        given = CorrectionRequestSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        correction = services.correct(recognition, made_by=get_device(request).name, **given.validated_data)
        return Response(CorrectionSerializer(correction).data, status=HTTPStatus.CREATED)


class EchoView(APIView):
    """The way through web, broker and worker and back, with no work in it: what the plumbing costs here."""

    scope = "operate"

    @extend_schema(operation_id="echo", request=None, responses={200: None})
    def post(self, request: Request) -> Response:
        started, signal_id = time.perf_counter(), uuid4().hex
        echo_task.apply_async((signal_id,), expires=settings.RECOGNITION_PATIENCE_SECONDS)
        if admission.wait_for_signal(signal_id, settings.RECOGNITION_PATIENCE_SECONDS) is None:
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE, "no-worker-free", "no worker answered", retry_after=2
            )
        return Response(
            {"state": RecognitionState.DONE, "ms": round(1000 * (time.perf_counter() - started), 2)}
        )
