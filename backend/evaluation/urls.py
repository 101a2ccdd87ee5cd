from django.urls import path

from backend.evaluation import api

urlpatterns = [
    path("generations/rollback", api.RollBackView.as_view()),
    path("generations/<int:generation_id>/evaluate", api.EvaluateGenerationView.as_view()),
    path("generations/<int:generation_id>/switch", api.SwitchGenerationView.as_view()),
]
