"""A model trains through the kernels as through the references."""

import pytest
import torch
from test_operations import made_model, on_kernels  # noqa: F401

from deltalm_ds.model import DropoutState, PackedTokens
from deltalm_ds.ops.cuda import choice

STEPS = 200
SIZES = {"width": 64, "num_heads": 1, "feed_forward_width": 128, "num_encoder_layers": 1}


def made_batches():
    """Four batches of two short samples; the decoder is to copy the source's first tokens."""
    generator = torch.Generator().manual_seed(2)
    batches = []
    for lengths in ((9, 5), (3, 12), (7, 7), (1, 10)):
        sources = [torch.randint(4, 60, (length,), generator=generator) for length in lengths]
        labels = [source[:4] for source in sources]
        inputs = [torch.cat([label.new_tensor([2]), label[:-1]]) for label in labels]
        packed = (PackedTokens.from_sequences(sequences) for sequences in (sources, inputs))
        batches.append((*packed, torch.cat(labels)))
    return batches


def losses(dtype, way):
    """The loss a token of every step, dropout on, masters in fp32."""
    for operation in choice.OPERATIONS:
        choice._choices[operation, "cpu"] = way == "kernel"
    model, batches = made_model(dtype, **SIZES), made_batches()
    masters = [parameter.detach().float().requires_grad_() for parameter in model.parameters()]
    optimizer = torch.optim.AdamW(masters, lr=2e-3)
    found = []
    for step in range(STEPS):
        source, decoder_input, labels = batches[step % len(batches)]
        sums = model(source, decoder_input, labels, 0.1, "uniform", DropoutState(seed=3, step=step))
        loss = sums[0] / len(labels)
        loss.backward()
        for parameter, master in zip(model.parameters(), masters, strict=True):
            master.grad = parameter.grad.float()
        optimizer.step()
        with torch.no_grad():
            for parameter, master in zip(model.parameters(), masters, strict=True):
                parameter.copy_(master)
        model.zero_grad(set_to_none=True)
        found.append(float(loss.detach()))
    return torch.tensor(found)


@pytest.mark.slow
@pytest.mark.usefixtures("on_kernels")
def test_200_steps_differ_by_no_more_than_bf16_itself_makes():
    exact, by_torch = losses(torch.float32, "reference"), losses(torch.bfloat16, "reference")
    by_kernels = losses(torch.bfloat16, "kernel")
    assert by_torch[-20:].mean() < 0.6 * by_torch[:20].mean()
    # Early on nothing but rounding tells the runs apart; later each goes a way of its own.
    for steps in (40, STEPS):
        rounding = distance(by_torch, exact, steps)
        assert 0 < distance(by_kernels, by_torch, steps) <= 2 * rounding
        assert distance(by_kernels, exact, steps) <= 2 * rounding


def distance(losses, others, steps):
    return float((losses - others)[:steps].square().mean().sqrt())
