"""What the bodies of requests look like in the OpenAPI document, and the form of a gift."""

from dataclasses import dataclass
from typing import Any

from detector_core.data import feedback
from detector_core.images.decode import size_of
from serve_app.errors import Refusal
from serve_app.pipeline import BYTES_A_PIXEL, Workers
from serve_app.settings import HttpSettings
from serve_app.uploads import FIELD, Form

_FILE = {"type": "string", "format": "binary"}
_LABELS, _VERDICTS = ("real", "fake"), ("real", "uncertain", "fake", "no_face")
_MAX_ID = 64
_YES = ("true", "1", "yes", "on")


def _form(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"multipart/form-data": {"schema": {"type": "object", "required": required, "properties": properties}}}


def images(settings: HttpSettings) -> dict[str, Any]:
    """Of ``POST /v1/detect``."""
    many = {"type": "array", "minItems": 1, "maxItems": settings.limits.max_files, "items": _FILE}
    content = {**_form({FIELD: many}, [FIELD]), "image/*": {"schema": _FILE}}
    if settings.allow_url:
        url = {"type": "string", "format": "uri", "description": "http or https, on the open internet"}
        content["application/json"] = {"schema": {"type": "object", "required": ["url"], "properties": {"url": url}}}
    return {"required": True, "content": content}


def clip() -> dict[str, Any]:
    """Of ``POST /v1/detect/video``."""
    return {"required": True, "content": {**_form({FIELD: _FILE}, [FIELD]), "video/*": {"schema": _FILE}}}


def gift() -> dict[str, Any]:
    """Of ``POST /v1/feedback``."""
    properties = {
        FIELD: _FILE,
        "label": {"type": "string", "enum": list(_LABELS), "description": "what the image is"},
        "consent": {"type": "string", "enum": ["true"], "description": "that the image is kept and learnt from"},
        "verdict": {"type": "string", "enum": list(_VERDICTS), "description": "what the service had said"},
        "request_id": {"type": "string", "maxLength": _MAX_ID, "description": "of that answer"},
    }
    return {"required": True, "content": _form(properties, [FIELD, "label", "consent"])}


@dataclass(frozen=True, kw_only=True)
class Gift:
    """An image that its giver consents to have kept."""

    data: bytes
    label: str
    verdict: str
    request_id: str

    @classmethod
    def read(cls, form: Form) -> "Gift":
        """Checks a form. Raises Refusal (422)."""
        fields = form.fields
        if fields.get("consent", "").lower() not in _YES:
            raise Refusal(422, "an image is kept only with your consent: send consent=true", "no_consent")
        label, verdict, said_id = (fields.get(name, "") for name in ("label", "verdict", "request_id"))
        if label not in _LABELS:
            raise Refusal(422, f"label must be one of {', '.join(_LABELS)}", "bad_parameter")
        if verdict and verdict not in _VERDICTS:
            raise Refusal(422, f"verdict must be one of {', '.join(_VERDICTS)}", "bad_parameter")
        if len(said_id) > _MAX_ID or not said_id.isprintable():
            raise Refusal(422, f"request_id has at most {_MAX_ID} printable characters", "bad_parameter")
        if not form.files:
            raise Refusal(422, f"the form has no image in a field named {FIELD!r}")
        return cls(data=form.files[0], label=label, verdict=verdict, request_id=said_id)

    def keep(self, store: feedback.Store, model: dict[str, str], max_pixels: int, workers: Workers) -> str:
        """Stores it; in a thread. Returns its id. Raises BadImage, NoRoom."""
        width, height = size_of(self.data, max_pixels=max_pixels)
        with workers.memory(2 * width * height * BYTES_A_PIXEL):
            return store.add(
                self.data,
                self.label,
                model=model,
                verdict=self.verdict,
                request_id=self.request_id,
                max_pixels=max_pixels,
            )
