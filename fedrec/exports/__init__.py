"""What leaves a run: the public model as a folder or on the hub, the user tower in ONNX, and predictions for others."""
