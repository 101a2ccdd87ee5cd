"""`/api/v1/generations/{id}/shadow`: running a generation beside the active one, and what it would have answered."""

from http import HTTPStatus
from typing import Any, ClassVar

import django_filters
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.generics import GenericAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from backend.checkout.models import Difference, ShadowedItem
from backend.checkout.shadow_report import Right, list_shadowed_items, summarise_shadow
from backend.common.caller import get_caller
from backend.common.pagination import Pages
from backend.common.problems import Problem
from backend.common.serializers import RequestSerializer
from backend.gallery.models import Generation, Shadow
from backend.gallery.selectors import get_generation, get_shadow
from backend.gallery.shadows import end_shadow, start_shadow
from recognition.ranking import Result


class ShareSerializer(RequestSerializer):
    share = serializers.FloatField(
        min_value=0, max_value=1, help_text="of the live recognitions; with 0 nothing is run"
    )


class AgreementSerializer(serializers.Serializer):
    n = serializers.IntegerField()
    n_same = serializers.IntegerField(help_text="answered the same")
    agreement = serializers.ListField(
        child=serializers.FloatField(),
        allow_null=True,
        help_text="the share of the same, and the low and high end of its 95 % interval; null of none",
    )


class ProductShiftSerializer(serializers.Serializer):
    sku = serializers.CharField()
    name = serializers.CharField()
    recognised_active = serializers.IntegerField(help_text="items that were recognised as it")
    recognised_candidate = serializers.IntegerField(help_text="items that this generation recognises as it")
    named_active = serializers.IntegerField(help_text="with those that needed confirmation")
    named_candidate = serializers.IntegerField(help_text="with those that would need confirmation")


class ShadowSerializer(serializers.ModelSerializer):
    """A shadow and what it found."""

    generation = serializers.IntegerField(source="generation_id")
    active = serializers.IntegerField(source="active_id", help_text="that answered meanwhile")
    started_at = serializers.DateTimeField(source="created_at")
    recognitions = serializers.SerializerMethodField(help_text="that ran; the same where every item is")
    items = serializers.SerializerMethodField()
    differences = serializers.SerializerMethodField(help_text="items by how they differ")
    products = serializers.SerializerMethodField(help_text="that gain or lose, at most 50")
    n_products = serializers.SerializerMethodField(help_text="that gain or lose")
    right = serializers.SerializerMethodField(help_text="corrected items by who was right")

    class Meta:
        model = Shadow
        fields = [
            "id", "generation", "active", "share", "started_at", "started_by", "ended_at", "ended_because", "n_dropped",
            "n_failed", "last_failure", "recognitions", "items", "differences", "products", "n_products", "right",
        ]  # fmt: skip
        read_only_fields = fields
        extra_kwargs: ClassVar[dict[str, Any]] = {"last_failure": {"help_text": "empty where none failed"}}

    def to_representation(self, shadow: Shadow) -> dict[str, Any]:
        self._summary = summarise_shadow(shadow).to_dict()
        return super().to_representation(shadow)

    @extend_schema_field(AgreementSerializer)
    def get_recognitions(self, shadow: Shadow) -> Any:
        return self._summary["recognitions"]

    @extend_schema_field(AgreementSerializer)
    def get_items(self, shadow: Shadow) -> Any:
        return self._summary["items"]

    def get_differences(self, shadow: Shadow) -> dict[str, int]:
        return self._summary["differences"]

    @extend_schema_field(ProductShiftSerializer(many=True))
    def get_products(self, shadow: Shadow) -> Any:
        return self._summary["products"]

    def get_n_products(self, shadow: Shadow) -> int:
        return self._summary["n_products"]

    def get_right(self, shadow: Shadow) -> dict[str, int]:
        return self._summary["right"]


class ShadowAnswerSerializer(serializers.Serializer):
    result = serializers.ChoiceField(choices=[result.value for result in Result])
    sku = serializers.CharField(allow_null=True, help_text="null: it names no product")
    similarity = serializers.FloatField(allow_null=True)
    confidence = serializers.FloatField(allow_null=True)


class ShadowedItemSerializer(serializers.ModelSerializer):
    """One item beside what the generation in the shadow made of it."""

    recognition = serializers.UUIDField(source="item.recognition_id")
    item = serializers.IntegerField(source="item.number")
    difference = serializers.ChoiceField(choices=Difference.choices)
    active = serializers.SerializerMethodField(help_text="as it was answered")
    candidate = serializers.SerializerMethodField(help_text="as this generation would have answered it")
    threshold_set = serializers.IntegerField(
        source="threshold_set.version", allow_null=True, default=None, help_text="of this generation"
    )
    corrected = serializers.BooleanField(help_text="whether a person said what it really was")
    corrected_sku = serializers.SerializerMethodField(help_text="null: not a product, or not corrected")
    right = serializers.ChoiceField(
        choices=Right.choices, allow_null=True, help_text="who answered that; null: not corrected"
    )

    class Meta:
        model = ShadowedItem
        fields = [
            "id", "recognition", "item", "created_at", "difference", "active", "candidate", "threshold_set",
            "corrected", "corrected_sku", "right",
        ]  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(ShadowAnswerSerializer)
    def get_active(self, shadowed: ShadowedItem) -> dict[str, Any]:
        item = shadowed.item
        return _answer(item.result, item.sku, item.similarity, shadowed.active_confidence)

    @extend_schema_field(ShadowAnswerSerializer)
    def get_candidate(self, shadowed: ShadowedItem) -> dict[str, Any]:
        return _answer(shadowed.result, shadowed.sku, shadowed.similarity, shadowed.confidence)

    def get_corrected_sku(self, shadowed: Any) -> str | None:
        return shadowed.corrected_sku or None


def _answer(result: str, sku: str, similarity: float | None, confidence: float | None) -> dict[str, Any]:
    return {"result": result, "sku": sku or None, "similarity": similarity, "confidence": confidence}


def _get_shadow(generation_id: int) -> Shadow:
    generation = get_generation(generation_id)
    shadow = get_shadow(generation)
    if shadow is None:
        raise _never(generation)
    return shadow


def _never(generation: Generation) -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, "not-found", f"{generation} never ran in the shadow")


class ShadowView(APIView):
    scope = "operate"

    @extend_schema(operation_id="get_shadow", responses=ShadowSerializer)
    def get(self, request: Request, generation_id: int) -> Response:
        return Response(ShadowSerializer(_get_shadow(generation_id)).data)

    @extend_schema(operation_id="start_shadow", request=ShareSerializer, responses=ShadowSerializer)
    def put(self, request: Request, generation_id: int) -> Response:
        wanted = ShareSerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        shadow = start_shadow(
            get_generation(generation_id), started_by=get_caller(request).name, **wanted.validated_data
        )
        return Response(ShadowSerializer(shadow).data)

    @extend_schema(operation_id="end_shadow", request=None, responses={200: ShadowSerializer})
    def delete(self, request: Request, generation_id: int) -> Response:
        shadow = end_shadow(get_generation(generation_id), ended_by=get_caller(request).name)
        return Response(ShadowSerializer(shadow).data)


class NewestFirst(Pages):
    ordering = "-id"


class ShadowedItemFilter(django_filters.FilterSet):
    difference = django_filters.ChoiceFilter(choices=Difference.choices)
    differs = django_filters.BooleanFilter(
        method="keep_differing", help_text="true: those that are not the same"
    )
    right = django_filters.ChoiceFilter(choices=Right.choices)

    class Meta:
        model = ShadowedItem
        fields = ["difference", "differs", "right"]

    def keep_differing(self, items: QuerySet[Any], name: str, value: bool) -> QuerySet[Any]:
        return (
            items.exclude(difference=Difference.SAME) if value else items.filter(difference=Difference.SAME)
        )


class ShadowedItemsView(GenericAPIView):
    """The items that the generation's newest shadow ran on, the newest first."""

    scope = "operate"
    serializer_class = ShadowedItemSerializer
    filterset_class = ShadowedItemFilter
    filter_backends = [django_filters.rest_framework.DjangoFilterBackend]
    pagination_class = NewestFirst
    queryset = ShadowedItem.objects.none()

    def get_queryset(self) -> Any:
        if getattr(self, "swagger_fake_view", False):
            return self.queryset
        return list_shadowed_items(_get_shadow(self.kwargs["generation_id"]))

    @extend_schema(operation_id="list_shadowed_items", responses=ShadowedItemSerializer(many=True))
    def get(self, request: Request, generation_id: int) -> Response:
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        return self.get_paginated_response(self.get_serializer(page, many=True).data)
