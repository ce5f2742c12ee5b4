"""Attacks: plain functions from (classifier, pixels, labels, threat) to an AttackResult.

`catalog` and `parse` know names and options without torch; `losses`, `projections`, `meter` and `search` are shared;
every other module is one attack or one family; `audit` and `diagnostics` judge what an attack hands back.
"""
