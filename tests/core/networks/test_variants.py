"""detector_core.networks.variants: the RunSpec of each variant. test_rules compares Table II with the README."""

import pytest

from detector_core.errors import BadConfig, UnknownVariant
from detector_core.networks.variants import VARIANTS, spec_for


@pytest.mark.parametrize("name", ["inception_resnet_v2", "vggface2", "resnet68", "vggface2_resnet50", "timm:resnet18"])
def test_a_variant_with_cutout_differs_only_in_augmentation_learning_rate_and_epochs(name: str) -> None:
    plain, cutout = spec_for(name), spec_for(f"{name}-cutout")
    assert plain.augment.cutout == 0
    assert cutout.augment.cutout > 0
    fields = ("variant", "augment.cutout", "optim.learning_rate", "optim.epochs")
    unchanged = {field: plain.flat()[field] for field in fields}
    assert cutout.replace(unchanged) == plain


def test_only_the_papers_own_network_has_its_batch_of_1000_and_starts_from_random_weights() -> None:
    for name in VARIANTS:
        spec = spec_for(name)
        own = name.startswith("resnet68")
        assert (spec.optim.batch_size == 1000) == own
        assert spec.model.init == ("none" if own else "hub")


@pytest.mark.parametrize(
    ("typed", "closest"),
    [
        ("resnet68-cutuot", "resnet68-cutout"),
        ("vggface", "vggface2"),
        ("inception_resnet", "inception_resnet_v2"),
        ("timm:resnet5O", "timm:resnet50"),
    ],
)
def test_the_error_for_an_unknown_variant_suggests_the_closest_name(typed: str, closest: str) -> None:
    with pytest.raises(UnknownVariant, match=f"did you mean {closest}\\?"):
        spec_for(typed)


def test_the_error_for_a_name_like_no_other_lists_the_papers_six() -> None:
    with pytest.raises(UnknownVariant) as error:
        spec_for("!!")
    assert "did you mean" not in str(error.value)
    assert all(name in str(error.value) for name in VARIANTS)


def test_the_timm_prefix_without_a_name_is_refused() -> None:
    with pytest.raises(UnknownVariant, match="timm:NAME"):
        spec_for("timm:")


def test_a_timm_variant_has_the_preprocessing_of_its_pretrained_weights() -> None:
    preprocess = spec_for("timm:inception_v3-cutout").preprocess
    assert preprocess.image_size == 299
    vit = spec_for("timm:vit_tiny_patch16_224").preprocess
    assert (vit.image_size, vit.mean, vit.std, vit.interpolation) == (224, (0.5,) * 3, (0.5,) * 3, "bicubic")


def test_overrides_are_applied_and_checked() -> None:
    spec = spec_for("resnet68", {"optim.epochs": 3, "model.layout": [3, 8, 8, 3]})
    assert (spec.optim.epochs, spec.model.layout) == (3, (3, 8, 8, 3))
    with pytest.raises(BadConfig, match=r"no field 'optim\.epoch'"):
        spec_for("resnet68", {"optim.epoch": 3})
