"""`/api/v1/products/{sku}/reference-images/{id}/embedding`: whether a picture can be found yet; and
`/api/v1/generations`: the galleries there are, and building another.

The first is an address of its own, and no member of the reference image: the catalogue knows no gallery. Comparing and
switching is the evaluation's.
"""

from http import HTTPStatus
from typing import Any, get_args
from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from backend.catalogue.api import get_reference_image
from backend.common.caller import get_caller
from backend.common.serializers import RequestSerializer
from backend.gallery.models import EmbeddingState, Generation, GenerationState, ModelTask
from backend.gallery.reembedding import get_job, start_reembedding
from backend.gallery.selectors import (
    count_ledger,
    get_embedding_status,
    get_generation,
    get_installed_model,
)
from recognition.gallery import IndexSettings
from recognition.index import IndexType


class EmbeddingStatusSerializer(serializers.Serializer):
    generation = serializers.IntegerField(allow_null=True, help_text="that answers now; null while none does")
    state = serializers.ChoiceField(
        choices=EmbeddingState.choices, help_text="embedded: the picture can be found as it is now"
    )
    error = serializers.CharField(allow_null=True, help_text="why the last attempt failed")


class EmbeddingView(APIView):
    scope = "catalogue"

    @extend_schema(operation_id="get_embedding", responses=EmbeddingStatusSerializer)
    def get(self, request: Request, sku: str, image_id: int) -> Response:
        image = get_reference_image(request, sku, image_id)
        return Response(EmbeddingStatusSerializer(get_embedding_status(image)).data)


class CountsSerializer(serializers.Serializer):
    """Rows of the ledger."""

    pending = serializers.IntegerField()
    embedded = serializers.IntegerField()
    failed = serializers.IntegerField()
    removing = serializers.IntegerField()


class GenerationSerializer(serializers.ModelSerializer):
    """A generation, out."""

    embedder = serializers.CharField(help_text="name and version")
    detector = serializers.CharField(allow_null=True, help_text="that its boxes came from")
    state = serializers.ChoiceField(choices=GenerationState.choices)
    index = serializers.JSONField(help_text="type and its parameters")
    pictures = serializers.SerializerMethodField()
    job = serializers.SerializerMethodField(help_text="that fills or filled it")
    evaluation = serializers.SerializerMethodField(
        help_text="the last comparison with another generation, null before (docs/operating.md)"
    )
    failure = serializers.SerializerMethodField(help_text="why it failed")

    class Meta:
        model = Generation
        fields = [
            "id", "state", "embedder", "detector", "crop_margin", "index", "redetect", "pictures", "job", "evaluation",
            "failure", "created_at", "activated_at",
        ]  # fmt: skip
        read_only_fields = fields

    def get_pictures(self, generation: Generation) -> CountsSerializer:
        return count_ledger(generation)  # type: ignore[return-value]  # the annotation is for the schema

    def get_job(self, generation: Generation) -> UUID | None:
        job = get_job(generation)
        return None if job is None else job.pk

    def get_evaluation(self, generation: Generation) -> dict[str, Any] | None:
        return generation.evaluation or None

    def get_failure(self, generation: Generation) -> str | None:
        return generation.failure or None


class NewGenerationSerializer(RequestSerializer):
    model = serializers.CharField(max_length=130, help_text="an installed embedder: name, or name:version")
    index = serializers.ChoiceField(choices=get_args(IndexType), default="HNSW")
    redetect = serializers.BooleanField(
        default=False,
        help_text="have the active detector propose the main bodies anew, but for boxes that people drew or sent",
    )


class GenerationsView(APIView):
    scope = "operate"

    @extend_schema(operation_id="list_generations", responses=GenerationSerializer(many=True))
    def get(self, request: Request) -> Response:
        generations = Generation.objects.select_related("embedder", "detector")
        return Response(GenerationSerializer(generations, many=True).data)

    @extend_schema(
        operation_id="create_generation",
        request=NewGenerationSerializer,
        responses={HTTPStatus.CREATED: GenerationSerializer},
    )
    def post(self, request: Request) -> Response:
        wanted = NewGenerationSerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        caller = get_caller(request)
        job = start_reembedding(
            get_installed_model(wanted.validated_data["model"], ModelTask.EMBEDDER),
            IndexSettings(type=wanted.validated_data["index"]),
            redetect=wanted.validated_data["redetect"],
            asked_by=caller.name,
            device_id=caller.pk,
        )
        opened = get_generation(job.parameters["generation"])
        return Response(GenerationSerializer(opened).data, status=HTTPStatus.CREATED)


class GenerationView(APIView):
    scope = "operate"

    @extend_schema(operation_id="get_generation", responses=GenerationSerializer)
    def get(self, request: Request, generation_id: int) -> Response:
        return Response(GenerationSerializer(get_generation(generation_id)).data)
