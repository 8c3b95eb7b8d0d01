"""OpenAPI schemas of the request bodies: FastAPI cannot derive them, because uploads are streamed by hand."""

from typing import Any

from serve_app.feedback_form import LABELS
from serve_app.settings import HttpSettings
from serve_app.uploads import FIELD

_FILE = {"type": "string", "format": "binary"}


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
