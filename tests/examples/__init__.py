"""Programs that README shows, whole: each is run by a test beside it."""
