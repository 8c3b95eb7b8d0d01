"""A short clip -> the verdict about each of some frames, and one about the clip."""

import statistics
import time
from typing import Any

from detector_core.errors import BadVideo, TooLongVideo
from detector_core.evaluation import calibration
from detector_core.images import sandbox, video
from detector_core.labels import FAKE
from detector_core.registry.predictor import ModelInfo
from serve_app.errors import Refusal
from serve_app.middleware import Notes
from serve_app.pipeline import BYTES_A_PIXEL, NO_FACE, Judge, Seen, Workers, ask, look_at
from serve_app.schemas import FrameAnswer, ModelRef, Thresholds
from serve_app.settings import Limits


async def judge_clip(
    data: bytes,
    judge: Judge,
    model: ModelInfo,
    limits: Limits,
    count: int,
    search: bool,
    workers: Workers,
    taken: Notes,
    timeout_s: float,
) -> dict[str, Any]:
    """The fields of a VideoAnswer that the clip gives.

    Raises:
        Refusal: 400 not a clip, 413 too long.
        Unavailable: the model cannot answer now.
    """
    give_up = time.monotonic() + timeout_s
    try:
        duration_s, seen = await workers.run(_look, data, model, limits, count, search, workers, give_up)
    except TooLongVideo as error:
        raise Refusal(413, str(error)) from None
    except BadVideo as error:
        raise Refusal(400, str(error), "not_a_video") from None
    # One frame after the other: a clip must not take all the places at the model at once.
    judged = [await ask(judge, one.squares, model, explain=False) for _, one in seen]
    frames = [
        FrameAnswer(time_s=time_s, verdict=one.verdict, p_fake=one.p_fake, faces=one.faces)
        for (time_s, _), one in zip(seen, judged, strict=True)
    ]
    for one in judged:
        taken.add("detect", one.detect_s)
        taken.judged(one.verdict, one.p_fake)
    for _, one in seen:
        taken.add("decode", one.decode_s)
        taken.add("faces", one.faces_s)
    answering = next((one.model for one in judged), model)
    scores = [frame.p_fake for frame in frames if frame.p_fake is not None]
    p_fake = statistics.median(scores) if scores else None
    return {
        "duration_s": round(duration_s, 3),
        "frames": frames,
        "verdict": NO_FACE if p_fake is None else calibration.verdict(p_fake, answering.calibration),
        "p_fake": p_fake,
        "share_fake": sum(frame.verdict == FAKE for frame in frames) / len(scores) if scores else None,
        "judged_frames": len(scores),
        "thresholds": Thresholds.of(answering),
        "model": ModelRef.to(answering),
        "warnings": list(dict.fromkeys(warning for _, one in seen for warning in one.warnings)),
    }


def _look(
    data: bytes, model: ModelInfo, limits: Limits, count: int, search: bool, workers: Workers, give_up: float
) -> tuple[float, list[tuple[float, Seen]]]:
    """One frame is open at a time, beside what the decoder's own process holds; only its squares are kept."""
    with (
        workers.memory(sandbox.memory_for(data) + video.MAX_PIXELS * BYTES_A_PIXEL),
        sandbox.sampled(data, count, max_s=limits.max_video_s, deadline=give_up) as clip,
    ):
        seen = []
        before = time.perf_counter()
        for frame in clip.frames:
            decode_s = time.perf_counter() - before
            seen.append((frame.time_s, look_at(frame.image_HWC, model, limits, search, decode_s=decode_s)))
            before = time.perf_counter()
        return clip.duration_s, seen
