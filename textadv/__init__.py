"""textadv: adversarial fine-tuning of Hugging Face models, and proof of what it bought.

Names are loaded when first used, so that `import textadv` stays fast and needs none of the optional packages.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "textadv.attacks": "L1 L2 AdaptiveRadius Attack Attacked AutoAttack Avoid Ball Begin CarliniWagner CarliniWagnerL0 "
    "CarliniWagnerLinf Contrast Ddn DeepFool Diverge Elicit Eot Fab Foreign GradientAttack Held Linf MinimumRadius "
    "Noise Pdgd RefusalDirection Square Targeted ThreatModel Transfer Untargeted VirtualAdversarial apgd_ce apgd_dlr "
    "apgd_targeted autoattack fab_targeted fgsm foreign pgd r_fgsm repeat then worst_of",
    "textadv.training.averaging": "Averaging",
    "textadv.values.batch": "Batch Perturbation Role",
    "textadv.config.types": "ConfigError",
    "textadv.tasks.text.config": "RunConfig",
    "textadv.tasks.chat.config": "ChatRunConfig",
    "textadv.tasks.file": "load_config",
    "textadv.tasks.images.config": "ImageRunConfig",
    "textadv.data": "ChatRows DataError EncodedRows Examples Fitting ImageRows ImageSplits Splits encode encode_chats "
    "fitted joined load_chats load_image_splits load_splits reviews shapes",
    "textadv.measuring": "Attacks Cascade Curve Masking Measure Measured MinimumRadii RadiusSearch Results Rows Sizes "
    "evaluate inspect_images inspect_rows scores",
    "textadv.values.losses": "cross_entropy kl margin symmetric_kl",
    "textadv.training.mixing": "Constant Linear Mixing Steps",
    "textadv.models": "ImageShape Lora ModelError Normalised PerturbationError as_classifier evaluating forward "
    "load_causal load_classifier load_image_classifier read_preprocessing save_adapter save_merged save_vision",
    "textadv.objectives": "Adversarial Clean Consistency Distributional Free FreeLB Mart PredictorConsistency Proximal "
    "Regularised Term WeightPerturbation alum hardening memory_of r3f smart trades with_predictor",
    "textadv.training.overfitting": "Guard",
    "textadv.values.host.phases": "OnScreen telling",
    "textadv.training.progress": "Scores Settings",
    "textadv.report": "comparison_table read_results write_grid write_results",
    "textadv.training.sampling": "OneStream Streams",
    "textadv.values.spaces": "Ablation Embeddings Hidden Pixels Several",
    "textadv.training.trainer": "Trainer",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}
__all__ = sorted(_HOME_OF)  # noqa: PLE0605 a list of the names above, kept in one place


def __getattr__(name: str) -> object:
    """The public name from its module."""
    if name not in _HOME_OF:
        raise AttributeError(f"textadv has no public name {name!r}.")
    return vars(import_module(_HOME_OF[name]))[name]


def __dir__() -> list[str]:
    """The public names."""
    return [*__all__, "__version__"]
