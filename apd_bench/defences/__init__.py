"""Test-time defences: a classifier that adapts to every image before it predicts, and the attack that expects it.

`catalog` knows names, options and costs without torch; `base` says what a defence is; every other module is one defence
or what several share; `adaptive` is the attack.
"""
