"""What FastAPI cannot derive for the OpenAPI document: request bodies, which are streamed by hand, and examples.

The examples are real answers of the starter model; ``python -m serve_app.openapi_examples`` asks it again.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from serve_app.feedback_form import LABELS
from serve_app.settings import HttpSettings
from serve_app.uploads import FIELD

EXAMPLES = Path(__file__).with_name("openapi_examples.json")
_FILE = {"type": "string", "format": "binary"}


@cache
def examples() -> dict[str, Any]:
    """Answers by the path of their route."""
    answers: dict[str, Any] = json.loads(EXAMPLES.read_text())
    return answers


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of an application, with an example for each route that has one.

    They are added to the finished document, because FastAPI would drop their nulls.
    """
    if app.openapi_schema is None:
        schema = FastAPI.openapi(app)
        for path, answer in examples().items():
            for operation in schema["paths"].get(path, {}).values():
                response = next(operation["responses"][s] for s in ("200", "202") if s in operation["responses"])
                response["content"]["application/json"]["example"] = answer
    return FastAPI.openapi(app)


def _form(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"multipart/form-data": {"schema": {"type": "object", "required": required, "properties": properties}}}


def image_body(settings: HttpSettings) -> dict[str, Any]:
    """The body of ``POST /v1/detect``."""
    many = {"type": "array", "minItems": 1, "maxItems": settings.limits.max_files, "items": _FILE}
    content = {**_form({FIELD: many}, [FIELD]), "image/*": {"schema": _FILE}}
    if settings.allow_url:
        url = {"type": "string", "format": "uri", "description": "an http or https URL on the public internet"}
        content["application/json"] = {"schema": {"type": "object", "required": ["url"], "properties": {"url": url}}}
    return {"required": True, "content": content}


def batch_body(settings: HttpSettings) -> dict[str, Any]:
    """The body of ``POST /v1/batches``."""
    webhook = {"type": "string", "format": "uri", "description": "an http or https URL on the public internet"}
    optional = {"webhook": webhook} if settings.allow_url else {}
    many = {"type": "array", "minItems": 1, "maxItems": settings.batch_files, "items": _FILE}
    content = _form({FIELD: many, **optional}, [FIELD])
    if settings.allow_url:
        urls = {"type": "array", "minItems": 1, "maxItems": settings.batch_files, "items": webhook}
        schema = {"type": "object", "required": ["urls"], "properties": {"urls": urls, **optional}}
        content["application/json"] = {"schema": schema}
    return {"required": True, "content": content}


def clip_body() -> dict[str, Any]:
    """The body of ``POST /v1/detect/video``."""
    return {"required": True, "content": {**_form({FIELD: _FILE}, [FIELD]), "video/*": {"schema": _FILE}}}


def feedback_body() -> dict[str, Any]:
    """The body of ``POST /v1/feedback``."""
    properties = {
        FIELD: _FILE,
        "label": {"type": "string", "enum": list(LABELS), "description": "what the image really is"},
        "consent": {
            "type": "string",
            "enum": ["true"],
            "description": "agrees that the image is stored and used for training",
        },
        "receipt": {
            "type": "string",
            "description": "the receipt in the answer about this image: what the service had answered is recorded",
        },
    }
    return {"required": True, "content": _form(properties, [FIELD, "label", "consent"])}
