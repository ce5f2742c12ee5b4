"""Leaderboards: stored records in, tables with evidence out. Nothing here imports torch or touches a model."""
