"""Run checks over what was given: before training, over a repository, over what a run left behind."""
