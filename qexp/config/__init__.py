"""Schema of an experiment: every value that a run can depend on, validated once and frozen.

Hydra composes overrides to a tree of plain values, and :class:`Experiment` validates that tree. Sections are
frozen pydantic models that reject unknown fields. The docstring of a field, which pydantic keeps
as its description, has its meaning, its unit, and its special values.

The sections of :class:`Experiment` before ``machine`` determine *what* is computed, and are part of cache
keys. ``machine`` determines *how*; only the settings that can change bits of a result, :class:`Numerics`, are
part of cache keys. ``tracker`` determines where results are mirrored and ``accept`` how they are judged, and
both are never part of a key.
"""

from qexp.config.any_task import AnyTask
from qexp.config.base import FLOAT_BITS, Bits, Section
from qexp.config.batch_size import BatchSize
from qexp.config.calibration import (
    AnyCalibrator,
    Calibration,
    Calibrator,
    ClipCalibrator,
    EmaCalibrator,
    EntropyCalibrator,
    ImportedCalibrator,
    MaxCalibrator,
    MseCalibrator,
    PercentileCalibrator,
    SqnrCalibrator,
)
from qexp.config.deploy import (
    FLOOR_ROWS,
    Accept,
    AnyDeploy,
    Budget,
    DeployEngines,
    Gate,
    Machine,
    NoDeploy,
    Numerics,
    Onnx,
    TrainingSetup,
)
from qexp.config.embedding import CORPUS, BiEncoderTask, EmbeddingTask, RetrievalTask
from qexp.config.experiment import Experiment
from qexp.config.multi_label import LabelDecoding, MultiLabelTask
from qexp.config.number_formats import NumberFormat
from qexp.config.quantization import (
    ActivationScheme,
    GradientRule,
    GroupSize,
    Override,
    Placement,
    Quant,
    QuantizationConfig,
    Scheme,
    SiteKind,
    ValueType,
    WeightScheme,
)
from qexp.config.refinement import Refinement
from qexp.config.reranking import RerankingTask
from qexp.config.runtimes import RUNTIMES, RuntimeSpec
from qexp.config.task import (
    Data,
    FromScratch,
    Metric,
    Model,
    QuestionTask,
    SpanDecoding,
    Task,
    TextTask,
    score_name,
)
from qexp.config.token_classification import TokenTask
from qexp.config.tracking import Csv, Mlflow, Tensorboard, Trackers, Wandb
from qexp.config.training import (
    AnyFinetune,
    AnyMethod,
    ContinuedTraining,
    Control,
    Distillation,
    Finetune,
    NoFinetune,
    NoMethod,
    Ptq,
    Qat,
    Schedule,
)
from qexp.config.translation import BeamSearch, BleuTokenizer, TranslationTask
from qexp.naming import Execution, Precision, RuntimeName

__all__ = [
    "CORPUS",
    "FLOAT_BITS",
    "FLOOR_ROWS",
    "RUNTIMES",
    "Accept",
    "ActivationScheme",
    "AnyCalibrator",
    "AnyDeploy",
    "AnyFinetune",
    "AnyMethod",
    "AnyTask",
    "BatchSize",
    "BeamSearch",
    "BiEncoderTask",
    "Bits",
    "BleuTokenizer",
    "Budget",
    "Calibration",
    "Calibrator",
    "ClipCalibrator",
    "ContinuedTraining",
    "Control",
    "Csv",
    "Data",
    "DeployEngines",
    "Distillation",
    "EmaCalibrator",
    "EmbeddingTask",
    "EntropyCalibrator",
    "Execution",
    "Experiment",
    "Finetune",
    "FromScratch",
    "Gate",
    "GradientRule",
    "GroupSize",
    "ImportedCalibrator",
    "LabelDecoding",
    "Machine",
    "MaxCalibrator",
    "Metric",
    "Mlflow",
    "Model",
    "MseCalibrator",
    "MultiLabelTask",
    "NoDeploy",
    "NoFinetune",
    "NoMethod",
    "NumberFormat",
    "Numerics",
    "Onnx",
    "Override",
    "PercentileCalibrator",
    "Placement",
    "Precision",
    "Ptq",
    "Qat",
    "Quant",
    "QuantizationConfig",
    "QuestionTask",
    "Refinement",
    "RerankingTask",
    "RetrievalTask",
    "RuntimeName",
    "RuntimeSpec",
    "Schedule",
    "Scheme",
    "Section",
    "SiteKind",
    "SpanDecoding",
    "SqnrCalibrator",
    "Task",
    "Tensorboard",
    "TextTask",
    "TokenTask",
    "Trackers",
    "TrainingSetup",
    "TranslationTask",
    "ValueType",
    "Wandb",
    "WeightScheme",
    "score_name",
]
