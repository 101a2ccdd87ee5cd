"""`/api/v1/products/{sku}/reference-images/{id}/findings`: what speaks against a picture; and how a check is told.

An address of its own, and no member of the reference image: the catalogue knows no gallery.
"""

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from backend.catalogue.api import get_reference_image
from backend.common.caller import refuse_bound_device
from backend.common.serializers import BoxField
from backend.gallery.checks import FINDINGS, check_embedded
from backend.gallery.selectors import get_active_generation


class FindingSerializer(serializers.Serializer):
    finding = serializers.ChoiceField(choices=FINDINGS)
    detail = serializers.CharField(help_text="for people")
    reference_image = serializers.IntegerField(
        allow_null=True, help_text="of the gallery, that it is about; null: about the picture alone"
    )
    sku = serializers.CharField(allow_null=True, help_text="of that picture's product")


class NearestSerializer(serializers.Serializer):
    reference_image = serializers.IntegerField()
    sku = serializers.CharField()
    name = serializers.CharField()
    similarity = serializers.FloatField()


class ChangedSerializer(serializers.Serializer):
    reference_image = serializers.IntegerField(help_text="that would find the checked picture first")
    sku = serializers.CharField(help_text="of its product")
    name = serializers.CharField()
    similarity_before = serializers.FloatField(
        allow_null=True, help_text="to what it finds first now; null: nothing"
    )
    similarity = serializers.FloatField(help_text="to the checked picture")


class PictureCheckSerializer(serializers.Serializer):
    """backend.gallery.checks.PictureCheck, out."""

    generation = serializers.IntegerField(help_text="that was asked")
    width = serializers.IntegerField(help_text="of the upright picture")
    height = serializers.IntegerField()
    box = BoxField(help_text="of the main body: the one given, else the one that would be proposed")
    box_source = serializers.ChoiceField(choices=["person", "detector", "whole"])
    findings = FindingSerializer(many=True)
    own = NearestSerializer(allow_null=True, help_text="its product's nearest picture")
    other = NearestSerializer(allow_null=True, help_text="another product's nearest picture")
    finds_own_product = serializers.BooleanField(
        allow_null=True, help_text="whether it would be answered right; null while its product has no picture"
    )
    worse = ChangedSerializer(
        many=True, help_text="of other products: right now, and wrong with this picture"
    )
    better = ChangedSerializer(many=True, help_text="of its product: wrong now, and right with this picture")
    exact_from = serializers.FloatField(
        allow_null=True,
        help_text="every picture was judged that has another one this near; null: every one there is",
    )
    n_alone = serializers.IntegerField(
        default=0,
        help_text="pictures near it that are their product's only one, of which 'worse' can say nothing",
    )


class FindingsSerializer(serializers.Serializer):
    generation = serializers.IntegerField(allow_null=True, help_text="that answers now; null while none does")
    findings = FindingSerializer(
        many=True, allow_null=True, help_text="null while the picture is not embedded as it is now"
    )


class FindingsView(APIView):
    scope = "catalogue"

    @extend_schema(operation_id="get_findings", responses=FindingsSerializer)
    def get(self, request: Request, sku: str, image_id: int) -> Response:
        refuse_bound_device(request)  # what is found may be another set's
        image = get_reference_image(request, sku, image_id)
        generation = get_active_generation()
        findings = None if generation is None else check_embedded(generation, image)
        shown = {"generation": generation and generation.pk, "findings": findings}
        return Response(FindingsSerializer(shown).data)
