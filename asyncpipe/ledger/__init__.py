"""The durable record of an output folder."""
