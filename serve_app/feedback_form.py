"""The form of ``POST /v1/feedback``: an image, its label, and the sender's consent."""

from dataclasses import dataclass

from detector_core.data import feedback
from detector_core.images.decode import read_size
from serve_app.decode_pool import BYTES_PER_PIXEL, DecodePool
from serve_app.errors import Refusal
from serve_app.uploads import FIELD, Form

LABELS, VERDICTS = ("real", "fake"), ("real", "uncertain", "fake", "no_face")
MAX_ID = 64
_YES = ("true", "1", "yes", "on")


@dataclass(frozen=True, kw_only=True)
class FeedbackForm:
    """An image whose sender agrees that it is stored."""

    data: bytes
    label: str
    verdict: str
    request_id: str

    @classmethod
    def parse(cls, form: Form) -> "FeedbackForm":
        """Checks the fields. Raises Refusal (422)."""
        fields = form.fields
        if fields.get("consent", "").lower() not in _YES:
            raise Refusal(422, "images are stored only with consent: send consent=true", "no_consent")
        label, verdict, request_id = (fields.get(name, "") for name in ("label", "verdict", "request_id"))
        if label not in LABELS:
            raise Refusal(422, f"label must be one of {', '.join(LABELS)}", "bad_parameter")
        if verdict and verdict not in VERDICTS:
            raise Refusal(422, f"verdict must be one of {', '.join(VERDICTS)}", "bad_parameter")
        if len(request_id) > MAX_ID or not request_id.isprintable():
            raise Refusal(422, f"request_id must be at most {MAX_ID} printable characters", "bad_parameter")
        if not form.files:
            raise Refusal(422, f"the form has no image in a field named {FIELD!r}")
        return cls(data=form.files[0], label=label, verdict=verdict, request_id=request_id)

    def save(self, store: feedback.Store, model: dict[str, str], max_pixels: int, pool: DecodePool) -> str:
        """Stores the image without metadata and returns its id, in a thread. Raises BadImage, InsufficientResources."""
        width, height = read_size(self.data, max_pixels=max_pixels)
        with pool.reserve(2 * width * height * BYTES_PER_PIXEL):
            return store.add(
                self.data,
                self.label,
                model=model,
                verdict=self.verdict,
                request_id=self.request_id,
                max_pixels=max_pixels,
            )
