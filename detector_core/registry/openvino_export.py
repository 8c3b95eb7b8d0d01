"""Export of a network to OpenVINO files that take uint8 images; its preprocessing becomes part of the graph.

The ``fp32`` file serves bf16 too. ``int8`` is the fp32 file after post-training quantization: NNCF measures the range
of every activation on training images of both classes. Only promotion imports this module.
"""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from detector_core.config import PreprocessSpec
from detector_core.data.loading import ImageDataset
from detector_core.errors import BadData
from detector_core.images.decode import Pixels
from detector_core.labels import LABELS
from detector_core.networks.openvino_graphs import import_openvino, trace
from detector_core.registry.engines import FILE_NAMES
from detector_core.registry.runtime_files import RUNTIME_FOLDER

LAYERS_WITH_WEIGHTS = ("Convolution", "GroupConvolution", "MatMul")
QUANTIZATION_IMAGES_PER_CLASS = 50
"""Training images of each class for the quantization; three times as many were no better (docs/decisions.md)."""


def export(network: torch.nn.Module, preprocess: PreprocessSpec, folder: Path) -> Path:
    """Writes ``openvino/fp32.xml`` and ``.bin`` and returns the path of the .xml file.

    Args:
        network: in eval mode, on the CPU.
        folder: the model folder.
    """
    ov = import_openvino()
    steps = ov.preprocess.PrePostProcessor(trace(network, preprocess.image_size))
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    steps.input().model().set_layout(ov.Layout("NCHW"))
    graph = steps.input().preprocess()
    if preprocess.channels == "BGR":
        graph.reverse_channels()
    graph.convert_element_type(ov.Type.f32)
    graph.mean([255 * value for value in preprocess.mean]).scale([255 * value for value in preprocess.std])
    return _save(steps.build(), folder, "fp32")


def quantize(fp32: Path, pixels_NSSC: Pixels) -> Path:
    """Writes ``int8.xml`` and ``.bin`` next to the fp32 file and returns the path of the .xml file.

    Args:
        pixels_NSSC: from :func:`quantization_images`.
    """
    ov = import_openvino()
    with _quiet_nncf() as nncf:
        from nncf.quantization import range_estimator

        network = ov.Core().read_model(str(fp32))
        model = nncf.quantize(
            network,
            nncf.Dataset([image[None] for image in pixels_NSSC]),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(pixels_NSSC),
            ignored_scope=nncf.IgnoredScope(names=_first_and_last_layer(network)),
            # NNCF's default, the minimum and maximum, gives five times the error (docs/decisions.md).
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                activations_range_estimator_params=range_estimator.RangeEstimatorParametersSet.HISTOGRAM
            ),
        )
    return _save(model, fp32.parent.parent, "int8")


def _first_and_last_layer(model: Any) -> list[str]:
    """The first and the last layer with weights; keeping them in float reduced the noise of the logit by a third."""
    layers = [node for node in model.get_ordered_ops() if node.get_type_name() in LAYERS_WITH_WEIGHTS]
    return sorted({layers[0].get_friendly_name(), layers[-1].get_friendly_name()})


def quantization_images(rows: pd.DataFrame, root: str, preprocess: PreprocessSpec) -> Pixels:
    """Squares of at most QUANTIZATION_IMAGES_PER_CLASS images of each class, evenly spaced over the rows.

    Args:
        rows: the training split.

    Returns:
        pixels_NSSC.

    Raises:
        BadData: a class has no images, or an image is missing or damaged.
    """
    selected = []
    for label in LABELS:
        of_label = rows[rows["label"] == label]
        if of_label.empty:
            raise BadData(f"the training split has no {label} image: int8 needs training images of both classes")
        spaced = (
            np.linspace(0, len(of_label) - 1, min(QUANTIZATION_IMAGES_PER_CLASS, len(of_label))).round().astype(int)
        )
        selected.append(of_label.iloc[spaced])
    images = ImageDataset(pd.concat(selected), root, preprocess)
    batch = images.collate([images[0, row] for row in range(len(images))])
    if batch.broken:
        raise BadData(batch.broken[0])
    return batch.pixels_BSSC.numpy()


def _save(model: Any, folder: Path, precision: str) -> Path:
    file = folder / RUNTIME_FOLDER / FILE_NAMES[precision]
    file.parent.mkdir(exist_ok=True)
    import_openvino().save_model(model, str(file), compress_to_fp16=False)
    return file


@contextlib.contextmanager
def _quiet_nncf() -> Iterator[Any]:
    """NNCF without its telemetry, its log, its progress bars (on stdout) and the warnings of its imports."""
    import_openvino()
    with warnings.catch_warnings(), Path(os.devnull).open("w") as devnull, contextlib.redirect_stdout(devnull):
        warnings.simplefilter("ignore")
        level = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            import nncf

            yield nncf
        finally:
            logging.disable(level)
