"""Published federated recommenders to compare with; nothing of the product imports them before they are trained."""
