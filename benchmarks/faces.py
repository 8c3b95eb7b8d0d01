"""CPU time of the face search, in numpy and in facenet-pytorch, on one thread, and how far their boxes are apart.

  python -m benchmarks.faces --images FOLDER

Searches JPEG files of FOLDER as they are, and the first of them in a photo of 1024 x 900 pixels with six faces, in
turns. The last line on stdout is one JSON object: for each kind of image the median numpy_ms and torch_ms, and the
largest distance of two boxes or landmarks in pixels.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from facenet_pytorch import MTCNN
from facenet_pytorch.models.utils.detect_face import detect_face
from PIL import Image

from benchmarks.machine import describe
from detector_core.images import mtcnn
from detector_core.images.decode import Pixels
from detector_core.images.faces import MIN_FACE_PX


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="a folder of JPEG files with faces")
    parser.add_argument("--count", type=int, default=40, metavar="N", help="how many files [%(default)s]")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(describe(), flush=True)
    files = sorted(arguments.images.rglob("*.jpg"))[: arguments.count]
    portraits = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    group = Image.new("RGB", (1024, 900), (110, 110, 110))
    for number, portrait in enumerate(portraits[:6]):
        place = (40 + 320 * (number % 3), 100 + 300 * (number // 3))
        group.paste(Image.fromarray(portrait).resize((256, 256)), place)
    print(json.dumps({"portraits": measure(portraits), "group": measure([np.asarray(group)] * 5)}))


def measure(images: list[Pixels]) -> dict[str, float]:
    """Medians of the CPU time of the thread in milliseconds; the first image is searched twice."""
    original = MTCNN().eval()
    networks = original.pnet, original.rnet, original.onet
    numpy_ms, torch_ms, distance = [], [], 0.0
    for image in [images[0], *images]:
        started = time.thread_time()
        found = mtcnn.detect(image, MIN_FACE_PX, 100_000)
        numpy_ms.append(1000 * (time.thread_time() - started))
        started = time.thread_time()
        with torch.no_grad():
            settings = (original.thresholds, original.factor, original.device)
            (boxes,), (landmarks,) = detect_face(image, MIN_FACE_PX, *networks, *settings)
        torch_ms.append(1000 * (time.thread_time() - started))
        assert len(boxes) == len(found.boxes)
        if len(boxes):
            apart = np.abs(found.boxes - boxes.astype(float)).max(), np.abs(found.landmarks - landmarks).max()
            distance = max(distance, *map(float, apart))
    return {
        "numpy_ms": statistics.median(numpy_ms[1:]),
        "torch_ms": statistics.median(torch_ms[1:]),
        "distance_px": distance,
    }


if __name__ == "__main__":
    main()
