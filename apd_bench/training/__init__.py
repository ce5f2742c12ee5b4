"""From a recipe and few-shot data to a prompt state: the fit, its loop, states, importers."""
