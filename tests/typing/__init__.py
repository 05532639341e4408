"""Programs of users that only a type checker reads."""
