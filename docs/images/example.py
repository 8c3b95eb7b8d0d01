"""Writes serve_app/static/example.jpg, the portrait that the web page offers as an example.

  python docs/images/example.py

It is painted by the program that makes the demo data: nobody's picture belongs in this repository. Three uneven
up-convolutions leave a fine grid in it, as they do in images of real generators, so the starter model, which was
trained on photographs and StyleGAN faces, calls it AI-generated. Most painted portraits it takes for photographs,
because it has never seen any; this one was chosen.
"""

from pathlib import Path

import numpy as np

from detector_core.data import demo
from detector_core.data.portraits import portrait

OUT = Path(__file__).parents[2] / "serve_app" / "static" / "example.jpg"
SEED, SIZE = 8, 256
KERNELS, STAGES, UNEVENNESS, DETAIL, GRAIN = 4, 3, 0.3, 0.7, 0.02
"""Seed of the kernels, and how strong the traces of the generator are, see :mod:`detector_core.data.demo`."""


def example() -> bytes:
    """The portrait as a JPEG."""
    scene = portrait(np.random.default_rng(SEED), 2 * SIZE)
    image, grain = demo.decoder(
        scene,
        np.random.default_rng(KERNELS),
        stages=STAGES,
        unevenness=(UNEVENNESS, UNEVENNESS),
        detail=(DETAIL, DETAIL),
    )
    return demo.encode(image + GRAIN * grain)


if __name__ == "__main__":
    OUT.write_bytes(example())
    print(f"{OUT}: {OUT.stat().st_size / 1024:.0f} KiB")
