"""Hugging Face models: loading them, running them with a perturbation, saving what training changed."""

from textadv.models.adapting import Lora
from textadv.models.causal import load_causal
from textadv.models.counting import counted_parameters
from textadv.models.embedded import embedded_inputs
from textadv.models.export import UnmergeableError, save_adapter, save_merged
from textadv.models.loading import LoadedModel, load_classifier, load_trained_classifier
from textadv.models.logits import tempered
from textadv.models.places import (
    Averaged,
    bare,
    blocks,
    delta_shape,
    device_of,
    dtype_of,
    editable_mask,
    encoder_of,
    require_model,
    space_module,
)
from textadv.models.prefix import with_prefix
from textadv.models.preprocessing import ImageShape, Preprocessing, read_preprocessing
from textadv.models.running import (
    all_states,
    as_reference,
    evaluating,
    forward,
    hidden_states,
    recomputes,
    unsynced,
    vectors,
)
from textadv.models.state import TRAINING_ONLY, load_trainable_state, trainable_state
from textadv.models.trial import (
    Tokenised,
    TokenRows,
    require_embedded,
    require_longest,
    require_movable,
    require_readable,
)
from textadv.models.unreached import freeze_unreached
from textadv.models.vision import (
    Normalised,
    as_classifier,
    clean_outputs,
    logits_warning,
    patch_positions,
    require_logits,
)
from textadv.models.vision_loading import LoadedVision, built_in, load_image_classifier, save_vision
from textadv.values.errors import ModelError, PerturbationError

__all__ = [
    "TRAINING_ONLY",
    "Averaged",
    "ImageShape",
    "LoadedModel",
    "LoadedVision",
    "Lora",
    "ModelError",
    "Normalised",
    "PerturbationError",
    "Preprocessing",
    "TokenRows",
    "Tokenised",
    "UnmergeableError",
    "all_states",
    "as_classifier",
    "as_reference",
    "bare",
    "blocks",
    "built_in",
    "clean_outputs",
    "counted_parameters",
    "delta_shape",
    "device_of",
    "dtype_of",
    "editable_mask",
    "embedded_inputs",
    "encoder_of",
    "evaluating",
    "forward",
    "freeze_unreached",
    "hidden_states",
    "load_causal",
    "load_classifier",
    "load_image_classifier",
    "load_trainable_state",
    "load_trained_classifier",
    "logits_warning",
    "patch_positions",
    "read_preprocessing",
    "recomputes",
    "require_embedded",
    "require_logits",
    "require_longest",
    "require_model",
    "require_movable",
    "require_readable",
    "save_adapter",
    "save_merged",
    "save_vision",
    "space_module",
    "tempered",
    "trainable_state",
    "unsynced",
    "vectors",
    "with_prefix",
]
