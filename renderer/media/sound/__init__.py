"""From the urls of sounds to the packets of one soundtrack: decoded, placed, mixed and coded beside the pictures."""
