"""One cell: attack, audit, diagnostics, and what came of it."""
