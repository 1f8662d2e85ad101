import pytest
import torch

from deltalm_ds.model import DeltaLMConfig
from deltalm_ds.training.flops import Peak, peak_of, training_flops


@pytest.mark.parametrize(("preset", "gigaflops"), [("base", 500), ("large", 1456)])
def test_a_pretraining_sample_costs_what_the_formula_says(preset, gigaflops):
    """512 source and 114 target tokens; rounded to whole GFLOP."""
    flops = training_flops(DeltaLMConfig.preset(preset), torch.tensor([512]), torch.tensor([114]), 114)
    assert flops / 1e9 == pytest.approx(gigaflops, rel=0.01)


def test_attention_is_counted_by_sequence():
    config = DeltaLMConfig.preset("base")
    together = training_flops(config, torch.tensor([512]), torch.tensor([114]), 114)
    halves = training_flops(config, torch.tensor([256, 256]), torch.tensor([57, 57]), 114)
    saved = 12 * 4 * (512**2 / 2) * 768 + 6 * (2 * (114**2 / 2) + 4 * (512 * 114 / 2)) * 768
    assert together - halves == pytest.approx(3 * saved)


def test_the_peak_of_an_unknown_device_is_measured_and_named():
    peak = peak_of(torch.device("cpu"), torch.float32)
    assert isinstance(peak, Peak)
    assert peak.tflops > 0
    assert "measured" in peak.name
