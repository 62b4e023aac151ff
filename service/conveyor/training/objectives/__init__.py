"""What each task teaches: its batches, their loss, and the score on the development part."""
