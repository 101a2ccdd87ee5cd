"""`/api/v1/generations/{id}/evaluate`, `.../switch`, `/api/v1/generations/rollback`."""

from http import HTTPStatus

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from backend.common.caller import get_caller
from backend.common.serializers import RequestSerializer
from backend.evaluation.comparison import DROP_LIMIT
from backend.evaluation.switching import roll_back, start_comparison, switch_generation
from backend.gallery.api import GenerationSerializer
from backend.gallery.selectors import get_generation
from backend.jobs.api import JobSerializer


class ForceSerializer(RequestSerializer):
    force = serializers.BooleanField(
        default=False, help_text="in spite of what speaks against it; wants a reason"
    )
    reason = serializers.CharField(
        default="", allow_blank=True, max_length=500, help_text="kept in the audit log"
    )


class SwitchSerializer(ForceSerializer):
    limit = serializers.FloatField(
        default=DROP_LIMIT,
        min_value=0,
        max_value=100,
        help_text="points (of 100) by which recall@1 or mAP may fall",
    )


class EvaluateGenerationView(APIView):
    scope = "operate"

    @extend_schema(
        operation_id="evaluate_generation", request=None, responses={HTTPStatus.ACCEPTED: JobSerializer}
    )
    def post(self, request: Request, generation_id: int) -> Response:
        caller = get_caller(request)
        job = start_comparison(get_generation(generation_id), asked_by=caller.name, device_id=caller.pk)
        return Response(JobSerializer(job).data, status=HTTPStatus.ACCEPTED)


class SwitchGenerationView(APIView):
    scope = "operate"

    @extend_schema(operation_id="switch_generation", request=SwitchSerializer, responses=GenerationSerializer)
    def post(self, request: Request, generation_id: int) -> Response:
        wanted = SwitchSerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        answering = switch_generation(get_generation(generation_id), **wanted.validated_data)
        return Response(GenerationSerializer(answering).data)


class RollBackView(APIView):
    scope = "operate"

    @extend_schema(
        operation_id="roll_back_generation", request=ForceSerializer, responses=GenerationSerializer
    )
    def post(self, request: Request) -> Response:
        wanted = ForceSerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        return Response(GenerationSerializer(roll_back(**wanted.validated_data)).data)
