"""What is left here moves with its users."""
