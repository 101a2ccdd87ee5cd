"""The answer's shape for the OpenAPI document; the answer itself is made in answers.py."""

from rest_framework import serializers

from backend.checkout.models import RecognitionState
from recognition.ranking import Result


class SizeSerializer(serializers.Serializer):
    width = serializers.IntegerField()
    height = serializers.IntegerField()


class AnsweredProductSerializer(serializers.Serializer):
    sku = serializers.CharField()
    gtin = serializers.CharField(allow_null=True)
    name = serializers.CharField()
    price = serializers.DecimalField(max_digits=12, decimal_places=2, allow_null=True)
    currency = serializers.CharField(allow_null=True)


class CandidateSerializer(serializers.Serializer):
    product = AnsweredProductSerializer()
    similarity = serializers.FloatField()
    reference_image = serializers.IntegerField(help_text="id of the nearest picture")


class ItemSerializer(serializers.Serializer):
    id = serializers.IntegerField()
    box = serializers.ListField(
        child=serializers.FloatField(),
        min_length=4,
        max_length=4,
        help_text="x1, y1, x2, y2 in pixels of the upright photo",
    )
    detection_score = serializers.FloatField(allow_null=True)
    result = serializers.ChoiceField(choices=[result.value for result in Result])
    product = AnsweredProductSerializer(allow_null=True)
    similarity = serializers.FloatField(allow_null=True)
    confidence = serializers.FloatField(
        allow_null=True,
        min_value=0,
        max_value=1,
        help_text="probability that the first candidate is the item's product; null while none is fitted, and without"
        " a runner-up",
    )
    candidates = CandidateSerializer(many=True)
    basket_reason = serializers.CharField(allow_null=True)


class LineSerializer(serializers.Serializer):
    sku = serializers.CharField()
    name = serializers.CharField()
    quantity = serializers.IntegerField()
    unit_price = serializers.DecimalField(max_digits=12, decimal_places=2, allow_null=True)
    line_total = serializers.DecimalField(max_digits=12, decimal_places=2, allow_null=True)


class BasketSerializer(serializers.Serializer):
    lines = LineSerializer(many=True)
    total = serializers.DecimalField(max_digits=12, decimal_places=2, allow_null=True)
    currency = serializers.CharField(allow_null=True)
    complete = serializers.BooleanField()


class ModelsSerializer(serializers.Serializer):
    detector = serializers.CharField(allow_null=True)
    embedder = serializers.CharField()


class RecognitionAnswerSerializer(serializers.Serializer):
    id = serializers.UUIDField()
    state = serializers.ChoiceField(choices=RecognitionState.choices)
    image = SizeSerializer()
    main_body_found = serializers.BooleanField(help_text="false: the whole image was taken as the one box")
    product_set = serializers.CharField(allow_null=True)
    strategy = serializers.ChoiceField(choices=["float", "hash", "hash_rerank"])
    generation = serializers.IntegerField()
    threshold_set = serializers.IntegerField(allow_null=True)
    models = ModelsSerializer()
    items = ItemSerializer(many=True)
    basket = BasketSerializer()
    timings_ms = serializers.DictField(child=serializers.FloatField())
