"""Receipts: each answer about an image carries a signed one, so that feedback cannot claim another verdict than was
given.

The key is a file in the feedback folder, which all replicas share: any of them can check what another has answered, and
nothing is stored per answer.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from itsdangerous import BadData, URLSafeSerializer

from detector_core.errors import BadConfig
from serve_app.errors import Refusal

KEY_FILE: Final = "receipt-key"
_KEY_BYTES: Final = 32
_WRITTEN_S: Final = 2.0
"""How long to wait for another replica that has created the key file and is about to write it."""


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What the service answered about an image.

    Attributes:
        sha256: of the image file as it was sent.
        verdict: see :data:`serve_app.schemas.Verdict`.
        p_fake: the probability of fake; None if the verdict is no_face.
        request_id: of that answer.
        model: name, version and sha256 of the model that gave it.
    """

    sha256: str
    verdict: str
    request_id: str
    model: dict[str, str]
    p_fake: float | None


class Receipts:
    """Signs receipts and checks them.

    Args:
        folder: the feedback folder; the key is created in it if there is none.

    Raises:
        BadConfig: the key cannot be read or created.
    """

    def __init__(self, folder: Path) -> None:
        options = {"digest_method": hashlib.sha256, "key_derivation": "hmac"}
        self._key = _key(folder / KEY_FILE)
        self._serializer = URLSafeSerializer(self._key, salt="verdict", signer_kwargs=options)

    def sign(self, receipt: Receipt) -> str:
        """The receipt as text that only a service with this key can make."""
        signed = self._serializer.dumps(asdict(receipt))
        return signed if isinstance(signed, str) else signed.decode()

    def read(self, text: str) -> Receipt:
        """The inverse of :meth:`sign`. Raises Refusal (422) for anything else."""
        try:
            return Receipt(**self._serializer.loads(text))
        except (BadData, TypeError):  # TypeError: signed by a version with other fields
            message = "the receipt is not one of this service: send it as the answer had it, or analyze the image again"
            raise Refusal(422, message, "bad_receipt") from None

    def pseudonym(self, giver: str) -> str:
        """A name for who sends an image: the same for the same giver, and useless without the key of this service."""
        return hmac.new(self._key, f"giver {giver}".encode(), hashlib.sha256).hexdigest()[:16]


def _key(path: Path) -> bytes:
    """The key in a file. Of several replicas that start at the same time, one creates it."""
    try:
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(_KEY_BYTES))
        deadline = time.monotonic() + _WRITTEN_S
        while len(key := path.read_bytes()) != _KEY_BYTES:
            if time.monotonic() > deadline:
                raise BadConfig(f"{path} is not a key of {_KEY_BYTES} bytes: delete it, and a new one is created")
            time.sleep(0.01)
    except OSError as error:
        raise BadConfig(f"{path}, the key of the feedback's receipts, cannot be used ({error.strerror})") from None
    return key
