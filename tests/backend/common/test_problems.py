"""Every exception that can reach an edge is the problem that it should be to the caller."""

import errno
import json

import pytest
import redis
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import OperationalError
from django.http import Http404
from kombu.exceptions import OperationalError as BrokerError
from rest_framework import exceptions

from backend.common.problems import Problem, problem_of, problem_response
from recognition.errors import GalleryMismatch, GalleryUnavailable, ImageRefused, ModelRefused


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ImageRefused("truncated", "ends early"), 400, "image-truncated"),
        (ImageRefused("too-many-pixels", "large"), 413, "image-too-many-pixels"),
        (ImageRefused("too-many-bytes", "large"), 413, "image-too-many-bytes"),
        (ImageRefused("unsupported-format", "a GIF"), 415, "image-unsupported-format"),
        (ValidationError({"gtin": ["wrong"]}), 400, "invalid"),
        (ValidationError("wrong"), 400, "invalid"),
        (Http404("no such thing"), 404, "not-found"),
        (PermissionDenied(), 403, "forbidden"),
        (exceptions.NotAuthenticated(), 401, "not-authenticated"),
        (exceptions.MethodNotAllowed("PUT"), 405, "method-not-allowed"),
        (exceptions.UnsupportedMediaType("text/plain"), 415, "unsupported-media-type"),
        (OperationalError("gone"), 503, "engine-unavailable"),
        (redis.ConnectionError("gone"), 503, "engine-unavailable"),
        (BrokerError("gone"), 503, "engine-unavailable"),
        (GalleryUnavailable("gone"), 503, "engine-unavailable"),
        (GalleryMismatch("other"), 503, "not-ready"),
        (ModelRefused("other"), 503, "not-ready"),
        (OSError(errno.ENOSPC, "No space left on device"), 503, "storage-full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 503, "storage-full"),
    ],
)
def test_status_and_code(error, status, code):
    problem = problem_of(error)
    assert problem is not None
    assert (problem.status, problem.code) == (status, code)
    assert problem.detail
    assert (problem.retry_after is not None) == (status == 503)


def test_a_mistake_of_ours_is_none():
    assert problem_of(ZeroDivisionError()) is None
    assert problem_of(OSError(errno.EACCES, "Permission denied")) is None


def test_the_field_at_fault_stands_in_the_detail():
    problem = problem_of(exceptions.ValidationError({"products": [{}, {"sku": ["is missing"]}]}))
    assert problem is not None
    assert problem.detail == "products: sku: is missing"


def test_the_response_is_problem_json():
    response = problem_response(Problem(429, "too-many", "wait", retry_after=3))
    assert response["Content-Type"] == "application/problem+json"
    assert response["Retry-After"] == "3"
    assert json.loads(response.content) == {
        "type": "urn:checklane:problem:too-many",
        "title": "Too Many Requests",
        "status": 429,
        "code": "too-many",
        "detail": "wait",
    }
