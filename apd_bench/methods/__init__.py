"""Methods: a learner, an objective and a recipe each. Importing this package does not import torch."""
