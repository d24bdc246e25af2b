"""What both sides of the wire need: the generated shared messages, and JSON documents as messages and back."""
