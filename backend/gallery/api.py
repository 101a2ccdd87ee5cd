"""`/api/v1/products/{sku}/reference-images/{id}/embedding`: whether a picture can be found yet.

An address of its own, and no member of the reference image: the catalogue knows no gallery.
"""

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from backend.catalogue.api import get_reference_image
from backend.gallery.models import EmbeddingState
from backend.gallery.selectors import get_embedding_status


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
