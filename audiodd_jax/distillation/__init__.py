"""Methods that learn a coreset, the loop that runs them, the artefact they make."""
