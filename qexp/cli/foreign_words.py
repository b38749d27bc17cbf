"""Names of settings in other programs, and what they are called here, for error messages."""

from __future__ import annotations

_TEMPLATE = "lightning-hydra-template"
_TRAINER = "the Trainer of transformers"
_BENCHMARK = "optimum-benchmark"
_COMMON = "other programs"
_OF_WANDB = ("project", "entity", "mode", "upload_onnx", "timeout")
"""Fields that were of ``tracker`` itself when a run had one tracker."""

_BY_PROGRAM: dict[str, dict[str, str]] = {
    _TEMPLATE: {
        "experiment": "recipe={}, or a file of your own: --config-dir DIR --config-name NAME",
        "logger": "tracker={}",
        "ckpt_path": "model.name={} finetune=none; a run that was cut off goes on with the same command",
        "trainer": "finetune.…, method.… and machine.…",
        "trainer.max_epochs": "finetune.epochs={}",
        "trainer.max_steps": "finetune.max_steps={}, or budget.train_steps={} for every training",
        "trainer.accelerator": "machine.accelerator={}",
        "trainer.devices": "machine.devices={}",
        "trainer.precision": "machine.precision=fp32, bf16 or fp16",
        "trainer.accumulate_grad_batches": "machine.accumulate={}",
        "trainer.limit_train_batches": "budget.train_steps=N, or budget=smoke",
        "trainer.fast_dev_run": "budget=smoke",
        "data.batch_size": "finetune.batch_size={}",
        "data.data_dir": "data.root={}",
        "datamodule": "data=…, or data.path=FILE",
        "callbacks": "nothing: checkpoints are saved by themselves (machine.checkpoint_seconds); "
        "callbacks.early_stopping is finetune.patience",
        "debug": "budget=smoke",
        "hparams_search": "a sweep: -m seed=1,2, or hydra/sweeper=optuna",
        "model.optimizer.lr": "finetune.learning_rate={}",
        "task_name": "task={}",
        "train": "nothing: a run trains and evaluates",
        "test": "nothing: a run trains and evaluates",
        "paths": "QEXP_OUTPUTS and QEXP_DATA",
        "paths.data_dir": "data.root={}",
        "paths.output_dir": "the environment variable QEXP_OUTPUTS",
    },
    _TRAINER: {
        "model_name_or_path": "model.name={}",
        "tokenizer_name": "model.name={}: the tokenizer is the checkpoint's",
        "dataset_name": "task=NAME, or task=classification data.path=FILE",
        "train_file": "data.path={}",
        "validation_file": "data.path=FOLDER with a file for each split",
        "learning_rate": "finetune.learning_rate={}",
        "num_train_epochs": "finetune.epochs={}",
        "max_steps": "finetune.max_steps={}, or budget.train_steps={} for every training",
        "per_device_train_batch_size": "finetune.batch_size={}",
        "per_device_eval_batch_size": "nothing: it changes no score",
        "gradient_accumulation_steps": "machine.accumulate={}",
        "weight_decay": "finetune.weight_decay={}",
        "adam_beta2": "finetune.beta2={}",
        "warmup_ratio": "finetune.warmup={}",
        "warmup_steps": "finetune.warmup_steps={}",
        "early_stopping_patience": "finetune.patience={}",
        "load_best_model_at_end": "finetune.holdout=0.05, a share of the train split",
        "lr_scheduler_type": "finetune.schedule={}",
        "max_seq_length": "task.max_length={}",
        "max_train_samples": "data.train_rows={}",
        "max_eval_samples": "budget.evaluation_rows={}",
        "fp16": "machine.precision=fp16",
        "bf16": "machine.precision=bf16",
        "torch_compile": "machine.compile={}",
        "report_to": "tracker={}",
        "run_name": "tags=[{}]",
        "output_dir": "the environment variable QEXP_OUTPUTS",
        "overwrite_output_dir": "nothing: results are reused by content",
        "resume_from_checkpoint": "nothing: the same command goes on",
        "use_cpu": "machine=cpu",
        "no_cuda": "machine=cpu",
        "do_train": "finetune=full",
        "do_eval": "nothing: a run evaluates",
    },
    _BENCHMARK: {
        "benchmark": "deploy.batch_sizes, deploy.lengths and deploy.runs; qexp bench RUN times a finished "
        "run",
        "scenario": "deploy.batch_sizes, deploy.lengths and deploy.runs; qexp bench RUN times a finished run",
        "backend": "deploy={}",
        "backend.device": "machine.accelerator=cpu or gpu",
        "backend.model": "model.name={}",
        "backend.task": "task={}",
        "launcher": "hydra/launcher=joblib, submitit_local, …, for sweeps; a single run needs none",
        "device": "machine.accelerator=cpu or gpu",
    },
    _COMMON: {
        "lr": "finetune.learning_rate={}",
        "epochs": "finetune.epochs={}, and method.epochs of QAT",
        "batch_size": "finetune.batch_size={}",
        "max_tokens": "finetune.batch_tokens={}, the whole batch of all devices",
        "patience": "finetune.patience={}",
        "max_length": "task.max_length={}",
        "dataset": "task=NAME, or task=classification data.path=FILE",
        "checkpoint": "model.name={}",
        "bits": "quant=w8a8, w4a8, …",
        "precision": "quant=w8a8, w4a8, …; machine.precision is that of training",
        "quantization": "quant={}",
        "threads": "machine.threads={}",
        "gpu": "machine=gpu",
        "wandb": "tracker=wandb",
        "name": "tags=[{}]",
        "notes": "note={}",
        "tag": "tags=[{}]",
        "tracker.tags": "tags={}",
        "tracker.notes": "note={}",
        "tracker.name": "tags=[{}]",
        "tracker.kind": "tracker={}",
        **{f"tracker.{each}": f"tracker.wandb.{each}={{}}" for each in _OF_WANDB},
        "output": "the environment variable QEXP_OUTPUTS",
        "runtime": "deploy={}",
    },
}  # fmt: skip
FOREIGN = {name: (program, here) for program, names in _BY_PROGRAM.items() for name, here in names.items()}
"""Program and name here, with ``{}`` for the value, by dotted name there."""


def foreign_word(name: str, value: str) -> str | None:
    """Return what a setting of another program is called here, with its value; None if it is not known."""
    path = name
    while path not in FOREIGN:
        path, dot, _ = path.rpartition(".")
        if not dot:
            return None
    program, here = FOREIGN[path]
    known = here.replace("{}", value.strip("[]") if "[{}]" in here else value or "…")
    source = "" if program == _COMMON else f" ({name} is a word of {program})"
    return f"here it is {known}{source}"
