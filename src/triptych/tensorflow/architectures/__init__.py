"""Models for Keras, a file for each architecture, made of KerasHub's layers; `conversion` fills them."""

from typing import Any

from triptych.errors import InputError
from triptych.models import barts, decoders, encoders, initial_weights, vision
from triptych.tensorflow.architectures.bart import Bart
from triptych.tensorflow.architectures.bert import (
    Bert,
    BertChoices,
    BertMasked,
    Bias,
    Classifier,
    DistilBert,
    DistilBertChoices,
    DistilBertMasked,
    Electra,
    ElectraChoices,
    ElectraMasked,
    QuestionReader,
    Roberta,
    RobertaMasked,
    TokenClassifier,
)
from triptych.tensorflow.architectures.causal import Causal, Prompts
from triptych.tensorflow.architectures.convnext import ConvNext
from triptych.tensorflow.architectures.deberta import (
    Deberta,
    DebertaChoices,
    DebertaMasked,
    DebertaQuestionReader,
    DebertaTokenClassifier,
)
from triptych.tensorflow.architectures.decoder import Decoder
from triptych.tensorflow.architectures.gpt2 import GPT2
from triptych.tensorflow.architectures.layers import KeysValues, Model
from triptych.tensorflow.architectures.modernbert import (
    ModernBert,
    ModernBertChoices,
    ModernBertMasked,
    ModernBertQuestionReader,
    ModernBertTokenClassifier,
)
from triptych.tensorflow.architectures.pictures import ImageClassifier, Patches
from triptych.tensorflow.architectures.resnet import ResNet
from triptych.tensorflow.architectures.seq2seq import TABLES, Seq2Seq, Source
from triptych.tensorflow.architectures.swin import Swin
from triptych.tensorflow.architectures.t5 import T5, distance_buckets
from triptych.tensorflow.architectures.vit import DeiTWithTeacher, ViT

__all__ = [
    "GENERATES",
    "GPT2",
    "T5",
    "TABLES",
    "Bart",
    "Bias",
    "Causal",
    "Classifier",
    "Deberta",
    "Decoder",
    "ImageClassifier",
    "KeysValues",
    "Model",
    "ModernBert",
    "Patches",
    "Prompts",
    "Seq2Seq",
    "Source",
    "build",
    "distance_buckets",
    "model_class",
]

GENERATES = "ForConditionalGeneration"  # the head of models that generate text

ARCHITECTURES: dict[str, dict[str, Any]] = {
    GENERATES: {"t5": T5, "mt5": T5, **dict.fromkeys(barts.KINDS, Bart)},
    decoders.HEAD: {decoders.GPT2: GPT2, **dict.fromkeys(decoders.KINDS, Decoder)},
    "ForSequenceClassification": {
        "bert": Bert,
        "roberta": Roberta,
        "xlm-roberta": Roberta,
        "distilbert": DistilBert,
        "electra": Electra,
        "modernbert": ModernBert,
        "deberta-v2": Deberta,
    },
    "ForTokenClassification": {
        **dict.fromkeys(initial_weights.BERTS, TokenClassifier),
        "modernbert": ModernBertTokenClassifier,
        "deberta-v2": DebertaTokenClassifier,
    },
    "ForQuestionAnswering": {
        **dict.fromkeys(initial_weights.BERTS, QuestionReader),
        "modernbert": ModernBertQuestionReader,
        "deberta-v2": DebertaQuestionReader,
    },
    "ForMultipleChoice": {
        **dict.fromkeys(("bert", "roberta", "xlm-roberta"), BertChoices),
        "distilbert": DistilBertChoices,
        "electra": ElectraChoices,
        "modernbert": ModernBertChoices,
        "deberta-v2": DebertaChoices,
    },
    encoders.MASKED: {
        "bert": BertMasked,
        **dict.fromkeys(("roberta", "xlm-roberta"), RobertaMasked),
        "distilbert": DistilBertMasked,
        "electra": ElectraMasked,
        "modernbert": ModernBertMasked,
        "deberta-v2": DebertaMasked,
    },
    vision.HEAD: {
        **dict.fromkeys(vision.VITS, ViT),
        **dict.fromkeys(vision.CONVNEXTS, ConvNext),
        vision.RESNET: ResNet,
        vision.SWIN: Swin,
    },
    vision.WITH_TEACHER: {"deit": DeiTWithTeacher},
}


def build(
    config: Any,
    head: str = GENERATES,
    *,
    dtype: str = "float32",
    gradient_checkpointing: bool = False,
    **options: Any,
) -> Any:
    """The model of a configuration; its variables are made but not filled, which `conversion` does.

    Args:
        config: a transformers configuration whose `model_type` is in ARCHITECTURES.
        head: of the model, as ARCHITECTURES has them.
        dtype: a Keras policy: "float32", "mixed_bfloat16" or "mixed_float16".
        gradient_checkpointing: compute each layer anew for its gradient instead of keeping its activations.
        options: of the class: `own_tables` of Seq2Seq and Causal.

    Raises:
        InputError: if the architecture or its activation is not among those that work.
    """
    model = model_class(config, head)(config, dtype=dtype, **options)
    model.gradient_checkpointing = gradient_checkpointing
    return model


def model_class(config: Any, head: str = GENERATES) -> Any:
    """The class for a configuration; if there is none, InputError lists those that work."""
    known = ARCHITECTURES[head]
    if config.model_type not in known:
        raise InputError(
            f"The architecture {config.model_type!r} is not supported in this form; there are: "
            f"{', '.join(known)}."
        )
    return known[config.model_type]
