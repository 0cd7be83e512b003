"""Judges: what tells whether an answer broke the model, and how often each agrees with people."""

from textadv.measuring.judges.openai_compatible import ChatEndpoint, EndpointError, RequestFailedError

__all__ = ["ChatEndpoint", "EndpointError", "RequestFailedError"]
