"""The two-tower model: item tower, user tower with LoRA, and the same model for inference."""
