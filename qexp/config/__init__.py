"""The experiment: every value that a run can depend on, validated once, frozen afterwards.

Hydra composes words into one plain tree; :class:`Experiment` gives that tree its meaning. Sections
are frozen pydantic models that refuse unknown fields. The sentence under a field says what it is,
its unit, and what special values mean; ``qexp.cli`` prints the same sentences in its help.

Sections above the line in :class:`Experiment` say *what* is computed and are part of stage keys;
``machine`` says *how*; only what of it shows in the bits of a result, :class:`Numerics`, is. ``tracker``
says where results are mirrored, which never is.
"""

from qexp.config.calibration import (
    AnyCalibrator,
    Calibration,
    Calibrator,
    ClipCalibrator,
    EmaCalibrator,
    EntropyCalibrator,
    MaxCalibrator,
    MseCalibrator,
    PercentileCalibrator,
    SqnrCalibrator,
)
from qexp.config.experiment import Experiment
from qexp.config.quantization import (
    ActivationScheme,
    Form,
    Override,
    Placement,
    Quant,
    Scheme,
    SiteKind,
    ValueType,
    WeightScheme,
)
from qexp.config.refinement import Refinement
from qexp.config.section import FLOAT_BITS, Bits, Section
from qexp.config.task import (
    AnyTask,
    BeamSearch,
    Data,
    Metric,
    Model,
    QuestionTask,
    Scratch,
    SpanSearch,
    Task,
    TextTask,
    TranslationTask,
    score_name,
)
from qexp.config.tracking import AnyTracker, NoTracker, Tensorboard, Wandb
from qexp.config.training import (
    AnyFinetune,
    AnyMethod,
    Control,
    Distillation,
    Finetuned,
    Further,
    NoMethod,
    Ptq,
    Qat,
    Schedule,
    Training,
)
from qexp.config.work import AnyDeploy, Budget, Machine, NoDeploy, Numerics, Onnx, OnnxRuntime, Schooling

__all__ = [
    "FLOAT_BITS",
    "ActivationScheme",
    "AnyCalibrator",
    "AnyDeploy",
    "AnyFinetune",
    "AnyMethod",
    "AnyTask",
    "AnyTracker",
    "BeamSearch",
    "Bits",
    "Budget",
    "Calibration",
    "Calibrator",
    "ClipCalibrator",
    "Control",
    "Data",
    "Distillation",
    "EmaCalibrator",
    "EntropyCalibrator",
    "Experiment",
    "Finetuned",
    "Form",
    "Further",
    "Machine",
    "MaxCalibrator",
    "Metric",
    "Model",
    "MseCalibrator",
    "NoDeploy",
    "NoMethod",
    "NoTracker",
    "Numerics",
    "Onnx",
    "OnnxRuntime",
    "Override",
    "PercentileCalibrator",
    "Placement",
    "Ptq",
    "Qat",
    "Quant",
    "QuestionTask",
    "Refinement",
    "Schedule",
    "Scheme",
    "Schooling",
    "Scratch",
    "Section",
    "SiteKind",
    "SpanSearch",
    "SqnrCalibrator",
    "Task",
    "Tensorboard",
    "TextTask",
    "Training",
    "TranslationTask",
    "ValueType",
    "Wandb",
    "WeightScheme",
    "score_name",
]
