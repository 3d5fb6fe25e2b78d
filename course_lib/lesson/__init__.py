"""What do the first cells of a lesson need? Sizes for this machine, where it runs, a learner's progress."""
