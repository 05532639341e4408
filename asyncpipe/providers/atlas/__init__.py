"""Atlas Cloud: its paths and its key, and how its answers are read.

``client`` sends, ``reader`` and ``fields`` turn answers into predictions, ``billing`` and
``quote`` read what things cost.
"""
