"""Short clips: samples frames, puts each through the same pipeline as an image, and forms one verdict."""

import statistics
import time
from dataclasses import dataclass

from detector_core.errors import BadVideo, VideoTooLarge
from detector_core.evaluation import calibration
from detector_core.images import sandbox, video
from detector_core.labels import FAKE
from detector_core.registry.predictor import ModelInfo
from serve_app.decode_pool import BYTES_PER_PIXEL, DecodePool
from serve_app.errors import Refusal
from serve_app.pipeline import NO_FACE, DecodedImage, ImagePrediction, find_crops
from serve_app.schemas import FrameAnswer, Verdict, as_verdict
from serve_app.settings import Limits


@dataclass(frozen=True, kw_only=True)
class DecodedClip:
    """The sampled frames of a clip, in order, and the time at which each is shown, in seconds."""

    duration_s: float
    times_s: tuple[float, ...]
    frames: tuple[DecodedImage, ...]


@dataclass(frozen=True, kw_only=True)
class ClipPrediction:
    """The verdict about a clip.

    Attributes:
        p_fake: the median over the scored frames, which are those with a face; None if there are none.
        proportion_fake: proportion of the scored frames whose verdict is fake; None likewise.
    """

    frames: list[FrameAnswer]
    verdict: Verdict
    p_fake: float | None
    proportion_fake: float | None
    scored_frames: int
    model: ModelInfo


def decode_clip(
    data: bytes, model: ModelInfo, limits: Limits, count: int, search_faces: bool, pool: DecodePool, deadline: float
) -> DecodedClip:
    """Samples evenly spaced frames of a clip and finds the crops in each; only one decoded frame is held at a time.

    Args:
        count: how many frames to sample.
        search_faces: whether faces are searched.
        deadline: when to give up decoding, on the clock of :func:`time.monotonic`.

    Raises:
        Refusal: 400 for a file that is not a clip, 413 for a clip that is too long.
    """
    try:
        with (
            pool.reserve(sandbox.memory_limit(data) + video.MAX_PIXELS * BYTES_PER_PIXEL),
            sandbox.sample_frames(data, count, max_s=limits.max_video_s, deadline=deadline) as clip,
        ):
            times_s, frames = [], []
            started = time.perf_counter()
            for frame in clip.frames:
                decode_s = time.perf_counter() - started
                times_s.append(frame.time_s)
                frames.append(find_crops(frame.image_HWC, model, limits, search_faces, decode_s=decode_s))
                started = time.perf_counter()
            return DecodedClip(duration_s=clip.duration_s, times_s=tuple(times_s), frames=tuple(frames))
    except VideoTooLarge as error:
        raise Refusal(413, str(error)) from None
    except BadVideo as error:
        raise Refusal(400, str(error), "not_a_video") from None


def combine(clip: DecodedClip, predictions: list[ImagePrediction], model: ModelInfo) -> ClipPrediction:
    """Combines the predictions for the frames of a clip into one verdict.

    Args:
        model: the model to name if the clip has no frame.
    """
    frames = [
        FrameAnswer(time_s=time_s, verdict=frame.verdict, p_fake=frame.p_fake, faces=frame.faces)
        for time_s, frame in zip(clip.times_s, predictions, strict=True)
    ]
    answering = next((frame.model for frame in predictions), model)
    scores = [frame.p_fake for frame in frames if frame.p_fake is not None]
    p_fake = statistics.median(scores) if scores else None
    fakes = sum(frame.verdict == FAKE for frame in frames)
    return ClipPrediction(
        frames=frames,
        verdict=NO_FACE if p_fake is None else as_verdict(calibration.verdict(p_fake, answering.calibration)),
        p_fake=p_fake,
        proportion_fake=fakes / len(scores) if scores else None,
        scored_frames=len(scores),
        model=answering,
    )
