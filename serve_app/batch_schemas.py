"""The schemas of the answers about batches."""

from datetime import UTC, datetime
from typing import Self

from pydantic import BaseModel, Field

from serve_app.batch_store import Batch, Progress, Status
from serve_app.schemas import Result, VideoAnswer


class BatchAnswer(BaseModel):
    """A batch, and how far it is."""

    id: str
    status: Status
    files: int = Field(description="how many files it has")
    done: int = Field(description="how many of them have a result")
    failed: int = Field(description="how many of these are an error")
    created: datetime
    deleted_after: datetime | None = Field(description="when the results are deleted; null until the batch has ended")
    webhook_secret: str | None = Field(
        None, description="the key of the webhook's signature; only in the answer to POST, and only with a webhook"
    )
    request_id: str

    @classmethod
    def of(cls, batch: Batch, progress: Progress, keep_s: float, request_id: str, *, with_secret: bool = False) -> Self:
        """The answer about a batch."""
        return cls(
            id=batch.id,
            status=progress.status,
            files=batch.files,
            done=progress.done,
            failed=progress.failed,
            created=datetime.fromtimestamp(batch.created, UTC),
            deleted_after=None if progress.ended is None else datetime.fromtimestamp(progress.ended + keep_s, UTC),
            webhook_secret=batch.webhook_secret if with_secret and batch.webhook else None,
            request_id=request_id,
        )


class BatchError(BaseModel):
    """Why a file of a batch has no answer; ``code`` is that of a single request."""

    code: str
    message: str


class BatchResult(BaseModel):
    """The result of one file: exactly one of ``image``, ``clip`` and ``error``."""

    index: int = Field(ge=0, description="position of the file in the batch, from 0")
    image: Result | None = None
    clip: VideoAnswer | None = None
    error: BatchError | None = None


class BatchResults(BaseModel):
    """Results of a batch, in the order of its files; those that are not done yet are missing."""

    id: str
    status: Status
    results: list[BatchResult]
    request_id: str
