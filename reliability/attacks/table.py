"""The attacks, in the order of docs/reliability.md."""

from typing import Final

from reliability.attacks import bodies
from reliability.attacks.attack import Attack, Outcome

ATTACKS: Final = (
    Attack(
        name="2 TIFFs whose 1,000 tiles share one stream",
        make=bodies.shared_tiles,
        max_cpu_s=2,
        before=Outcome(answers="2 x 503", cpu_s=74.5, asked=16, refused=2, slowest_s=30.1),
    ),
    Attack(
        name="2 files of a phone (MPO) with 4,000 scans",
        make=bodies.scans_behind_another_format,
        max_cpu_s=2,
        before=Outcome(answers="2 x 503", cpu_s=57.7, asked=16, refused=1, slowest_s=30.0),
    ),
    Attack(
        name="1 form of 10 images of 256 faces",
        make=bodies.crowd,
        content_type=bodies.FORM,
        max_cpu_s=5,
        needs_faces=True,
        before=Outcome(answers="1 x 200", cpu_s=25.0, asked=11, refused=0, slowest_s=24.6),
    ),
    Attack(
        name="2 clips of 10,000 large frames",
        make=bodies.long_clips,
        path="/v1/detect/video",
        content_type="video/mp4",
        max_cpu_s=3,
        before=Outcome(answers="2 x 503", cpu_s=25.9, asked=8, refused=1, slowest_s=30.0),
    ),
    Attack(
        name="2 clips of 640 large frames, just within the limit",
        make=bodies.clips_within_the_limit,
        path="/v1/detect/video",
        content_type="video/mp4",
        max_cpu_s=15,
        before=Outcome(answers="2 x 200", cpu_s=10.3, asked=8, refused=0, slowest_s=19.2),
    ),
)
