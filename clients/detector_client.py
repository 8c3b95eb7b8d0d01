"""A client of the deepfake face detector in one file: copy it into your project. It needs Python 3.11 and httpx.

    with Detector("http://127.0.0.1:8000", key="...") as detector:
        (result,) = detector.detect("portrait.jpg")
        print(result["verdict"], result["p_fake"])
        batch = detector.send_batch(["a.jpg", "b.mp4"])
        for result in detector.results(batch["id"]):
            print(result["index"], result["image"] or result["clip"] or result["error"])

On the command line, ``python detector_client.py URL FILE...`` prints one JSON object per file.

Requests that the service cannot take now (503, 429) are sent again when it says so, and those whose connection broke a
little later. That is safe: predictions change nothing, and a batch carries an Idempotency-Key.
"""

import json
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import httpx

AGAIN = (429, 503)
"""Statuses after which a request is sent again."""
CLIPS = (".mp4", ".mov", ".webm", ".mkv", ".avi")
PAGE = 1000

File = str | Path | bytes
"""A file's path, or its bytes."""


class DetectorError(Exception):
    """The service refused a request; ``code`` is for programs, and the operator finds ``request_id`` in the log."""

    def __init__(self, status: int, code: str, message: str, request_id: str = "") -> None:
        super().__init__(f"{message} ({status} {code}, request {request_id or 'unknown'})")
        self.status, self.code, self.request_id = status, code, request_id


class Detector:
    """A connection to a service.

    Args:
        url: where it is, such as ``https://detector.example.org``.
        key: an API key, if it requires one.
        timeout_s: time limit of one attempt, in seconds.
        retries: how often a request is sent again.
        transport: for tests.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout_s: float = 60,
        retries: int = 5,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(base_url=url, headers=headers, timeout=timeout_s, transport=transport)
        self._retries = retries

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()

    def detect(self, *images: File, faces: str = "auto", explain: bool = False) -> list[dict[str, Any]]:
        """The result of each image, in order (POST /v1/detect). Raises DetectorError, httpx.HTTPError."""
        params = {"faces": faces, "explain": str(explain).lower()}
        answer = self._ask("POST", "/v1/detect", params=params, files=_form(images))
        results: list[dict[str, Any]] = answer["results"]
        return results

    def detect_clip(self, clip: File, *, frames: int | None = None, faces: str = "auto") -> dict[str, Any]:
        """The answer about a clip (POST /v1/detect/video). Raises DetectorError, httpx.HTTPError."""
        params = {"faces": faces} | ({"frames": str(frames)} if frames else {})
        return self._ask("POST", "/v1/detect/video", params=params, files=_form([clip]))

    def send_batch(
        self, files: Iterable[File], *, webhook: str | None = None, idempotency_key: str | None = None
    ) -> dict[str, Any]:
        """Sends images and clips to be scored later; returns the batch. Raises DetectorError, httpx.HTTPError.

        Args:
            webhook: an address to call when it has ended; the answer has the key of its signature.
            idempotency_key: the same for a repeated call that shall make no second batch; None for a new batch.
        """
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        data = {"webhook": webhook} if webhook else {}
        return self._ask("POST", "/v1/batches", files=_form(list(files)), data=data, headers=headers)

    def batch(self, identifier: str) -> dict[str, Any]:
        """How far a batch is. Raises DetectorError, httpx.HTTPError."""
        return self._ask("GET", f"/v1/batches/{identifier}")

    def cancel(self, identifier: str) -> dict[str, Any]:
        """Cancels a batch. Raises DetectorError, httpx.HTTPError."""
        return self._ask("DELETE", f"/v1/batches/{identifier}")

    def results(self, identifier: str, *, poll_s: float = 2, timeout_s: float = 86_400) -> Iterator[dict[str, Any]]:
        """Waits until a batch has ended, and yields the result of each file.

        Raises:
            TimeoutError: it has not ended after ``timeout_s`` seconds.
            DetectorError, httpx.HTTPError: as every request.
        """
        deadline = time.monotonic() + timeout_s
        while (batch := self.batch(identifier))["deleted_after"] is None:
            if time.monotonic() + poll_s > deadline:
                raise TimeoutError(f"batch {identifier}: {batch['done']} of {batch['files']} files are done")
            time.sleep(poll_s)
        for start in range(0, batch["files"], PAGE):
            params = {"start": str(start), "count": str(PAGE)}
            yield from self._ask("GET", f"/v1/batches/{identifier}/results", params=params)["results"]

    def model(self) -> dict[str, Any]:
        """The model, its error rates, and the limits of the service. Raises DetectorError, httpx.HTTPError."""
        return self._ask("GET", "/v1/model")

    def _ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Sends a request until it is answered."""
        for attempt in range(self._retries + 1):
            is_last = attempt == self._retries
            try:
                response = self._client.request(method, path, **options)
            except httpx.TransportError:
                if is_last:
                    raise
                time.sleep(min(2**attempt, 30))
                continue
            if response.status_code in AGAIN and not is_last:
                time.sleep(_wait_s(response, attempt))
                continue
            return _body(response)
        raise AssertionError("unreachable")


def _form(files: Sequence[File]) -> list[tuple[str, tuple[str, bytes]]]:
    """Form fields named "file"; names of files are not sent."""
    contents = (file if isinstance(file, bytes) else Path(file).read_bytes() for file in files)
    return [("file", ("file", content)) for content in contents]


def _wait_s(response: httpx.Response, attempt: int) -> float:
    """The seconds that the service asks to wait, or a growing pause if it does not say."""
    try:
        return float(response.headers["Retry-After"])
    except (KeyError, ValueError):
        return min(2.0**attempt, 30)


def _body(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        raise DetectorError(response.status_code, "no_json", "the answer is not JSON: is this the service?") from None
    if response.is_success and isinstance(body, dict):
        return body
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        raise DetectorError(response.status_code, "unknown", "the answer has no known form: is this the service?")
    raise DetectorError(response.status_code, error["code"], error["message"], error["request_id"])


def main() -> None:
    """The command line."""
    if len(sys.argv) < 3:
        sys.exit(f"usage: python {Path(__file__).name} URL FILE...")
    url, *files = sys.argv[1:]
    failed = False
    with Detector(url) as detector:
        for file in files:
            try:
                is_clip = file.lower().endswith(CLIPS)
                answer = detector.detect_clip(file) if is_clip else detector.detect(file)[0]
            except (DetectorError, httpx.HTTPError, OSError) as error:
                failed, answer = True, {"error": str(error)}
            print(json.dumps({"path": file, **answer}))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
