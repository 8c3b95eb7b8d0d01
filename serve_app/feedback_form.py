"""An image that its sender tags as real or fake, and how it is stored; the form of ``POST /v1/feedback``.

Such an image comes with the form, or with a tagged request for a verdict (``POST /v1/detect?tag=fake``).
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

from detector_core.data import feedback
from serve_app.decode_pool import Job
from serve_app.errors import Refusal
from serve_app.receipts import Receipt, Receipts
from serve_app.uploads import FIELD, Form

LABELS = ("real", "fake")
CLAIMS = ("verdict", "request_id")
"""Fields that may be sent along, and must then be those of the receipt."""
_YES = ("true", "1", "yes", "on")


@dataclass(frozen=True, kw_only=True)
class TaggedImage:
    """An image whose sender agrees that it is stored.

    Attributes:
        data: the file as it was sent.
        label: what it shows according to the sender: real or fake.
        receipt: what the service answered about it; None if it was not asked.
        giver: pseudonym of the sender's API key or network.
    """

    data: bytes
    label: str
    receipt: Receipt | None
    giver: str

    @classmethod
    def parse(cls, form: Form, receipts: Receipts, giver: str) -> "TaggedImage":
        """Checks the fields of a feedback form. Raises Refusal (422)."""
        fields = form.fields
        if fields.get("consent", "").lower() not in _YES:
            raise no_consent()
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
        return cls(data=form.files[0], label=label, receipt=receipt, giver=receipts.pseudonym(giver))

    def save(
        self, job: Job, store: feedback.Store, model: dict[str, str], max_pixels: int, accepted: Collection[str]
    ) -> feedback.Donation:
        """Stores the image without metadata, in a thread.

        Args:
            model: the live model, which is recorded if there is no receipt.
            max_pixels, accepted: see :func:`detector_core.images.decode.decode_file`.

        Raises:
            BadImage, InsufficientResources: see :meth:`detector_core.data.feedback.Store.add`.
            Cancelled: nobody waits for it any more.
        """
        with job.opened_in_child(self.data, max_pixels=max_pixels, accepted=accepted, copies=2) as image:
            stripped, suffix = image.strip()
        return store.add_stripped(
            stripped,
            suffix,
            self.label,
            model=self.receipt.model if self.receipt else model,
            verdict=self.receipt.verdict if self.receipt else "",
            p_fake=self.receipt.p_fake if self.receipt else None,
            request_id=self.receipt.request_id if self.receipt else "",
            giver=self.giver,
        )


def no_consent() -> Refusal:
    """The answer to an image that its sender tags without agreeing that it is stored."""
    return Refusal(422, "images are stored only with consent: send consent=true", "no_consent")
