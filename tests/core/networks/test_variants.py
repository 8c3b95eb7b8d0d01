import subprocess
import sys

import pytest

from detector_core.errors import BadConfig, UnknownVariant
from detector_core.networks.variants import VARIANTS, spec_for

TABLE_II = {
    "inception_resnet_v2": (0.001, 10),
    "inception_resnet_v2-cutout": (0.0001, 10),
    "vggface2": (0.0002, 10),
    "vggface2-cutout": (0.0001, 10),
    "resnet68": (0.0001, 100),
    "resnet68-cutout": (0.0001, 10),
}


def test_the_six_variants_are_those_of_table_ii() -> None:
    assert {name: (spec_for(name).optim.learning_rate, spec_for(name).optim.epochs) for name in VARIANTS} == TABLE_II


@pytest.mark.parametrize("name", ["inception_resnet_v2", "vggface2", "resnet68", "vggface2_resnet50", "timm:resnet18"])
def test_with_cut_out_only_what_table_ii_says_differs(name: str) -> None:
    plain, cutout = spec_for(name), spec_for(f"{name}-cutout")
    assert plain.augment.cutout == 0
    assert cutout.augment.cutout > 0
    assert cutout.model == plain.model
    assert cutout.preprocess == plain.preprocess
    assert cutout.optim.batch_size == plain.optim.batch_size


def test_the_papers_batch_and_first_weights() -> None:
    assert spec_for("resnet68").optim.batch_size == 1000
    assert {name: spec_for(name).model.init for name in VARIANTS} == {
        name: "none" if name.startswith("resnet68") else "hub" for name in VARIANTS
    }


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [
        ("resnet68-cutuot", "resnet68-cutout"),
        ("vggface", "vggface2"),
        ("inception_resnet", "inception_resnet_v2"),
        ("timm:resnet5O", "timm:resnet50"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(typed: str, nearest: str) -> None:
    with pytest.raises(UnknownVariant, match=f"did you mean {nearest}\\?"):
        spec_for(typed)


def test_a_name_like_no_other_lists_the_six() -> None:
    with pytest.raises(UnknownVariant) as error:
        spec_for("!!")
    assert "did you mean" not in str(error.value)
    assert all(name in str(error.value) for name in VARIANTS)


def test_timm_without_a_name_is_refused() -> None:
    with pytest.raises(UnknownVariant, match="timm:NAME"):
        spec_for("timm:")


def test_a_timm_network_brings_the_preprocessing_of_its_weights() -> None:
    preprocess = spec_for("timm:inception_v3-cutout").preprocess
    assert preprocess.image_size == 299
    vit = spec_for("timm:vit_tiny_patch16_224").preprocess
    assert (vit.image_size, vit.mean, vit.std, vit.interpolation) == (224, (0.5,) * 3, (0.5,) * 3, "bicubic")


def test_overrides_reach_the_spec_and_are_checked() -> None:
    spec = spec_for("resnet68", {"optim.epochs": 3, "model.layout": [3, 8, 8, 3]})
    assert (spec.optim.epochs, spec.model.layout) == (3, (3, 8, 8, 3))
    with pytest.raises(BadConfig, match=r"no field 'optim\.epoch'"):
        spec_for("resnet68", {"optim.epoch": 3})


def test_the_papers_variants_need_no_torch() -> None:
    code = (
        "import sys; from detector_core.networks.variants import VARIANTS, spec_for; "
        "[spec_for(v) for v in VARIANTS]; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
