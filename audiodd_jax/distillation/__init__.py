"""Methods that learn a coreset, and the loop that runs them."""
