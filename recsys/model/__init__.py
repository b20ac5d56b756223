"""The two-tower model: item tower, user tower with LoRA, its scorers, and the same model for inference."""
