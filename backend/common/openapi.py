"""drf-spectacular hooks: every operation says that its errors are problem+json, every body that it takes no more."""

from typing import Any

PROBLEM_SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string", "example": "urn:checklane:problem:image-truncated"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "errors": {"description": "messages by field, where the body was at fault"},
    },
}


def add_problem_responses(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Add the Problem schema, and a `default` response that refers to it, to each operation."""
    result.setdefault("components", {}).setdefault("schemas", {})["Problem"] = PROBLEM_SCHEMA
    answer = {
        "description": "Refused (4xx) or an engine does not answer (503, with Retry-After)",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for operations in result.get("paths", {}).values():
        for operation in operations.values():
            if isinstance(operation, dict) and "responses" in operation:
                operation["responses"]["default"] = answer
    return result


def close_requests(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Say of each body that a member it does not name is refused (RequestSerializer)."""
    for name, schema in result.get("components", {}).get("schemas", {}).items():
        if name.endswith("Request"):
            schema["additionalProperties"] = False
    return result
