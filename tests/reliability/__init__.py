"""What is survived: real servers that reload, peers that die or attack, hosts that fail."""
