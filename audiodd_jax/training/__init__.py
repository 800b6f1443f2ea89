"""Training networks and scoring what they, or a coreset, have learned."""
