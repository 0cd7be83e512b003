"""A task that the library does not have: whether a review is liked, measured by accuracy alone."""
