"""A search over hyper-parameters with the same number of tries for every method, chosen on validation images.

`space` says what may vary, `search` turns tries into fits and cells, `trials` is the table of those that are done,
`choice` picks the best by a rule, `curve` shows how the best grows with the number of tries, `files` writes it down.
"""
