"""Celery tasks of the checkout; settings route `recognise` and `echo` to the queue `recognition`."""

from celery import shared_task

from backend.checkout import admission, services


@shared_task(name="checkout.recognise")
def recognise_task(recognition_id: str) -> None:
    services.run_recognition(recognition_id)


@shared_task(name="checkout.echo")
def echo_task(signal_id: str) -> None:
    """Nothing but the way there and back: what web, broker and worker cost by themselves."""
    admission.signal(signal_id, {"state": "done"})


@shared_task(name="checkout.expire_recognitions", expires=60)
def expire_recognitions_task() -> None:
    services.expire_recognitions()


@shared_task(name="checkout.purge_query_images", expires=3600)
def purge_query_images_task() -> None:
    services.purge_query_images()
