"""Images that come from elsewhere than a folder become files in a private one; nothing of what they show."""
