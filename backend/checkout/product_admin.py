"""What the checkout adds to a product's page: a picture is checked before it is added, by the queue that is here."""

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse

from backend.catalogue.models import Product
from backend.catalogue.services import read_upload
from backend.checkout.picture_checks import check_upload
from backend.common.admin import check_permission
from backend.common.problems import Problem, problem_of, problem_response
from backend.gallery.admin import EnrolledProductAdmin

admin.site.unregister(Product)


@admin.register(Product)
class CheckedProductAdmin(EnrolledProductAdmin):
    """Products, whose pictures are asked about before they are sent."""

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.check_picture_view)
        return [
            path("<int:pk>/check-picture/", view, name="catalogue_product_check_picture"),
            *super().get_urls(),
        ]

    def get_check_url(self, product: Product) -> str:
        return reverse("admin:catalogue_product_check_picture", args=[product.pk])

    def check_picture_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """POST a picture: what speaks against it, or the problem; nothing is stored."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        check_permission(request, "catalogue.add_referenceimage")
        product = get_object_or_404(Product, pk=pk)
        picture: Any = request.FILES.get("pictures")
        try:
            if picture is None:
                raise Problem(400, "invalid", "There is no picture in the request: choose one.")
            check = check_upload(product, read_upload(picture, settings.IMAGE_MAX_BYTES))
        except Exception as error:
            problem = problem_of(error)
            if problem is None:
                raise
            return problem_response(problem)
        return JsonResponse({"findings": check["findings"]})
