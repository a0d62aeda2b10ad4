"""Where a run's numbers and pictures go. None of these can stop a run, once it has started."""
