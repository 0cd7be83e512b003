"""One run made ready: from a configuration to what trains and what is measured."""
