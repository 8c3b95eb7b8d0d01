"""What the service does, independent of HTTP: predict images and clips, store feedback, report readiness.

One object per replica holds the model client, the decode pool and the settings. It does not know Ray: tests pass a
client that calls the predictor directly.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from detector_core.data import feedback
from detector_core.errors import (
    BadImage,
    FormatNotAccepted,
    InsufficientResources,
    TooCostly,
    TooManyPixels,
    UnsupportedFormat,
)
from detector_core.images import claims, decoder, provenance
from detector_core.images import faces as face_search
from detector_core.images.budget import CpuBudget
from detector_core.registry.predictor import ModelInfo, blank_image
from serve_app import clips
from serve_app.canary import CanaryRouter
from serve_app.clips import ClipPrediction, DecodedClip
from serve_app.decode_pool import DecodePool, gather
from serve_app.errors import Refusal, Unavailable
from serve_app.feedback_form import TaggedImage, no_consent
from serve_app.health import HealthTracked, Readiness, check_not_stuck
from serve_app.middleware import RequestTimings
from serve_app.model_schemas import ModelAnswer, searches_faces
from serve_app.pipeline import DecodedImage, ImagePrediction, ModelClient, decode_image, predict_image
from serve_app.receipts import Receipt, Receipts
from serve_app.schemas import ModelRef
from serve_app.settings import Faces, HttpSettings
from serve_app.uploads import Form

STORE_FULL_RETRY_S = 3600


class DetectionService:
    """The service of one replica.

    Args:
        client: predicts single crops.
        model: returns a description of the live model; its preprocessing is applied here, so only small crops are sent
            to the client.
        settings: how the operator runs the service.
        canary: lets a candidate answer about some images; None if there can be none.

    Raises:
        BadConfig: the feedback folder cannot be written to, or ``signers_file`` cannot be read.
    """

    def __init__(
        self,
        client: ModelClient,
        model: Callable[[], ModelInfo],
        settings: HttpSettings,
        canary: CanaryRouter | None = None,
    ) -> None:
        self.settings, self._model, self._canary = settings, model, canary
        self._client = HealthTracked(client)
        self._signers = claims.read_signers(settings.signers_file) if settings.signers_file else ""
        self._image_pool, self._clip_pool = DecodePool(), DecodePool()
        self._readiness = Readiness(self._client, self._warm_up)
        self._store: feedback.Store | None = None
        self._receipts: Receipts | None = None
        if settings.feedback_folder:
            self._store = feedback.Store(settings.feedback_folder, settings.feedback_bytes)
            self._store.probe()
            self._receipts = Receipts(Path(settings.feedback_folder))

    async def detect(
        self, files: list[bytes], faces: Faces, explain: bool, timings: RequestTimings
    ) -> list[tuple[DecodedImage, ImagePrediction]]:
        """Predicts all images of a request concurrently; results are in their order. Raises Refusal, Unavailable."""
        model, limits = self._model(), self.settings.limits
        budget, accepted, signers = CpuBudget(limits.cpu_s), self.settings.formats, self._signers
        search_faces = self._searches(faces, model)

        async def decode(data: bytes, index: int) -> DecodedImage:
            try:
                return await self._image_pool.run(
                    budget, decode_image, data, model, limits, accepted, search_faces, signers, len(files)
                )
            except BadImage as error:
                raise as_refusal(error, f"image {index + 1} of {len(files)}: " if len(files) > 1 else "") from None

        try:
            images = await gather(decode(data, index) for index, data in enumerate(files))
        finally:
            timings.cpu_s += budget.used
        canary = self._canary
        if canary and canary.is_running:
            left_s = self.settings.timeout_s - timings.total
            predictions = await gather(
                canary.predict(data, self._client, image, model, left_s=left_s, explain=explain)
                for data, image in zip(files, images, strict=True)
            )
        else:
            predictions = await gather(predict_image(self._client, image, model, explain=explain) for image in images)
        for image, prediction in zip(images, predictions, strict=True):
            record(timings, image, prediction)
        return list(zip(images, predictions, strict=True))

    async def detect_clip(
        self, data: bytes, frames: int, faces: Faces, timings: RequestTimings
    ) -> tuple[DecodedClip, ClipPrediction]:
        """Predicts a clip at ``frames`` evenly spaced moments. Raises Refusal, Unavailable."""
        model, deadline = self._model(), time.monotonic() + self.settings.timeout_s
        search_faces = self._searches(faces, model)
        limits, budget = self.settings.limits, CpuBudget(self.settings.limits.video_cpu_s)
        try:
            clip = await self._clip_pool.run(
                budget, clips.decode_clip, data, model, limits, frames, search_faces, deadline, self._signers
            )
        finally:
            timings.cpu_s += budget.used
        # One frame after the other, so that a clip does not fill the queue of the model.
        predictions = [await predict_image(self._client, frame, model) for frame in clip.frames]
        for frame, prediction in zip(clip.frames, predictions, strict=True):
            record(timings, frame, prediction)
        return clip, clips.combine(clip, predictions, model)

    async def sign(
        self, files: list[bytes], predictions: Sequence[ImagePrediction], request_id: str
    ) -> list[str | None]:
        """A receipt of the verdict on each image, which feedback about it must carry; None if feedback is off."""
        receipts = self._receipts
        if receipts is None:
            return [None] * len(files)

        def sign(data: bytes, prediction: ImagePrediction) -> str:
            return receipts.sign(_receipt(data, prediction, request_id))

        return await asyncio.to_thread(lambda: [sign(*pair) for pair in zip(files, predictions, strict=True)])

    def check_tag(self, tag: str | None, consent: bool) -> None:
        """Checks the parameters of a tagged request before its body is read. Raises Refusal (422)."""
        if tag is None:
            if consent:
                raise Refusal(422, "consent is for an image with a tag: send tag=real or tag=fake too", "bad_parameter")
        elif self._store is None:
            message = "this service stores no images, so it takes no tag: leave it out, or set http.feedback_folder"
            raise Refusal(422, message, "bad_parameter")
        elif not consent:
            raise no_consent()

    async def store_tagged(
        self,
        files: list[bytes],
        predictions: Sequence[ImagePrediction],
        request_id: str,
        tag: str,
        giver: str,
        timings: RequestTimings,
    ) -> list[feedback.Donation]:
        """Stores the images of a tagged request, as feedback about its own answer. Raises Refusal, Unavailable."""
        _, receipts = self.check_feedback()
        pseudonym = receipts.pseudonym(giver)

        def tagged(data: bytes, prediction: ImagePrediction) -> TaggedImage:
            return TaggedImage(data=data, label=tag, receipt=_receipt(data, prediction, request_id), giver=pseudonym)

        return await self._save([tagged(*pair) for pair in zip(files, predictions, strict=True)], timings)

    def check_feedback(self) -> tuple[feedback.Store, Receipts]:
        """The store of feedback and the key of its receipts. Raises Refusal (404) if this service stores none."""
        if self._store is None or self._receipts is None:
            raise Refusal(404, "this service does not accept feedback")
        return self._store, self._receipts

    async def store_feedback(self, form: Form, giver: str, timings: RequestTimings) -> feedback.Donation:
        """Stores the image of a feedback form. Raises Refusal, Unavailable."""
        _, receipts = self.check_feedback()
        tagged = await asyncio.to_thread(TaggedImage.parse, form, receipts, giver)
        return (await self._save([tagged], timings))[0]

    async def _save(self, images: list[TaggedImage], timings: RequestTimings) -> list[feedback.Donation]:
        """Stores images one after another, within one budget of CPU time."""
        store, _ = self.check_feedback()
        model = ModelRef.of(await self._client.model_info()).model_dump()
        limits = self.settings.limits
        budget, accepted = CpuBudget(limits.cpu_s), self.settings.formats
        try:
            return [
                await self._image_pool.run(budget, image.save, store, model, limits.max_pixels, accepted)
                for image in images
            ]
        except BadImage as error:
            raise as_refusal(error) from None
        except InsufficientResources as error:
            message = f"feedback cannot be stored now: {error}"
            raise Unavailable(message, retry_after_s=STORE_FULL_RETRY_S) from None
        finally:
            timings.cpu_s += budget.used

    async def describe_model(self) -> ModelAnswer:
        """Describes the model that answers and what this service offers. Raises Unavailable."""
        status = self._canary.status if self._canary else None
        return ModelAnswer.describe(await self._client.model_info(), self.settings, status)

    async def check_ready(self) -> None:
        """Raises Unavailable unless the model answers and decoding goes on."""
        self.check_decoding()
        await self._readiness.check()

    def check_decoding(self) -> None:
        """Raises Unavailable if a thread that decodes has been busy for longer than any request may take."""
        check_not_stuck((self._image_pool, self._clip_pool), self.settings.timeout_s)

    def deadline(self) -> float:
        """The time by which a request that starts now must be answered, on the event loop's clock."""
        return asyncio.get_running_loop().time() + self.settings.timeout_s

    def _searches(self, faces: Faces, model: ModelInfo) -> bool:
        return searches_faces(self.settings.faces if faces == "auto" else faces, model)

    async def _warm_up(self) -> None:
        """Makes one prediction, and loads the face detector if requests need it."""
        model = self._model()
        for children in (decoder.CHILDREN, provenance.CHILDREN):
            await asyncio.to_thread(children.warm_up)
        if self._searches("auto", model):
            await asyncio.to_thread(face_search.warm_up)
        await self._client.predict(blank_image(model))


def _receipt(data: bytes, prediction: ImagePrediction, request_id: str) -> Receipt:
    return Receipt(
        sha256=hashlib.sha256(data).hexdigest(),
        verdict=prediction.verdict,
        request_id=request_id,
        model=ModelRef.of(prediction.model).model_dump(),
        p_fake=prediction.p_fake,
    )


def record(timings: RequestTimings, image: DecodedImage, prediction: ImagePrediction) -> None:
    """Adds the timings and the verdict of one image to those of its request."""
    for stage, seconds in seconds_by_stage(image, prediction).items():
        timings.add(stage, seconds)
    timings.count(prediction.verdict, prediction.p_fake)


def seconds_by_stage(image: DecodedImage, prediction: ImagePrediction) -> dict[str, float]:
    """The duration of each stage of one image, in seconds."""
    return {
        "decode": image.decode_s,
        "faces": image.faces_s,
        "detect": prediction.detect_s,
        "explain": prediction.explain_s,
    }


def as_refusal(error: BadImage, prefix: str = "") -> Refusal:
    """The answer to an image that cannot be read: 413 if it is too large, 415 for an unknown format, else 400."""
    statuses = ((TooManyPixels, 413), (TooCostly, 413), (UnsupportedFormat, 415))
    status = next((status for kind, status in statuses if isinstance(error, kind)), 400)
    setting = "; the operator accepts formats with http.formats" if isinstance(error, FormatNotAccepted) else ""
    return Refusal(status, f"{prefix}{error}{setting}", budget="cpu" if isinstance(error, TooCostly) else "")
