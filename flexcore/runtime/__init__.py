"""The one interface to places that run work, and what is the same for all of them."""
