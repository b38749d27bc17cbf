"""Speed of the program itself, as ratios in one run.

    python -m benchmarks.qat_step       a training step and a forward pass, over FP32, beside peers
    python -m benchmarks.calibration    a calibration pass over plain inference, and the range searches
    python -m benchmarks.fake_quant     one fake quantization, over a copy and its arithmetic
    python -m benchmarks.inference      every form that serves a model
    python -m benchmarks.translation    searches of a translation in engines, beside CTranslate2
    python -m benchmarks.deploy         INT8 over FP32 on this CPU, and with --no-vnni on one without VNNI
    python -m benchmarks.safe_weights   what weights that cannot saturate cost
    python -m benchmarks.gpu            INT8, FP16, BF16 and FP32 of one encoder on a GPU, PyTorch alone
    python -m benchmarks.cost_curve     whether the price is linear in the elements quantized

Each prints its tables and, with ``--json FILE``, files them with versions, threads, processor and date.
Peers come with the extra ``bench``; those that are missing are named. ``--help`` lists the settings.
"""
