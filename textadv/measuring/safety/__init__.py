"""Safety of chat models: ways to ask, answers, refusals, and what became of every behaviour."""
