"""The sample documents of examples/, and the typesetting that they share."""
