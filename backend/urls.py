"""Addresses: the admin at /, the API at /api/v1, health and metrics."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView

from backend.checkout import health

handler400 = "backend.common.problems.bad_request"
handler403 = "backend.common.problems.permission_denied"
handler404 = "backend.common.problems.page_not_found"
handler500 = "backend.common.problems.server_error"

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    path("api/v1/", include("backend.catalogue.urls")),
    path("api/v1/", include("backend.gallery.urls")),
    path("api/v1/", include("backend.evaluation.urls")),
    path("api/v1/", include("backend.checkout.urls")),
    path("api/v1/", include("backend.jobs.urls")),
    path("api/schema", SpectacularAPIView.as_view(authentication_classes=[]), name="schema"),
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("metrics", health.metrics),
]
