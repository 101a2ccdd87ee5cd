"""`/api/v1/jobs/{id}`: progress, pause, resume, cancel, retry."""

from uuid import UUID

from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from backend.common.caller import get_caller
from backend.common.problems import not_found
from backend.jobs import services
from backend.jobs.models import Job


class JobSerializer(serializers.ModelSerializer):
    """What a caller learns of a job."""

    rate = serializers.FloatField(allow_null=True, read_only=True, help_text="steps a second, lately")
    seconds_left = serializers.FloatField(
        allow_null=True, read_only=True, help_text="at that rate; null while nobody can tell"
    )

    class Meta:
        model = Job
        fields = [
            "id", "kind", "subject", "state", "total", "cursor", "failed", "rate", "seconds_left", "failures", "result",
            "asked_by", "created_at", "started_at", "finished_at",
        ]  # fmt: skip
        read_only_fields = fields


def get_job(request: Request, job_id: UUID) -> Job:
    """The job, if this device started it or may operate."""
    jobs = Job.objects.all()
    if "operate" not in get_caller(request).scopes:
        jobs = jobs.filter(device_id=get_caller(request).pk)
    job = jobs.filter(pk=job_id).first()
    if job is None:
        raise not_found("job", str(job_id))
    return job


class JobView(APIView):
    scope = "catalogue"

    @extend_schema(operation_id="get_job", responses=JobSerializer)
    def get(self, request: Request, job_id: UUID) -> Response:
        return Response(JobSerializer(get_job(request, job_id)).data)


class _SteerJob(APIView):
    scope = "catalogue"
    act = staticmethod(services.pause_job)

    def post(self, request: Request, job_id: UUID) -> Response:
        return Response(JobSerializer(self.act(get_job(request, job_id))).data)


@extend_schema_view(post=extend_schema(operation_id="pause_job", request=None, responses=JobSerializer))
class PauseJob(_SteerJob):
    act = staticmethod(services.pause_job)


@extend_schema_view(post=extend_schema(operation_id="resume_job", request=None, responses=JobSerializer))
class ResumeJob(_SteerJob):
    act = staticmethod(services.resume_job)


@extend_schema_view(post=extend_schema(operation_id="cancel_job", request=None, responses=JobSerializer))
class CancelJob(_SteerJob):
    act = staticmethod(services.cancel_job)


@extend_schema_view(post=extend_schema(operation_id="retry_job", request=None, responses=JobSerializer))
class RetryJob(_SteerJob):
    act = staticmethod(services.retry_job)
