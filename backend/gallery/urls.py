from django.urls import path

from backend.gallery import api

urlpatterns = [
    path("products/<str:sku>/reference-images/<int:image_id>/embedding", api.EmbeddingView.as_view()),
]
