"""textadv: adversarial fine-tuning of Hugging Face models, and proof of what it bought."""

__version__ = "0.1.0"
