"""From probabilities to events, scores and reports."""
