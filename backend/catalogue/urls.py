from django.urls import path

from backend.catalogue import api

urlpatterns = [
    path("products", api.ProductsView.as_view()),
    path("products/<str:sku>", api.ProductView.as_view()),
    path("products/<str:sku>/reference-images", api.ReferenceImagesView.as_view()),
    path("products/<str:sku>/reference-images/<int:image_id>", api.ReferenceImageView.as_view()),
    path("products/<str:sku>/reference-images/<int:image_id>/file", api.ReferenceImageFile.as_view()),
    path("product-sets", api.ProductSetsView.as_view()),
    path("product-sets/<str:slug>", api.ProductSetView.as_view()),
    path("product-sets/<str:slug>/products", api.ProductSetMembersView.as_view()),
    path("catalogue-imports", api.CatalogueImportsView.as_view()),
]
