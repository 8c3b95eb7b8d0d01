"""The service in this process, without HTTP and without Ray: what a file gets here is what it gets from the service."""

import asyncio
from typing import Any, get_args

from detector_core.errors import BadImage
from detector_core.images import formats, structure, video
from detector_core.images.decode import Heat, Pixels
from detector_core.registry.predictor import ModelInfo, Prediction, Predictor
from serve_app import answers
from serve_app.errors import Refusal
from serve_app.middleware import RequestTimings
from serve_app.service import DetectionService
from serve_app.settings import Faces, Format, HttpSettings

PATIENCE_S = 3600
"""Nobody else waits for a clip, so only its CPU time is limited."""
OF_A_REQUEST = {"index", "request_id", "retained", "receipt", "tag"}
"""Fields of an answer over HTTP that mean nothing for a file."""


class LocalModel:
    """A model client that predicts in a thread of this process."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    async def predict(self, image_SSC: Pixels) -> Prediction:
        """Predicts one image of the model's size."""
        (prediction,) = await asyncio.to_thread(self._predictor.predict, [image_SSC])
        return prediction

    async def explain(self, image_SSC: Pixels, toward: str) -> Heat:
        """Returns heat_SS: the evidence in an image for a label. Raises BadConfig without feature maps."""
        return await asyncio.to_thread(self._predictor.explain, image_SSC, toward)

    async def model_info(self) -> ModelInfo:
        """Describes the model."""
        return self._predictor.info


class LocalService:
    """Answers about single files. Use it within one event loop.

    Args:
        predictor: the model.
        faces: whether to look for faces; ``auto`` unless the model was trained on generated demo data.
        signers_file: certificates of trusted signers (PEM).
    """

    def __init__(self, predictor: Predictor, faces: Faces = "auto", signers_file: str | None = None) -> None:
        settings = HttpSettings(formats=list(get_args(Format)), signers_file=signers_file, timeout_s=PATIENCE_S)
        self._service = DetectionService(LocalModel(predictor), lambda: predictor.info, settings)
        self._faces = faces

    async def answer(self, data: bytes, *, explain: bool = False) -> dict[str, Any]:
        """The answer of the service about an image or a clip, as JSON values, without what belongs to a request.

        Args:
            explain: whether to add the heat map of an image; a clip has none.

        Raises:
            BadImage: there are no bytes, or they are neither an image nor a clip, or are damaged or too large.
        """
        try:
            if not data or formats.identify(data[: formats.HEAD_BYTES]):
                return await self._image(data, explain)
            if video.container_of(data):
                return await self._clip(data)
            raise BadImage(f"{structure.not_an_image()}; nor a clip: {video.CONTAINERS}")
        except Refusal as refusal:
            raise BadImage(str(refusal.detail)) from None

    async def _image(self, data: bytes, explain: bool) -> dict[str, Any]:
        ((image, prediction),) = await self._service.detect([data], self._faces, explain, RequestTimings())
        return answers.image_result(0, image, prediction, "", None).model_dump(mode="json", exclude=OF_A_REQUEST)

    async def _clip(self, data: bytes) -> dict[str, Any]:
        timings, frames = RequestTimings(), self._service.settings.limits.frames
        clip, prediction = await self._service.detect_clip(data, frames, self._faces, timings)
        return answers.clip_answer(clip, prediction, "", timings).model_dump(mode="json", exclude=OF_A_REQUEST)
