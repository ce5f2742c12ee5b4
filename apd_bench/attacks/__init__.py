"""Attacks: plain functions from (classifier, pixels, labels, threat) to an AttackResult."""
