from django.urls import path

from backend.jobs import api

urlpatterns = [
    path("jobs/<uuid:job_id>", api.JobView.as_view()),
    path("jobs/<uuid:job_id>/pause", api.PauseJob.as_view()),
    path("jobs/<uuid:job_id>/resume", api.ResumeJob.as_view()),
    path("jobs/<uuid:job_id>/cancel", api.CancelJob.as_view()),
    path("jobs/<uuid:job_id>/retry", api.RetryJob.as_view()),
]
