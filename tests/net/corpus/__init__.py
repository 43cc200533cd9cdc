"""What servers really send, and what they might."""
