"""Planning and running a grid of cells."""
