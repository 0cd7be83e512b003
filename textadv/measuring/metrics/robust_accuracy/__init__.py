"""A folder as `evaluate.load` expects it: the module of the same name holds the metric."""
