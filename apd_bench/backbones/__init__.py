"""open_clip models behind one adapter with prompt slots."""
