"""What happened and what is happening, told to people: derived from history and events, never decided here."""
