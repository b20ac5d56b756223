"""Trackers of experiments: TensorBoard, MLflow and Weights & Biases get the figures of each round."""
