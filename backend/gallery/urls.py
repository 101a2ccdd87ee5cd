from django.urls import path

from backend.gallery import api, checks_api

urlpatterns = [
    path("generations", api.GenerationsView.as_view()),
    path("generations/<int:generation_id>", api.GenerationView.as_view()),
    path("products/<str:sku>/reference-images/<int:image_id>/embedding", api.EmbeddingView.as_view()),
    path("products/<str:sku>/reference-images/<int:image_id>/findings", checks_api.FindingsView.as_view()),
]
