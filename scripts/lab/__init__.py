"""The corpus and the shape of the laboratory's chat model, which scripts/build_lab_llm.py trains and tests use."""
