"""Short clips: samples moments, puts the frame that is shown at each through the same pipeline as an image, and forms
one verdict."""

import statistics
import time
from dataclasses import dataclass

from detector_core.errors import BadVideo, TooCostly, VideoTooCostly, VideoTooLarge
from detector_core.evaluation import calibration
from detector_core.evaluation.calibration import NO_FACE, UNCERTAIN
from detector_core.images import provenance, sandbox, video_decoder
from detector_core.images.claims import Claim
from detector_core.images.decoder import BYTES_PER_PIXEL
from detector_core.labels import FAKE, REAL
from detector_core.registry.predictor import ModelInfo
from serve_app.decode_pool import Job
from serve_app.errors import Refusal
from serve_app.pipeline import DecodedImage, ImagePrediction, find_crops
from serve_app.schemas import FrameAnswer, ImageWarning, Verdict, as_verdict, model_warnings
from serve_app.settings import Limits


@dataclass(frozen=True, kw_only=True)
class DecodedClip:
    """The frames of a clip that are shown at the sampled moments, in order, and the moments of each, in seconds.

    ``provenance`` is what the file says about where it comes from.
    """

    duration_s: float
    moments_s: tuple[tuple[float, ...], ...]
    frames: tuple[DecodedImage, ...]
    provenance: tuple[Claim, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ClipPrediction:
    """The verdict about a clip.

    Attributes:
        frames: one entry per sampled moment, with the same frame again if it stays: all figures are weighted by time.
        p_fake: the median over the scored moments, which are those with a face; None if there are none.
        proportion_fake: proportion of the scored moments whose verdict is fake; None likewise.
        scored_frames: the number of scored moments.
    """

    frames: list[FrameAnswer]
    verdict: Verdict
    p_fake: float | None
    proportion_fake: float | None
    scored_frames: int
    model: ModelInfo


def decode_clip(
    job: Job,
    data: bytes,
    model: ModelInfo,
    limits: Limits,
    count: int,
    search_faces: bool,
    deadline: float,
    signers: str = "",
) -> DecodedClip:
    """Samples evenly spaced moments of a clip and finds the crops in the frame that is shown at each.

    Only one decoded frame is held at a time.

    Args:
        count: how many moments to sample.
        search_faces: whether faces are searched.
        deadline: when to give up decoding, on the clock of :func:`time.monotonic`.
        signers: see :func:`detector_core.images.provenance.read`.

    Raises:
        Refusal: 400 for a file that is not a clip, 413 for a clip that is too long or takes too much CPU time.
        Cancelled: nobody waits for it any more.
    """
    try:
        with (
            job.reserve(sandbox.memory_limit(data) + video_decoder.MAX_PIXELS * BYTES_PER_PIXEL),
            sandbox.sample_frames(
                data, count, max_s=limits.max_video_s, deadline=deadline, budget=job.budget, cancellation=job
            ) as clip,
        ):
            moments_s, frames = [], []
            started = time.perf_counter()
            for frame in clip.frames:
                decode_s = time.perf_counter() - started
                moments_s.append(frame.moments_s)
                with job.counted():
                    crops = find_crops(frame.image_HWC, model, limits, search_faces, frame.warnings, decode_s, count)
                frames.append(crops)
                started = time.perf_counter()
            duration_s = clip.duration_s
        claims = provenance.read(data, signers=signers, budget=job.budget, cancellation=job)
        return DecodedClip(duration_s=duration_s, moments_s=tuple(moments_s), frames=tuple(frames), provenance=claims)
    except TooCostly as error:
        raise Refusal(413, f"the clip is too costly: {error}", budget="cpu") from None
    except VideoTooLarge as error:
        raise Refusal(413, str(error), budget="cpu" if isinstance(error, VideoTooCostly) else "") from None
    except BadVideo as error:
        raise Refusal(400, str(error), "not_a_video") from None


def warnings(clip: DecodedClip, model: ModelInfo) -> list[ImageWarning]:
    """The warnings about a clip: those of its model and of all frames, each once."""
    found = [*model_warnings(model), *(warning for frame in clip.frames for warning in frame.warnings)]
    return list(dict.fromkeys(found))


def combine(clip: DecodedClip, predictions: list[ImagePrediction], model: ModelInfo) -> ClipPrediction:
    """Combines the predictions for the frames of a clip into one verdict.

    As an image, a clip is not called real while faces in it were left out.

    Args:
        model: the model to name if the clip has no frame.
    """
    moments = [
        FrameAnswer(
            time_s=time_s,
            verdict=prediction.verdict,
            p_fake=prediction.p_fake,
            faces=prediction.faces,
            faces_left_out=list(frame.faces_left_out),
        )
        for moments_s, frame, prediction in zip(clip.moments_s, clip.frames, predictions, strict=True)
        for time_s in moments_s
    ]
    answering = next((prediction.model for prediction in predictions), model)
    scores = [moment.p_fake for moment in moments if moment.p_fake is not None]
    p_fake = statistics.median(scores) if scores else None
    verdict: Verdict = NO_FACE if p_fake is None else as_verdict(calibration.verdict(p_fake, answering.calibration))
    if verdict == REAL and any(frame.has_unscored_faces for frame in clip.frames):
        verdict = UNCERTAIN
    return ClipPrediction(
        frames=moments,
        verdict=verdict,
        p_fake=p_fake,
        proportion_fake=sum(moment.verdict == FAKE for moment in moments) / len(scores) if scores else None,
        scored_frames=len(scores),
        model=answering,
    )
