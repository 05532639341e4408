"""When to submit, poll, wait, retry and give up: pure decisions."""
