"""The form of ``POST /v1/feedback``: an image, its label, the sender's consent, and the receipt of the wrong answer."""

import hashlib
from dataclasses import dataclass

from detector_core.data import feedback
from detector_core.images.decode import read_size
from serve_app.decode_pool import BYTES_PER_PIXEL, DecodePool
from serve_app.errors import Refusal
from serve_app.receipts import Receipt, Receipts
from serve_app.uploads import FIELD, Form

LABELS = ("real", "fake")
CLAIMS = ("verdict", "request_id")
"""Fields that may be sent along, and must then be those of the receipt."""
_YES = ("true", "1", "yes", "on")


@dataclass(frozen=True, kw_only=True)
class FeedbackForm:
    """An image whose sender agrees that it is stored; ``receipt`` is None if the service was not asked about it."""

    data: bytes
    label: str
    receipt: Receipt | None

    @classmethod
    def parse(cls, form: Form, receipts: Receipts) -> "FeedbackForm":
        """Checks the fields. Raises Refusal (422)."""
        fields = form.fields
        if fields.get("consent", "").lower() not in _YES:
            raise Refusal(422, "images are stored only with consent: send consent=true", "no_consent")
        label = fields.get("label", "")
        if label not in LABELS:
            raise Refusal(422, f"label must be one of {', '.join(LABELS)}", "bad_parameter")
        if not form.files:
            raise Refusal(422, f"the form has no image in a field named {FIELD!r}")
        receipt = receipts.read(fields["receipt"]) if fields.get("receipt") else None
        if receipt and receipt.sha256 != hashlib.sha256(form.files[0]).hexdigest():
            raise Refusal(422, "the receipt belongs to another image: send the file that was analyzed", "bad_receipt")
        for name in CLAIMS:
            if name in fields and fields[name] != getattr(receipt, name, None):
                message = f"{name} is not what the service answered: leave it out, and send the receipt of the answer"
                raise Refusal(422, message, "bad_receipt")
        return cls(data=form.files[0], label=label, receipt=receipt)

    def save(
        self, store: feedback.Store, model: dict[str, str], max_pixels: int, pool: DecodePool
    ) -> feedback.Donation:
        """Stores the image without metadata, in a thread.

        Args:
            model: the live model, which is recorded if there is no receipt.

        Raises:
            BadImage, InsufficientResources: see :meth:`detector_core.data.feedback.Store.add`.
        """
        width, height = read_size(self.data, max_pixels=max_pixels)
        with pool.reserve(2 * width * height * BYTES_PER_PIXEL):
            return store.add(
                self.data,
                self.label,
                model=self.receipt.model if self.receipt else model,
                verdict=self.receipt.verdict if self.receipt else "",
                request_id=self.receipt.request_id if self.receipt else "",
                max_pixels=max_pixels,
            )
