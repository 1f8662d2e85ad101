import numpy as np
import pytest
import torch

from deltalm_ds.model import DeltaLMConfig
from deltalm_ds.model.masked_encoder import encoder_config
from deltalm_ds.training import flops
from deltalm_ds.training.flops import Peak, peak_of, training_flops


@pytest.mark.parametrize(("preset", "gigaflops"), [("base", 500), ("large", 1456)])
def test_a_pretraining_sample_costs_what_the_formula_says(preset, gigaflops):
    """512 source and 114 target tokens; rounded to whole GFLOP."""
    count = training_flops(DeltaLMConfig.preset(preset), np.array([512]), np.array([114]), 114)
    assert count / 1e9 == pytest.approx(gigaflops, rel=0.01)


def test_an_encoder_by_itself_has_a_head():
    config = encoder_config("base", 250_001)
    count = training_flops(config, np.array([512]), np.array([77]), 77)
    layers = 12 * (2 * 512 * (4 * 768**2 + 2 * 768 * 3072) + 4 * 512**2 * 768)
    assert count == pytest.approx(3 * (layers + 2 * 77 * (768**2 + 768 * 250_002)))


def test_attention_is_counted_by_sequence():
    config = DeltaLMConfig.preset("base")
    together = training_flops(config, np.array([512]), np.array([114]), 114)
    halves = training_flops(config, np.array([256, 256]), np.array([57, 57]), 114)
    saved = 12 * 4 * (512**2 / 2) * 768 + 6 * (2 * (114**2 / 2) + 4 * (512 * 114 / 2)) * 768
    assert together - halves == pytest.approx(3 * saved)


def test_a_standard_decoder_has_more_attentions_and_fewer_feed_forwards():
    interleaved, standard = (
        training_flops(DeltaLMConfig.preset("base", decoder=decoder), np.array([512]), np.array([114]), 114)
        for decoder in ("interleaved", "standard")
    )
    # Nine layers for six blocks: the attentions of three more, and nine feed-forwards instead of twelve.
    attentions = 2 * (6 * 114 + 2 * 512) * 768**2 + (2 * 114**2 + 4 * 512 * 114) * 768
    feed_forward = 2 * 114 * 2 * 768 * 3072
    assert standard - interleaved == pytest.approx(3 * (3 * attentions - 3 * feed_forward))


def test_the_peak_of_an_unknown_device_is_measured_and_named():
    peak = peak_of(torch.device("cpu"), torch.float32)
    assert isinstance(peak, Peak)
    assert peak.tflops > 0
    assert "measured" in peak.name


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989.4),
        ("NVIDIA H200 NVL", 835.5),
        ("NVIDIA GH200 480GB", 989.4),
        ("NVIDIA B200", 2250),
        ("NVIDIA GB200", 2500),
    ],
)
def test_the_peak_of_a_known_gpu_is_that_of_its_data_sheet(monkeypatch, name, tflops):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    peak = peak_of(torch.device("cuda"), torch.bfloat16)
    assert peak.tflops == tflops
    assert peak.name.startswith("data sheet")


@pytest.mark.parametrize("name", ["NVIDIA RTX A1000", "NVIDIA GB300"])
def test_a_gpu_is_not_known_by_a_part_of_a_word(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr(flops, "calculation_dtype", lambda tensor: torch.bfloat16)
    monkeypatch.setattr(flops, "_measure_matrix_product", lambda device, dtype: 12.0)
    monkeypatch.setattr(torch, "empty", lambda *size, **options: None)  # there may be no GPU here
    assert peak_of(torch.device("cuda"), torch.bfloat16).tflops == 12
