"""Measurements: ratios against a baseline in one run, never absolute claims."""
