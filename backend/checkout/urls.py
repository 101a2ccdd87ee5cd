from django.urls import path

from backend.checkout import api, review_api, shadow_api

urlpatterns = [
    path("recognitions", api.RecognitionsView.as_view()),
    path("recognitions/<uuid:recognition_id>", api.RecognitionView.as_view()),
    path("recognitions/<uuid:recognition_id>/corrections", api.CorrectionsView.as_view()),
    path("corrections", review_api.CorrectionListView.as_view()),
    path("corrections/<int:correction_id>", review_api.CorrectionView.as_view()),
    path("corrections/<int:correction_id>/crop", review_api.CorrectionCropView.as_view()),
    path("corrections/<int:correction_id>/check", review_api.CheckCorrectionView.as_view()),
    path("corrections/<int:correction_id>/accept", review_api.AcceptCorrectionView.as_view()),
    path("corrections/<int:correction_id>/reject", review_api.RejectCorrectionView.as_view()),
    path("corrections/<int:correction_id>/undo", review_api.UndoReviewView.as_view()),
    path("products/<str:sku>/reference-images/check", review_api.CheckReferenceImageView.as_view()),
    path("generations/<int:generation_id>/shadow", shadow_api.ShadowView.as_view()),
    path("generations/<int:generation_id>/shadow/items", shadow_api.ShadowedItemsView.as_view()),
    path("echo", api.EchoView.as_view()),
]
