"""How the embedded sets and weights were made; not part of the wheel. See README.md."""
