"""The daemon: a clock that only asks for runs, workers that take what was asked for, and chores beside them."""
