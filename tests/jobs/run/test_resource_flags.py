"""What is said and decided about a run before Ray starts."""

import argparse
from pathlib import Path

import pytest

from detector_core.data import manifest
from detector_core.networks.variants import spec_for
from jobs.run import resource_flags


def arguments(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    resource_flags.add_flags(parser)
    return parser.parse_args(["--data", "D", "--storage", "S", *flags])


@pytest.mark.parametrize(
    ("variant", "flags", "cached"),
    [
        ("lite-frozen", (), True),
        ("lite-frozen", ("--cache", "none"), False),
        ("lite-ensemble", (), False),
        ("resnet68", (), False),
        ("resnet68", ("--cache", "auto"), True),
    ],
)
def test_frozen_features_are_kept_unless_it_is_turned_off(variant: str, flags: tuple[str, ...], cached: bool) -> None:
    folder = resource_flags.cache_folder(arguments(*flags).cache, spec_for(variant))
    assert folder == (str(resource_flags.CACHE) if cached else "")


def test_training_images_that_must_be_enlarged_are_counted(
    tiny_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The images of the tiny data set have 32 px."""
    data = manifest.load(str(tiny_dataset))
    for size, said in ((32, False), (40, True)):
        spec = spec_for("resnet68", {"preprocess.image_size": size, "optim.batch_size": 4})
        resource_flags.check(arguments(), [spec], data)
        message = f"{len(data.split('train'))} of {len(data.split('train'))} training images are smaller than the 40 px"
        assert (message in capsys.readouterr().err) == said
