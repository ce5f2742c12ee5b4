"""Methods: a learner, an objective and a recipe each."""
