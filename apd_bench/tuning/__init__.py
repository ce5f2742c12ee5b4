"""A search over hyper-parameters with the same number of tries for every method, chosen on validation images.

`space` says what may vary, `search` turns tries into fits and cells, `trials` makes them and keeps the table of those
that are done, `choice` picks the best by a rule and says how it grows with the number of tries, `files` writes it down.
"""
