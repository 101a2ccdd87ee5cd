from django.urls import path

from backend.checkout import api

urlpatterns = [
    path("recognitions", api.RecognitionsView.as_view()),
    path("recognitions/<uuid:recognition_id>", api.RecognitionView.as_view()),
    path("recognitions/<uuid:recognition_id>/corrections", api.CorrectionsView.as_view()),
    path("echo", api.EchoView.as_view()),
]
