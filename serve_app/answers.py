"""Forms the answers about an image and about a clip, for HTTP and for ``jobs.predict``."""

from serve_app import clips
from serve_app.clips import ClipPrediction, DecodedClip
from serve_app.middleware import RequestTimings
from serve_app.pipeline import DecodedImage, ImagePrediction
from serve_app.schemas import (
    ImageTiming,
    ModelRef,
    ProvenanceClaim,
    Result,
    Size,
    Thresholds,
    Timing,
    VideoAnswer,
    model_warnings,
)
from serve_app.service import seconds_by_stage


def image_result(
    index: int, image: DecodedImage, prediction: ImagePrediction, identifier: str, receipt: str | None
) -> Result:
    """The answer about the image at position ``index`` of the request ``identifier``."""
    stages = seconds_by_stage(image, prediction)
    return Result(
        index=index,
        verdict=prediction.verdict,
        p_fake=prediction.p_fake,
        confidence=prediction.confidence,
        thresholds=Thresholds.of(prediction.model),
        faces=prediction.faces,
        faces_left_out=list(image.faces_left_out),
        size=Size(width=image.width, height=image.height),
        crop_box=prediction.crop.box if prediction.crop else None,
        warnings=[*model_warnings(prediction.model), *image.warnings],
        heatmap=prediction.heatmap,
        model=ModelRef.of(prediction.model),
        request_id=identifier,
        timing_ms=ImageTiming(**{stage: round(1000 * seconds, 2) for stage, seconds in stages.items()}),
        receipt=receipt,
        provenance=[ProvenanceClaim.of(claim) for claim in image.provenance],
    )


def clip_answer(clip: DecodedClip, prediction: ClipPrediction, identifier: str, timings: RequestTimings) -> VideoAnswer:
    """The answer about the clip of the request ``identifier``."""
    return VideoAnswer(
        duration_s=round(clip.duration_s, 3),
        frames=prediction.frames,
        verdict=prediction.verdict,
        p_fake=prediction.p_fake,
        proportion_fake=prediction.proportion_fake,
        scored_frames=prediction.scored_frames,
        thresholds=Thresholds.of(prediction.model),
        model=ModelRef.of(prediction.model),
        warnings=clips.warnings(clip, prediction.model),
        request_id=identifier,
        timing_ms=timing(timings),
        provenance=[ProvenanceClaim.of(claim) for claim in clip.provenance],
    )


def timing(timings: RequestTimings) -> Timing:
    """How long a request has taken so far."""
    return Timing(read=round(1000 * timings.seconds.get("read", 0), 2), total=round(1000 * timings.total, 2))
