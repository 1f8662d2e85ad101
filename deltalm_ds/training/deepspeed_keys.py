"""What becomes of every key of DeepSpeed's JSON: passed on, resolved by us, or refused.

The keys are those that DeepSpeed 0.19 reads (its runtime/config.py and the sections' models). A test compares
them with the installed version and names each key that is not decided here.
"""

from __future__ import annotations

from deltalm_ds.training.deepspeed_schema import (
    BOOLEAN,
    COUNT,
    DTYPE,
    NAMES,
    NUMBER,
    POSITIVE,
    STAGE,
    Decision,
    GradientPath,
    Passed,
    Refused,
    Resolved,
    Section,
    one_of,
)

_STAGES_1_AND_2: tuple[GradientPath, ...] = ("stages 1 and 2",)
_STAGE_3: tuple[GradientPath, ...] = ("stage 3",)
_BUCKETS: tuple[GradientPath, ...] = ("stages 1 and 2", "stage 3")

_REMOVED = "DeepSpeed itself has removed it: take it out"
_NVME = Refused("offloading to NVMe is not for this trainer: offload to the CPU", unless=None)
_OWN_RECORD = Refused("the trainer writes its own TensorBoard files and metrics.jsonl: take it out")
_ONE_KIND = Refused("the trainer is data parallel only: take it out")
_FP32_STATE = Refused("masters, moments and checks stay in fp32: take it out")
_MODEL_INIT = Refused("the trainer itself cuts the model over the processes: take it out", unless=True)
_SAVING = "the trainer saves, verifies and loads checkpoints itself: take it out"

_OFFLOADED_OPTIMIZER: dict[str, Decision] = {
    "device": Passed(one_of("none", "cpu")),
    "pin_memory": Passed(BOOLEAN),
    "nvme_path": _NVME,
    "buffer_count": _NVME,
    "pipeline_read": Refused("it overlaps reads from NVMe: take it out"),
    "pipeline_write": Refused("it overlaps writes to NVMe: take it out"),
    "fast_init": Refused("it is for NVMe: take it out"),
    "ratio": Refused("the optimizer is offloaded whole: take it out", unless=1.0),
    "super_offload": Refused("it needs another optimizer than the trainer's: take it out"),
    "cpuadam_cores_perc": Refused("it acts only with super_offload: take it out", unless=None),
}

_OFFLOADED_PARAMETERS: dict[str, Decision] = {
    "device": Passed(one_of("none", "cpu")),
    "pin_memory": Passed(BOOLEAN),
    "nvme_path": _NVME,
    "buffer_count": _NVME,
    "buffer_size": _NVME,
    "max_in_cpu": _NVME,
}

_LEAF_MODULE: dict[str, Decision] = {
    "classes": Passed(NAMES),
    "names": Passed(NAMES),
    "name_suffixes": Passed(NAMES),
}

_ZERO: dict[str, Decision] = {
    "stage": Resolved(STAGE),
    "contiguous_gradients": Passed(BOOLEAN, _BUCKETS),
    "reduce_scatter": Passed(BOOLEAN, _BUCKETS),
    "reduce_bucket_size": Passed(POSITIVE, _BUCKETS),
    "use_multi_rank_bucket_allreduce": Passed(BOOLEAN, _STAGES_1_AND_2),
    "allgather_bucket_size": Passed(POSITIVE, ("stage 1 in bf16", "stages 1 and 2")),
    "overlap_comm": Passed(BOOLEAN, _BUCKETS),
    "ignore_unused_parameters": Passed(BOOLEAN, _STAGES_1_AND_2),
    "round_robin_gradients": Passed(BOOLEAN, _STAGES_1_AND_2),
    "parameter_alignment": Passed(BOOLEAN, _STAGES_1_AND_2),
    "offload_optimizer": Section(_OFFLOADED_OPTIMIZER, _BUCKETS),
    "offload_param": Section(_OFFLOADED_PARAMETERS, _STAGE_3),
    "sub_group_size": Passed(POSITIVE, _STAGE_3),
    "stage3_prefetch_bucket_size": Passed(COUNT, _STAGE_3),
    "stage3_param_persistence_threshold": Passed(COUNT, _STAGE_3),
    "stage3_model_persistence_threshold": Passed(COUNT, _STAGE_3),
    "stage3_max_live_parameters": Passed(COUNT, _STAGE_3),
    "stage3_max_reuse_distance": Passed(COUNT, _STAGE_3),
    "stage3_module_granularity_threshold": Passed(COUNT, _STAGE_3),
    "stage3_use_all_reduce_for_fetch_params": Passed(BOOLEAN, _STAGE_3),
    "stage3_allgather_sequential": Passed(BOOLEAN, _STAGE_3),
    "zero_hpz_partition_size": Passed(POSITIVE, _STAGE_3),
    "log_trace_cache_warnings": Passed(BOOLEAN, _STAGE_3),
    "enable_sanity_checks": Passed(BOOLEAN, _STAGE_3),
    "leaf_module": Section(_LEAF_MODULE, _STAGE_3),
    "allgather_partitions": Refused("DeepSpeed no longer reads it: take it out", unless=True),
    "compute_grad_norm": Refused("the trainer records the gradient norm: take it out", unless=True),
    "load_from_fp32_weights": Refused(_SAVING, unless=True),
    "elastic_checkpoint": Refused("runs resume with any number of ranks: take it out"),
    "pipeline_loading_checkpoint": Refused(_SAVING),
    "stage3_gather_16bit_weights_on_model_save": Refused(_SAVING),
    "stage3_gather_fp16_weights_on_model_save": Refused(_SAVING),
    "zenflow": Refused("it updates with gradients of earlier steps: take it out", unless=None),
    "cpu_offload": Refused('DeepSpeed replaced it: write "offload_optimizer": {"device": "cpu"}'),
    "cpu_offload_param": Refused('DeepSpeed replaced it: write "offload_param": {"device": "cpu"}'),
    "cpu_offload_use_pin_memory": Refused("DeepSpeed replaced it: write offload_optimizer.pin_memory"),
    "legacy_stage1": Refused("DeepSpeed itself has removed it: take it out"),
    "zero_quantized_weights": Refused("quantized communication is not for this trainer: take it out"),
    "zero_quantized_nontrainable_weights": Refused("every weight is trained here: take it out"),
    "zero_quantized_gradients": Refused("gradients are summed in full precision here: take it out"),
    "memory_efficient_linear": _MODEL_INIT,
    "override_module_apply": _MODEL_INIT,
    "save_muon_momentum_buffer_in_memory": Refused("the optimizer is not Muon: take it out"),
    **{
        name: Refused(f"write it as stage3_{name}", unless=None)
        for name in (
            "prefetch_bucket_size",
            "param_persistence_threshold",
            "model_persistence_threshold",
            "max_live_parameters",
            "max_reuse_distance",
            "module_granularity_threshold",
            "use_all_reduce_for_fetch_params",
            "allgather_sequential",
            "gather_16bit_weights_on_model_save",
        )
    },
    "mics_shard_size": Refused(_REMOVED, unless=-1),
    "mics_hierarchical_params_gather": Refused(_REMOVED),
    "zeropp_loco_param": Refused(_REMOVED, unless=None),
}

_BF16: dict[str, Decision] = {
    "enabled": Resolved(BOOLEAN, auto=True),
    "immediate_grad_update": Passed(BOOLEAN, ("stage 1 in bf16",)),
    "check_grad_overflow": Refused(
        "a step with a NaN is always skipped and reported: take it out", unless=True
    ),
    "bf16_master_weights_and_grads": _FP32_STATE,
    "bf16_optimizer_states": _FP32_STATE,
}

_FP16: dict[str, Decision] = {
    "enabled": Resolved(BOOLEAN, auto=True),
    "loss_scale": Passed(NUMBER),
    "initial_scale_power": Passed(COUNT),
    "loss_scale_window": Resolved(POSITIVE),
    "hysteresis": Passed(POSITIVE),
    "consecutive_hysteresis": Passed(BOOLEAN),
    "min_loss_scale": Passed(POSITIVE),
    "auto_cast": Refused("the model's inputs are token ids, which are not cast: take it out"),
    "fp16_master_weights_and_grads": _FP32_STATE,
}

_DATA_TYPES: dict[str, Decision] = {
    "grad_accum_dtype": Resolved(DTYPE),
    "param_dtype": Refused("bf16.enabled and fp16.enabled choose it: take it out", unless=None),
    "buffer_dtype": Refused("the model has no buffers to cast: take it out", unless=None),
    "keep_in_fp32_modules": Refused("the model keeps no module in fp32: take it out", unless=None),
}

_COMMS_LOGGER: dict[str, Decision] = {
    "enabled": Passed(BOOLEAN),
    "verbose": Resolved(BOOLEAN),
    "prof_all": Passed(BOOLEAN),
    "prof_ops": Passed(NAMES),
    "debug": Passed(BOOLEAN),
}

_THROUGHPUT: dict[str, Decision] = {
    "enabled": Refused("the trainer measures throughput itself, without stopping the device: take it out"),
    "synchronized": Refused("it acts only with DeepSpeed's throughput timer: take it out", unless=None),
}

TOP_LEVEL: dict[str, Decision] = {
    "train_batch_size": Resolved(POSITIVE, auto=True),
    "train_micro_batch_size_per_gpu": Resolved(POSITIVE, auto=True),
    "gradient_accumulation_steps": Resolved(POSITIVE, auto=True),
    "gradient_clipping": Resolved(NUMBER, auto=True),
    "zero_optimization": Section(_ZERO),
    "bf16": Section(_BF16),
    "fp16": Section(_FP16),
    "data_types": Section(_DATA_TYPES),
    "communication_data_type": Resolved(DTYPE),
    "zero_allow_untested_optimizer": Resolved(BOOLEAN),
    "log_level": Resolved(one_of("debug", "info", "warning", "error", "critical")),
    "steps_per_print": Passed(POSITIVE),
    "wall_clock_breakdown": Passed(BOOLEAN),
    "memory_breakdown": Passed(BOOLEAN),
    "dump_state": Passed(BOOLEAN),
    "disable_python_gc": Passed(BOOLEAN),
    "comms_logger": Section(_COMMS_LOGGER),
    "timers": Section({"throughput": Section(_THROUGHPUT)}),
    # Batches and gradients: the trainer's own arithmetic.
    "managed_gradient_accumulation": Refused(
        "the trainer ends each accumulation itself: take it out", unless=True
    ),
    "gradient_allreduce_op": Refused(
        "the loss is weighted for the mean over ranks: take it out", unless="mean"
    ),
    "prescale_gradients": Refused("gradients are reduced in fp32, where it gains nothing: take it out"),
    "gradient_predivide_factor": Refused(
        "gradients are reduced in fp32, where it gains nothing: take it out", unless=1.0
    ),
    "disable_allgather": Refused("DeepSpeed no longer reads it: take it out"),
    "dataloader_drop_last": Refused("the trainer has its own data loader, which drops nothing: take it out"),
    "data_efficiency": Refused("the trainer decides the order of samples: take it out"),
    "vocabulary_size": Refused("the model pads its vocabulary to a multiple of 8: take it out", unless=None),
    # Optimizer, precision and memory.
    "optimizer": Refused(
        "the trainer makes it: use --optimizer, --learning-rate, --weight-decay, …", unless=None
    ),
    "scheduler": Refused("the trainer makes it: use --schedule, --warmup-steps and --steps", unless=None),
    "zero_force_ds_cpu_optimizer": Refused("the trainer chooses the optimizer for offloading: take it out"),
    "activation_checkpointing": Refused(
        "it acts only on models that call deepspeed.checkpointing: use --checkpoint-every-n-layers",
        unless=None,
    ),
    "torch_autocast": Refused("use bf16.enabled or fp16.enabled"),
    "bfloat16": Refused("DeepSpeed's old name: write bf16", unless=None),
    "compile": Refused("the trainer does not call engine.compile(): take it out", unless=None),
    "weight_quantization": Refused("it is for inference: take it out", unless=None),
    "aio": Refused("it is for offloading to NVMe; offload to the CPU and take it out", unless=None),
    "allgather_size": Refused("write zero_optimization.allgather_bucket_size", unless=None),
    # Checkpoints and records.
    "checkpoint": Refused(_SAVING, unless=None),
    "datastates_ckpt": Refused(_SAVING),
    "tensorboard": _OWN_RECORD,
    "wandb": _OWN_RECORD,
    "csv_monitor": _OWN_RECORD,
    "comet": _OWN_RECORD,
    "flops_profiler": Refused(
        "it miscounts packed batches; the trainer records model FLOPs itself: take it out"
    ),
    "autotuning": Refused("it restarts the script with settings of its own: take it out"),
    # Other kinds of parallelism.
    "pipeline": Refused(_ONE_KIND.because, unless=None),
    "tensor_parallel": Refused(_ONE_KIND.because, unless=None),
    "expert_parallel": _ONE_KIND,
    "use_data_before_expert_parallelism": _ONE_KIND,
    "sequence_parallel_size": Refused(_ONE_KIND.because, unless=1),
    "seq_parallel_communication_data_type": Refused(_ONE_KIND.because, unless=None),
    "hybrid_engine": Refused("it generates text between training steps: take it out"),
    **{
        name: Refused(_REMOVED)
        for name in (
            "amp",
            "compression_training",
            "curriculum_learning",
            "eigenvalue",
            "elasticity",
            "graph_harvesting",
            "nebula",
            "progressive_layer_drop",
            "quantize_training",
            "sparse_attention",
            "sparse_gradients",
        )
    },
}
