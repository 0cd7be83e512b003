"""The whole of what each recipe does, once the configuration is right; loaded only then, since torch takes seconds."""
