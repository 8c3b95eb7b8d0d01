"""The routes of the review of tagged images, for those who have an operator's key.

They decide by the functions of :mod:`detector_core.data.review`, as ``jobs.review`` does, so that reviewers on the page
and on the command line see each other's decisions and overwrite none.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Security
from fastapi.responses import FileResponse
from fastapi.security import APIKeyHeader

from detector_core.data import review
from detector_core.data.review import Tag
from detector_core.errors import BadData, DetectorError, OperationRefused
from serve_app.access import ApiKeys
from serve_app.errors import Refusal, error_responses, request_id
from serve_app.review_schemas import NewDecision, ReviewAnswer, ReviewTag, ReviewTags, State
from serve_app.settings import HttpSettings

PAGE = 200
"""Maximum number of tags in an answer."""
_HEADER = "X-Operator-Key"
T = TypeVar("T")


def router(settings: HttpSettings) -> APIRouter:
    """The routes. Raises BadConfig if the file with the keys cannot be used."""
    assert settings.operator_keys_file
    keys = ApiKeys(settings.operator_keys_file, "operator_keys_file")

    async def allowed(request: Request) -> None:
        if not keys.accepts(request.headers.get(_HEADER, "")):
            raise Refusal(401, f"the key of an operator is required: send it as {_HEADER}: KEY")

    scheme = Security(APIKeyHeader(name=_HEADER, auto_error=False, scheme_name="Operator"))
    known: dict[str, Any] = {
        "dependencies": [Depends(allowed), scheme],
        "responses": error_responses(401, 404, 422, 503),
    }
    made = APIRouter(prefix="/v1/review/tags")
    made.get("", summary="List tagged images for a review", **known)(list_tags)
    made.get("/{id}/image", summary="Return a tagged image", response_class=FileResponse, **known)(show_image)
    made.post("/{id}", summary="Decide about a tagged image", **known)(decide)
    return made


async def list_tags(
    request: Request,
    state: Annotated[State, Query(description="what was decided")] = "waiting",
    limit: Annotated[int, Query(ge=1, le=PAGE, description="maximum number of tags")] = 50,
) -> ReviewTags:
    """Returns tags with the most informative first: those that contradict the verdict, then the score, most."""
    tags = await _in_folder(request, review.read)
    chosen = [ReviewTag.of(tag) for tag in tags if tag.state == state][:limit]
    return ReviewTags(tags=chosen, counts=review.count_states(tags), request_id=request_id(request))


async def show_image(request: Request, id: str) -> FileResponse:
    """Returns the image as it was stored: without date, location and other metadata."""
    tag = await _in_folder(request, lambda folder: _tag(folder, id))
    path = Path(_folder(request), tag.record.image)
    if not path.is_file():
        raise Refusal(404, f"the image of {id} was deleted")
    return FileResponse(path)


async def decide(request: Request, id: str, decision: NewDecision) -> ReviewAnswer:
    """Records a decision; your latest one about a tag counts. A tag that was deleted meanwhile is 404."""

    def record(folder: str) -> Tag:
        full = _tag(folder, id).record.id
        review.decide(folder, [full], decision.action, reviewer=decision.reviewer, reason=decision.reason)
        return _tag(folder, full)

    tag = await _in_folder(request, record)
    return ReviewAnswer(tag=ReviewTag.of(tag), request_id=request_id(request))


def _tag(folder: str, id_: str) -> Tag:
    tag = review.read_one(folder, id_)
    if tag is None:
        raise Refusal(404, f"there is no tag {id_}, or it was deleted")
    return tag


def _folder(request: Request) -> str:
    folder: str = request.app.state.service.settings.feedback_folder
    return folder


async def _in_folder(request: Request, work: Callable[[str], T]) -> T:
    """Reads or writes the feedback folder in a thread; an error of the folder is the operator's, and says so."""
    try:
        return await asyncio.to_thread(work, _folder(request))
    except OperationRefused as error:
        raise Refusal(422, str(error), "bad_parameter") from None
    except BadData as error:
        raise Refusal(503, f"the feedback folder cannot be read: {error}") from None
    except (DetectorError, OSError) as error:
        raise Refusal(503, f"the feedback folder cannot be used: {error}") from None
