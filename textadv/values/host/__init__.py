"""What stands between the library and the machine: files, texts for terminals, signals, how far a phase is."""
