"""Other ways to do the same jobs; each ``run`` makes ``jobs`` pictures, ``in_flight`` at once."""
