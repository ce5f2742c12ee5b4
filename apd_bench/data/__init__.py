"""Image sets, their cards, and the protocols that draw few-shot and test samples from them."""
