"""Recommendation: the model, local training, evaluation, baselines, the artifact. Imports data.

Shapes, used everywhere: C clients, B examples, L history, K candidates, N items, E embedding, D model width,
R rank, U users on a node.
"""
