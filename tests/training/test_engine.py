"""The gradients that reach the optimizer, on real processes, against one process without DeepSpeed."""

import json

import pytest
import torch
import torch.distributed as dist
from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_grad
from distributed import let_deepspeed_run_fp16, run_distributed

from deltalm_ds.data.batches import pack_samples
from deltalm_ds.data.loader import to_tensors
from deltalm_ds.data.objectives import Example
from deltalm_ds.data.samples import Sample
from deltalm_ds.model import DeltaLM, DeltaLMConfig, DropoutState, PackedTokens, Recomputation
from deltalm_ds.model.new_weights import NewWeights
from deltalm_ds.training.deepspeed_config import RequestedBatch, read_deepspeed_config
from deltalm_ds.training.distributed import join_processes, sum_over_ranks
from deltalm_ds.training.engine import Engine

CONFIG = DeltaLMConfig(
    vocabulary_rows=96,
    width=32,
    feed_forward_width=64,
    num_heads=4,
    num_encoder_layers=2,
    num_decoder_blocks=1,
    max_positions=64,
    num_sentinels=0,
    first_sentinel_id=0,
    mask_id=0,
)
DROPOUT = DropoutState(seed=3, step=7)
NUM_SAMPLES = 7  # divides by neither 2 processes nor 3 micro-batches


def made_samples():
    generator = torch.Generator().manual_seed(5)

    def tokens(length):
        return torch.randint(4, CONFIG.vocabulary_rows, (length,), generator=generator).numpy()

    lengths = torch.randint(1, 40, (NUM_SAMPLES, 2), generator=generator).tolist()
    return [
        Sample(
            position=100 + number,
            source_index=0,
            epoch=0,
            item=number,
            objective="",
            language="",
            example=Example(tokens(source), tokens(target), tokens(target)),
        )
        for number, (source, target) in enumerate(lengths)
    ]


SEED = 4


def made_model():
    return DeltaLM(CONFIG, SEED)


def reference_gradients():
    """One batch, one process, fp32, no DeepSpeed."""
    model, batch = made_model(), to_tensors(pack_samples(made_samples()), torch.device("cpu"))
    source = PackedTokens(
        batch.source_tokens, batch.source_cumulative_lengths, batch.max_source_length, batch.sample_ids
    )
    target = PackedTokens(
        batch.decoder_input, batch.target_cumulative_lengths, batch.max_target_length, batch.sample_ids
    )
    (model(source, target, batch.labels, dropout=DROPOUT).loss / batch.num_target_tokens).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def made_engine(
    folder, stage, dtype, accumulation, world_size, optimizer=None, recompute_every=0, weights=None, **more
):
    """An engine of a configuration file in `folder`; `weights` are those of `made_model` by default."""
    content = {
        "train_batch_size": NUM_SAMPLES,
        "gradient_accumulation_steps": accumulation,
        "zero_optimization": {
            "stage": stage,
            # Partition every parameter, small as they are.
            **({"stage3_param_persistence_threshold": 0} if stage == 3 else {}),
        },
        "gradient_clipping": 0.0,
        **({dtype: {"enabled": True}} if dtype != "fp32" else {}),
        **more,
    }
    path = folder / f"{stage}-{dtype}-{accumulation}-{dist.get_rank()}.json"
    path.write_text(json.dumps(content))
    config = read_deepspeed_config(
        path, RequestedBatch(None, None), world_size, gradient_clipping=0.0, default_dtype="fp32"
    )
    let_deepspeed_run_fp16()
    with torch.device("meta"):
        model = DeltaLM(CONFIG)
    weights = weights or NewWeights(model, SEED)
    model.recomputation = Recomputation(recompute_every)
    made = optimizer(model) if optimizer else torch.optim.SGD(model.parameters(), lr=1.0)
    return Engine(model, made, config, weights, folder)


def run_step(engine, samples, accumulation, dropout=DROPOUT, label_smoothing=0.0):
    """One step of this rank's share of `samples`, split as the loader splits."""
    world_size, rank = dist.get_world_size(), dist.get_rank()
    places = range(rank, world_size * accumulation, world_size)
    batches = [
        to_tensors(pack_samples(samples[place :: world_size * accumulation]), torch.device("cpu"))
        for place in places
    ]
    tokens = torch.tensor(sum(batch.num_target_tokens for batch in batches), dtype=torch.float64)
    return engine.step(batches, sum_over_ranks(tokens), dropout, label_smoothing)


def gradient_errors(folder, cases):
    """The worst error of any parameter's gradient for each case, in units of what is allowed."""
    from pathlib import Path

    join_processes()
    world_size = dist.get_world_size()
    reference = reference_gradients()
    largest = max(gradient.norm() for gradient in reference.values())
    errors = []
    for stage, dtype, accumulation, tolerance, recompute_every in cases:
        engine = made_engine(
            Path(folder), stage, dtype, accumulation, world_size, recompute_every=recompute_every
        )
        update, found, calls = engine._update, {}, []
        for layer in (engine.module.encoder.layers[-1], engine.module.decoder.blocks[-1]):
            layer.register_forward_pre_hook(lambda layer, inputs, calls=calls: calls.append(layer))

        def capture(*arguments, engine=engine, update=update, found=found):
            for name, parameter in engine.module.named_parameters():
                found[name] = safe_get_full_grad(parameter).float().clone()
            return update(*arguments)

        engine._update = capture
        outcome, _ = run_step(engine, made_samples(), accumulation)
        total = torch.stack([gradient.norm() for gradient in reference.values()]).norm()
        errors.append(
            {
                "gradient": max(
                    float((found[name] - gradient).norm() / (tolerance * gradient.norm() + 3e-7 * largest))
                    if dtype == "fp32"
                    else float((found[name] - gradient).norm() / (tolerance * largest))
                    for name, gradient in reference.items()
                ),
                "norm": abs(outcome.gradient_norm / float(total) - 1),
                "applied": outcome.applied,
                "layer_calls": len(calls),
            }
        )
        engine.deepspeed.destroy()
    return errors


CASES = [
    (stage, dtype, accumulation, 1e-5 if dtype == "fp32" else 2e-2, 0)
    for stage in (0, 1, 2, 3)
    for dtype in ("fp32", "bf16")
    for accumulation in (1, 3)
]
RECOMPUTED = [
    *[(stage, "bf16", 3, 2e-2, 1) for stage in (0, 1, 2, 3)],
    *[(stage, "fp32", 1, 1e-5, 1) for stage in (0, 3)],
]


@pytest.mark.parametrize(("num_processes", "cases"), [(1, CASES), (2, CASES + RECOMPUTED)])
def test_gradients_equal_one_fp32_process(tmp_path, num_processes, cases):
    outcomes = run_distributed(gradient_errors, num_processes, folder=str(tmp_path), cases=cases)
    for case, errors in zip(cases, outcomes[0].value, strict=True):
        assert errors["gradient"] <= 1, (case, errors)
        assert errors["norm"] < (1e-5 if case[1] == "fp32" else 2e-2), (case, errors)
        assert errors["applied"], case
        _, _, accumulation, _, recompute_every = case
        assert errors["layer_calls"] == 2 * accumulation * (1 + recompute_every), case


def skipped_steps(folder, cases):
    """For each case: what a poisoned step said and moved, and whether the next good one moved anything."""
    from pathlib import Path

    join_processes()
    results = []
    for stage, dtype in cases:
        engine = made_engine(Path(folder), stage, dtype, 1, dist.get_world_size())
        engine.set_learning_rate(0.1)

        def weights(engine=engine):
            return engine.full_weights()["encoder.layers.0.attention.query_weight"]

        before = weights()
        poisoned, _ = run_step(engine, made_samples(), 1, label_smoothing=float("nan"))
        after = weights()
        good, _ = run_step(engine, made_samples(), 1)
        results.append(
            [poisoned.applied, bool((before == after).all()), good.applied, bool((weights() != after).any())]
        )
        engine.deepspeed.destroy()
    return results


def test_a_step_that_is_not_finite_is_skipped_and_said(tmp_path):
    cases = [(0, "fp32"), (0, "bf16"), (1, "fp32"), (1, "bf16"), (2, "fp16"), (2, "bf16")]
    cases += [(3, "fp32"), (3, "bf16"), (3, "fp16")]
    (outcome,) = run_distributed(skipped_steps, 1, folder=str(tmp_path), cases=cases)
    assert outcome.value == [[False, True, True, True]] * len(cases)


def adam_steps(folder, cases):
    """The weights after a few AdamW steps, for each case."""
    from pathlib import Path

    from deltalm_ds.training.optimizer import OptimizerSettings, build_optimizer

    join_processes()
    ends = []
    for stage, dtype, more in cases:
        engine = made_engine(
            Path(folder),
            stage,
            dtype,
            1,
            dist.get_world_size(),
            optimizer=lambda model: build_optimizer(model, OptimizerSettings(), torch.device("cpu")),
            **more,
        )
        start = torch.cat([p.detach().float().flatten() for p in made_model().parameters()])
        scales = []
        for _ in range(6):
            engine.set_learning_rate(0.01)
            outcome, _ = run_step(engine, made_samples(), 1)
            scales.append(outcome.loss_scale)
        end = torch.cat([p.detach().float().flatten() for p in engine.module.parameters()])
        ends.append(((end - start).tolist(), scales))
        engine.deepspeed.destroy()
    reference = torch.tensor(ends[0][0])
    return [[float((torch.tensor(end) - reference).norm() / reference.norm()), s] for end, s in ends]


def test_adam_moves_alike_at_every_stage_and_with_a_growing_loss_scale(tmp_path):
    growing = {"fp16": {"enabled": True, "initial_scale_power": 4, "loss_scale_window": 2}}
    cases = [(2, "fp32", {}), (0, "fp32", {}), (2, "bf16", {}), (0, "bf16", {}), (2, "fp16", growing)]
    (outcome,) = run_distributed(adam_steps, 1, folder=str(tmp_path), cases=cases)
    distances = [distance for distance, _ in outcome.value]
    assert distances[1] < 1e-4
    assert distances[2] < 0.2  # the weights themselves are rounded to bf16
    assert distances[3] < 0.2
    assert distances[4] < 0.05
    assert outcome.value[4][1] == [16, 16, 32, 32, 64, 64]


def masters(folder, cases):
    """How far the masters are from the weights that the engine was given, for each case."""
    from pathlib import Path

    join_processes()
    given = dict(made_model().named_parameters())
    distances = []
    for stage, dtype in cases:
        engine = made_engine(Path(folder), stage, dtype, 1, dist.get_world_size())
        if stage:
            found = {
                name: safe_get_full_fp32_param(parameter)
                for name, parameter in engine.module.named_parameters()
            }
        else:
            wrapped = engine.deepspeed.optimizer
            names = {id(parameter): name for name, parameter in engine.module.named_parameters()}
            found = {
                names[id(half)]: master
                for halves, group in zip(wrapped.fp16_groups, wrapped.fp32_groups, strict=True)
                for half, master in zip(halves, group, strict=True)
            }
        assert found.keys() == given.keys()
        distances.append(max(float((found[name] - given[name]).abs().max()) for name in given))
        engine.deepspeed.destroy()
    return distances


def test_masters_begin_as_the_weights_given_not_as_their_rounding(tmp_path):
    cases = [(0, "bf16"), (1, "bf16"), (2, "bf16"), (2, "fp16"), (3, "bf16")]
    outcomes = run_distributed(masters, 2, folder=str(tmp_path), cases=cases)
    assert outcomes[0].value == [0.0] * len(cases)
    assert outcomes[1].value == [0.0] * len(cases)
